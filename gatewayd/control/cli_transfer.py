"""gatewayctl export and adopt: new hardware for the gateway itself."""

from __future__ import annotations

import sys

import click

from ..core.model import RevocationReason
from ..errors import InvalidArgument
from . import arguments
from .app import App, as_json, length, one_of, read, variants
from .output import written


@click.command()
@click.argument("file", metavar="FILE")
@as_json
@click.pass_obj
def export(app: App, file: str) -> None:
    """Write what the gateway's next hardware takes over to FILE, or to standard output when it is '-'.

    Leaves with their certificates, pins and revocations, signed in the token. There is no key in it. Keep a fresh one
    elsewhere: it is what 'gatewayctl adopt' needs when this hardware has failed.
    """
    text = app.client.call("Export")
    if file == "-":
        app.show({"export": text}, lambda: text)
        return
    with written(file) as descriptor, open(descriptor, "w", encoding="ascii", closefd=False) as opened:
        opened.write(text + "\n")
    app.show({"file": file, "characters": len(text)}, lambda: f"written to {file}")


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--reason",
    type=one_of(RevocationReason),
    help="Why the old hardware's certificates are revoked, if not because new hardware supersedes them.",
)
@click.option("--max-age", metavar="TIME", help="How old the export may be; a day, if nothing is said.")
@click.option(
    "--token-file",
    metavar="FILE",
    help="Get the first certificate with a registrar's Entra token from FILE, or from standard input when it is '-'.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Print the job's D-Bus path and do not wait for its end.")
@as_json
@click.pass_obj
def adopt(
    app: App, file: str, reason: str | None, max_age: str | None, token_file: str | None, yes: bool, no_wait: bool
) -> None:
    """Take the place of the hardware that has written FILE with 'gatewayctl export'.

    Takes over the leaves, pins and revocations, revokes the old hardware's certificates, gets one for this hardware,
    and enables the gateway's id in the hub for that one alone. Called again with the same FILE, it goes on.
    """
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidArgument("adopt asks before it acts: say --yes where there is nobody to ask")
        click.confirm("Revoke the certificates of the old hardware? They never come back.", abort=True, err=True)
    text = arguments.export(read(file, arguments.MAX_EXPORT))
    options: dict[str, object] = {"reason": reason} if reason else {}
    if max_age is not None:
        options["max_age"] = length("--max-age", max_age, arguments.MAX_AGE)
    if token_file is not None:
        options["token"] = arguments.token(read(token_file, arguments.MAX_TOKEN))
    path = app.client.call("Adopt", "(sa{sv})", text, variants(options))
    app.job(path, wait=not no_wait)
