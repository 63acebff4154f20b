"""gatewayctl page: the technician's page, which the gateway serves in its local network."""

from __future__ import annotations

import click

from ..core.page import LIFETIME
from .app import App, as_json, length, rendering, variants


@click.group()
def page() -> None:
    """The page on which a technician swaps hardware, for a phone in the gateway's network."""


@page.command("open")
@click.option("--for", "lifetime", metavar="TIME", help="How long it is open, such as 30m, 2h; 1h when not given.")
@as_json
@click.pass_obj
def page_open(app: App, lifetime: str | None) -> None:
    """Print a link to the page, and its QR. It works once, and opens the page on one phone."""
    options = {} if lifetime is None else {"lifetime": length("--for", lifetime, LIFETIME)}
    data = app.client.call("OpenPage", "(a{sv})", variants(options))
    app.show(data, lambda: rendering().page_opened(data))


@page.command("close")
@as_json
@click.pass_obj
def page_close(app: App) -> None:
    """Close the page on all phones, and make links that were not used void."""
    data = app.client.call("ClosePage")
    app.show(data, lambda: f"Sessions and links that have ended: {data['ended']}")
