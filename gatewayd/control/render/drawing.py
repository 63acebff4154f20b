"""What every screen is drawn with: the terminal, colours by what a state means, texts that cannot move the cursor."""

from __future__ import annotations

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from .. import words
from ..base import Data

_GOOD = {
    "ready",
    "live",
    "connected",
    "active",
    "current",
    "done",
    "present",
    "listening",
    "sane",
    "accepted",
    "fresh",
    "pinned",
    "lifted",
}
_WORKING = {
    "new",
    "enrolling",
    "replacing",
    "connecting",
    "unreachable",
    "started",
    "waiting",
    "running",
    "absent",
    "pending",
    "unknown",
    "closing",
    "awaiting",
    "pinning",
    "lifting",
}
_BAD = {
    "refused",
    "revoked",
    "expired",
    "faulty",
    "pin-missing",
    "pin-refused",
    "unusable",
    "failed",
    "rejected",
    "not listening",
    "stale",
}
MARKS = {"done": ("✓", "green"), "failed": ("✗", "red"), "waiting": ("…", "yellow"), "started": ("·", "dim")}


def console(*, stderr: bool = False) -> Console:
    """Wraps at the terminal's width; into a pipe or a file nothing is wrapped or cut."""
    made = Console(highlight=False, markup=False, emoji=False, stderr=stderr)
    if not made.is_terminal:
        made.width = 10_000
    return made


def show(renderable: RenderableType) -> None:
    """On stdout; without the blanks that fill a table's last column when it is not a terminal."""
    out = console()
    if out.is_terminal:
        out.print(renderable, crop=False)
        return
    if isinstance(renderable, Text):  # without styles and wrapping it is what it says
        drawn = renderable.plain
    else:
        with out.capture() as captured:
            out.print(renderable)
        drawn = captured.get()
    click.echo("\n".join(line.rstrip() for line in drawn.splitlines()))


def two_columns() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def plain(text: str, style: str = "") -> Text:
    return Text(words.clean(text), style=style)


def stamp(item: Data, key: str) -> Text:
    return Text(words.local(item[key])) if key in item else Text()


def coloured(state: str) -> Text:
    return plain(state, style_of(state))


def style_of(state: str) -> str:
    return "green" if state in _GOOD else "yellow" if state in _WORKING else "red" if state in _BAD else ""


def joined(*parts: Text, separator: str = " · ") -> Text:
    return Text(separator).join([each for each in parts if each])
