"""gatewayctl watch: what happens, as it happens; on a terminal a screen, elsewhere a line each."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ..errors import GatewayError
from .app import App, as_json, rendering
from .base import Data

if TYPE_CHECKING:
    from rich.console import RenderableType

_PAUSE = 0.2
"""Seconds: how often it is seen that nobody reads any more, or that the screen is due."""
_STATUS_EVERY = 5.0
_STATUS_AT_MOST_EVERY = 1.0
"""Seconds between two looks at the status: what changes in it without a signal is seen within the first."""
_DRAWN_AT_MOST_EVERY = 0.1
"""Seconds: when a thousand devices change at once, it would otherwise fall behind by as many screens."""
_KEPT = 100
"""Happenings that the screen can show."""


@click.command("watch")
@as_json
@click.pass_obj
def command(app: App) -> None:
    """Show what happens, as it happens: devices, jobs and their steps.

    On a terminal the status with it, drawn anew with each signal; elsewhere, and with --json, a line for each thing
    that happens. Ctrl-C ends it.
    """
    try:
        if app.as_json:
            _lines(app, lambda each: json.dumps(each, ensure_ascii=False))
        elif sys.stdout.isatty():
            _screen(app)
        else:
            _lines(app, rendering().happening)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the interpreter's last flush goes


def _lines(app: App, line: Callable[[Data], str]) -> None:
    from .watching import happenings

    app.client.call("GetStatus")  # whoever may not look is told so
    app.answered = True
    for happened in happenings(app.client, _PAUSE):
        if happened is not None:
            click.echo(line(happened))
        elif _nobody_reads():
            return


def _nobody_reads() -> bool:
    """Whether the other end of a pipe is closed; otherwise it is found out with the next line, perhaps next year."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _screen(app: App) -> None:
    from rich.live import Live

    from .watching import happenings

    render = rendering()
    console = render.console()
    lately: deque[Data] = deque(maxlen=_KEPT)
    jobs: dict[str, Data] = {}
    status, looked_at = app.client.call("GetStatus"), time.monotonic()
    problem = ""
    drawn_at, is_due = time.monotonic(), False

    def drawn() -> RenderableType:
        shown: RenderableType = render.watched(console, status, list(jobs.values()), list(lately), problem)
        return shown

    with Live(drawn(), console=console, screen=True, auto_refresh=False) as live:
        for happened in happenings(app.client, _PAUSE):
            if happened is not None:
                lately.append(happened)
                _keep(jobs, happened)
                is_due = True
            wait = _STATUS_EVERY if happened is None else _STATUS_AT_MOST_EVERY
            if (now := time.monotonic()) - looked_at >= wait:
                looked_at, is_due = now, True
                try:
                    status, problem = app.client.call("GetStatus"), ""
                except GatewayError as error:
                    problem = error.message
            if is_due and (happened is None or now - drawn_at >= _DRAWN_AT_MOST_EVERY):
                live.update(drawn(), refresh=True)
                drawn_at, is_due = time.monotonic(), False


def _keep(jobs: dict[str, Data], happened: Data) -> None:
    """Those under way, each with its latest step."""
    if happened["event"] == "daemon":
        jobs.clear()
    elif happened["event"] == "job":
        job = happened["job"]
        jobs[job["job"]] = job
        if job["state"] != "running":
            del jobs[job["job"]]
    elif happened["event"] == "step" and happened["job"] in jobs:
        jobs[happened["job"]] |= {"step": happened["step"], "step_state": happened["state"]}
