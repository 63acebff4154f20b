"""``gatewayctl watch``: a line for each thing that happens, and the screen around them."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.text import Text

from .. import words
from ..base import Data
from .drawing import MARKS, coloured, joined, plain
from .status import status as status_screen

_JOBS_SHOWN = 5
_LEAST_LATELY = 3


def happening(item: Data) -> str:
    return _line(item).plain


def watched(console: Console, status: Data, jobs: list[Data], lately: list[Data], problem: str) -> RenderableType:
    """What fits on the terminal; what happened last is the last line."""
    parts: list[RenderableType] = [status_screen(status)]
    if problem:
        parts = [plain(f"{problem}; what follows is how it stood before", "bold red"), *parts]
    if jobs:
        parts += [Text("\nUnder way", style="bold"), *(_job(each) for each in jobs[-_JOBS_SHOWN:])]
    parts.append(Text("\nLately", style="bold"))
    room = max(console.height - len(console.render_lines(Group(*parts))), _LEAST_LATELY)
    return Group(*parts, *(_line(each) for each in lately[-room:]))


def _line(item: Data) -> Text:
    at = Text(f"{words.clock(item['at'])} ", style="dim")
    if item["event"] == "daemon":
        known = ("gatewayd is on the bus", "green") if item["running"] else ("gatewayd has left the bus", "red")
        return Text.assemble(at, known)
    if item["event"] == "device":
        device = item["device"]
        until = f"until {words.local(device['not_after'])}" if "not_after" in device else ""
        states = joined(coloured(device["state"]), plain(f"hub: {device['hub_state']}"), plain(until))
        return Text.assemble(at, plain(device["device_id"], "bold"), ": ", states)
    if item["event"] == "step":
        mark, style = MARKS.get(item["state"], ("·", ""))
        detail = f" — {item['detail']}" if "detail" in item else ""
        what = f"{item['kind']} of {item['device_id']}: {words.step(item['step'])} {item['state']}"
        return Text.assemble(at, (mark, style), " ", plain(what), plain(detail, "dim"))
    job = item["job"]
    why = f": {job['error']['message']}" if "error" in job else ""
    return Text.assemble(at, plain(f"{job['kind']} of {job['device_id']} "), coloured(job["state"]), plain(why))


def _job(item: Data) -> Text:
    step = f": {words.step(item['step'])} {item['step_state']}" if "step" in item else ""
    return plain(f"{item['kind']} of {item['device_id']}{step}")
