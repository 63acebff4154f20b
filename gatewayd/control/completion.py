"""Completion by the shell: click's, and device ids from the running daemon."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from ..errors import GatewayError
from .app import App, variants

PROGRAM = "gatewayctl"
VARIABLE = "_GATEWAYCTL_COMPLETE"
"""By which the shell asks (click, shell completion)."""

OFFERED = 200
"""More than that nobody reads; who types on gets the rest."""


def device_ids(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """The ids that begin so; none when the daemon does not answer, because a prompt is no place for an error."""
    address = str(context.find_root().params.get("bus") or App().address)
    try:
        from .client import Client

        client = Client(address)  # not the App's, which may have an administrator's password asked for
        found = client.call("ListDevices", "(a{sv})", variants({"id": _literal(begun) + "*", "limit": OFFERED}))
    except GatewayError:
        return []
    return [CompletionItem(each["device_id"], help=each["state"]) for each in found]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete gatewayctl's commands, options and device ids.

    The package has installed it. Elsewhere: eval "$(gatewayctl completion bash)"
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, PROGRAM, VARIABLE).source())


def _literal(text: str) -> str:
    """As a pattern that matches nothing but itself (fnmatch)."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in text)
