"""``gatewayctl token``."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from .. import words
from ..base import Data
from .drawing import coloured, joined, plain, two_columns


def tokens(data: Data) -> RenderableType:
    """``gatewayctl token status``."""
    grid = two_columns()
    for name, it in data.items():
        if name != "token":
            grid.add_row(Text(name.replace("_", " "), style="bold"))
        for label, key in (
            ("token", "label"),
            ("serial", "serial"),
            ("model", "model"),
            ("manufacturer", "manufacturer"),
            ("module", "module"),
        ):
            if it.get(key):
                grid.add_row(Text(label, style="bold"), plain(it[key]))
        since = plain(f"since {words.local(it['since'])}" if "since" in it else "")
        grid.add_row(Text("state", style="bold"), joined(coloured(it["state"]), since))
        if it.get("detail"):
            grid.add_row("", plain(it["detail"], "red"))
        if "pin_tries" in it:
            left = str(it.get("pin_tries_left", it["pin_tries"]))
            until = f"locked until {words.local(it['locked_until'])} at the latest" if "locked_until" in it else ""
            grid.add_row(Text("PIN tries left", style="bold"), joined(plain(left, "red"), plain(until)))
        if "algorithms" in it:
            grid.add_row(Text("makes keys", style="bold"), plain(", ".join(it["algorithms"])))
    return grid


def token_objects(data: Data) -> RenderableType:
    """``gatewayctl token objects``."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ROLE", "KIND", "ALGORITHM", "ID", "LABEL", "WHY"):
        table.add_column(column, overflow="fold")
    for each in data["objects"]:
        goes = f" It goes from {words.local(each['collected_from'])} on." if "collected_from" in each else ""
        table.add_row(
            coloured(each["role"]),
            plain(each["kind"]),
            plain(each.get("algorithm", "")),
            plain(each["id"]),
            plain(each["label"]),
            plain(each["reason"] + goes),
        )
    for each in data["missing"]:
        gone = Text("missing", style="red")
        table.add_row(gone, Text("private-key"), Text(), plain(each["id"]), Text(), plain(each["reason"], "red"))
    return table
