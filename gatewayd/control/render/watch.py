"""``gatewayctl watch``: a line for each thing that happens, and the screen around them."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.segment import Segment, Segments
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
    """What fits on the terminal; what happened last is the last line. The status gives way to a few lines of what
    goes on."""

    def lines(*parts: RenderableType) -> list[list[Segment]]:
        return console.render_lines(Group(*parts), pad=False)

    above = lines(plain(f"{problem}; what follows is how it stood before", "bold red")) if problem else []
    stands = lines(status_screen(status))
    below: list[RenderableType] = [Text("\nLately", style="bold")]
    if jobs:
        below = [Text("\nUnder way", style="bold"), *(_job(each) for each in jobs[-_JOBS_SHOWN:]), *below]
    going_on, happened = lines(*below), lines(*(_line(each) for each in lately[-console.height :]))
    room = console.height - len(above) - len(going_on)
    if len(stands) > (most := max(room - min(len(happened), _LEAST_LATELY), 1)):
        more = f"and {len(stands) - most + 1} more lines: 'gatewayctl status'"
        stands = [*stands[: most - 1], *lines(Text(more, style="dim", no_wrap=True))]
    shown = happened[-max(room - len(stands), 1) :]
    fitting = [*above, *stands, *going_on, *shown][-console.height :]
    return Segments([each for line in fitting for each in (*line, Segment.line())])


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
