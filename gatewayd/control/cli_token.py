"""gatewayctl token: the PKCS#11 token that holds the gateway's keys."""

from __future__ import annotations

import sys

import click

from . import arguments
from .app import App, as_json, read, rendering, variants


@click.group()
def token() -> None:
    """The PKCS#11 token that holds the gateway's keys."""


which_token = click.option(
    "--token",
    "which",
    type=click.Choice(["gateway", "registrar"]),
    default="gateway",
    help="Whose token, where the registrar's key has one of its own.",
)


@token.command()
@as_json
@click.pass_obj
def status(app: App) -> None:
    """Show how the token stands and which keys it can make."""
    found = app.client.call("GetStatus")
    data = {name: found[name] for name in ("token", "registrar_token") if name in found}
    app.show(data, lambda: rendering().tokens(data))


@token.command()
@as_json
@click.pass_obj
def objects(app: App) -> None:
    """List what is in the token, and what each key is for."""
    data = app.client.call("ListTokenObjects")
    app.show(data, lambda: rendering().token_objects(data))


@token.command()
@which_token
@click.option("--final-try", is_flag=True, help="Try also when it is the last time before the token locks.")
@as_json
@click.pass_obj
def unlock(app: App, which: str, final_try: bool) -> None:
    """Give the daemon the token's PIN, which is tried once and kept in memory only.

    The PIN is asked for at the terminal, or read from standard input.
    """
    options = {"token": which, "final_try": final_try}
    data = app.client.call("UnlockToken", "(sa{sv})", _pin("PIN of the token", confirm=False), variants(options))
    app.show(data, lambda: rendering().tokens({"token": data}))


@token.command()
@which_token
@as_json
@click.pass_obj
def init(app: App, which: str) -> None:
    """Make the token that [token] uri names, in the module's first free slot, and open it.

    A token that is there already is left alone. The new PIN is asked for at the terminal, or read from standard
    input; the daemon keeps it in memory only, so put it where the daemon reads it at its next start.
    """
    pin = _pin("PIN for the new token", confirm=True)
    data = app.client.call("InitializeToken", "(sa{sv})", pin, variants({"token": which}))
    app.show(data, lambda: rendering().tokens({"token": data}))


def _pin(prompt: str, *, confirm: bool) -> str:
    """Never from the command line, which everybody on the machine can read."""
    if sys.stdin.isatty():
        text: str = click.prompt(f"{prompt} (not shown)", hide_input=True, confirmation_prompt=confirm, err=True)
    else:
        text = read("-", arguments.MAX_PIN).removesuffix("\n")
    return arguments.pin(text)
