"""A job, step by step, and the technician's page."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from .. import qr, words
from ..base import Data
from .drawing import MARKS, console, plain


def page_opened(data: Data) -> RenderableType:
    """``gatewayctl page open``: the link, and on a terminal its QR."""
    good = f"It works once, and opens the page on one phone until {words.local(data['expires_at'])}."
    parts: list[RenderableType] = [plain(data["url"], "bold green"), Text(good)]
    if console().is_terminal:
        parts += [Text(), qr.drawn(data["url"])]
    return Group(*parts)


def step(data: Data) -> Text:
    """``✓ 12:01:03 revoked at the CA — evidence``"""
    mark, style = MARKS.get(data["state"], ("·", ""))
    line = Text.assemble((mark, style), f" {words.clock(data['at'])} {words.step(data['step'])}")
    if data.get("detail"):
        line.append(f" — {words.clean(data['detail'])}", "dim")
    return line


def outcome(job: Data) -> Text:
    """What a job that is done has come to."""
    result = job["result"]
    if job["kind"] == "revoke":
        return plain(f"{job['device_id']} is revoked, and verified as disabled in the hub.", "bold green")
    if job["kind"] == "replace":
        return plain(f"{job['device_id']} has new hardware; no old certificate of it gets into the hub.", "bold green")
    until = f" until {words.local(result['not_after'])}" if "not_after" in result else ""
    serial = f", serial {result['serial']}" if "serial" in result else ""
    return plain(f"{job['device_id']} has a new certificate{serial}{until}.", "bold green")
