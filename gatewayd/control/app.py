"""What the commands of gatewayctl share: the connection, how an answer is shown, how input is read.

GLib and rich are imported where they are used: ``--help`` does not wait for the one, nor JSON for the other.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import GatewayError, InvalidArgument, all_errors
from . import arguments, words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .base import Data
    from .client import Client

INTERRUPTED = 130

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class App:
    """What the options of one invocation amount to."""

    address: str = "system"
    as_json: bool = False
    answered: bool = False
    """Whether stdout has its JSON already."""

    @functools.cached_property
    def client(self) -> Client:
        from .client import Client

        return Client(self.address, interactive=sys.stdin.isatty())

    def show(self, data: Any, rendered: Callable[[], RenderableType]) -> None:
        if self.as_json:
            self.answered = True
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        else:
            from . import render

            render.show(rendered())

    def job(self, path: str, *, wait: bool) -> None:
        """Follow a job to its end, or only say where it is. Raises the job's error, or Exit."""
        if not wait:
            self.show(self.client.job(path) if self.as_json else None, lambda: path)
            return
        try:
            ended = self.client.follow(path, lambda _: None) if self.as_json else self._watch(path)
        except KeyboardInterrupt:
            click.echo(f"The job goes on. To look at it again: gatewayctl job {path}", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        if self.as_json:
            self.show(ended, lambda: "")
        if ended["state"] == "failed":
            error = ended["error"]
            raise all_errors().get(error["error"], GatewayError)(error["message"])

    def _watch(self, path: str) -> Data:
        from . import render

        console = render.console()
        told: set[tuple[str, str, str]] = set()

        def changed(job: Data) -> None:
            for step in job["steps"]:
                key = (step["step"], step["state"], step.get("detail", ""))
                if step["state"] == "started":
                    under_way.update(words.step(step["step"]))
                elif key not in told:
                    told.add(key)
                    console.print(render.step(step))

        with console.status("waiting for gatewayd") as under_way:
            ended = self.client.follow(path, changed)
        if ended["state"] == "done":
            console.print(render.outcome(ended))
        return ended


def as_json(command: F) -> F:
    def switch(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.ensure_object(App).as_json = value

    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=switch, help="Print JSON (docs/json.md)."
    )
    return option(command)


no_wait = click.option("--no-wait", is_flag=True, help="Print the job's D-Bus path and do not wait for its end.")


def one_of(kind: type[StrEnum]) -> click.Choice[str]:
    """One of its values: given the members, Click would go by their names."""
    return click.Choice([each.value for each in kind])


def rendering() -> Any:
    from . import render

    return render


def variants(options: dict[str, Any]) -> Any:
    from .variants import from_data

    return {name: from_data(value) for name, value in options.items()}


def length(option: str, text: str, allowed: range) -> int:
    """What is given for ``option``, a length of time, in seconds. Raises InvalidArgument."""
    seconds = words.duration(text)
    if seconds not in allowed:
        least, most = words.length(allowed[0]), words.length(allowed[-1])
        raise InvalidArgument(f"{option} takes from {least} to {most}, not {arguments.shown(text)}")
    return seconds


def read(file: str, most: int) -> str:
    try:
        if file == "-":
            return sys.stdin.read(most + 2)
        with Path(file).open(encoding="utf-8") as opened:
            return opened.read(most + 2)
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidArgument(f"{file} is not text") from None
