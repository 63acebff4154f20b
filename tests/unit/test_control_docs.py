"""The man page knows what gatewayctl knows."""

from collections.abc import Iterator
from pathlib import Path

import click

from gatewayd.control.cli import cli
from gatewayd.errors import all_errors

DOCS = Path(__file__).parents[2] / "docs"


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands(each, (*words, name))
    else:
        yield " ".join(words), command


def test_the_man_page_has_every_command_option_and_exit_status() -> None:
    page = (DOCS / "man" / "gatewayctl.1").read_text()
    for words, command in commands(cli):
        assert f".It Ic {words} " in page
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"Fl Fl {parameter.opts[0].removeprefix('--')}" in page
    for error in all_errors().values():
        assert f".It {error.exit_code}\n" in page
