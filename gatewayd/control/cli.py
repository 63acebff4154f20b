"""gatewayctl: what an administrator types.

``--help`` does not wait for GLib, nor a command that prints JSON for rich: both are imported where they are used.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

import click

from .. import __version__
from ..core.model import KeyAlgorithm, RevocationReason
from ..errors import GatewayError, Internal, InvalidArgument, OutputLost
from . import arguments, words
from .app import INTERRUPTED, App, as_json, no_wait, one_of, read, rendering, variants
from .cli_attest import attest
from .cli_audit import audit
from .cli_device import device
from .cli_doctor import command as doctor
from .cli_logs import logs
from .cli_page import page
from .cli_service import backup, reload, restore
from .cli_token import token
from .cli_transfer import adopt, export
from .cli_watch import command as watch
from .completion import PROGRAM, VARIABLE, completion, device_ids
from .output import LOST

JOBS = "/org/gatewayd/Gateway1/jobs/"
TTY_LINE = 4095
"""Characters that a terminal hands over in a line; what is longer it cuts (termios, canonical mode)."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--bus", metavar="ADDRESS", envvar="GATEWAYD_BUS", default="system", help="D-Bus address of another bus.")
@click.version_option(__version__, prog_name="gatewayctl")
@click.pass_context
def cli(context: click.Context, bus: str) -> None:
    """Look after gatewayd: device keys and certificates of this gateway and of the devices behind it."""
    context.ensure_object(App).address = bus


@cli.command()
@as_json
@click.pass_obj
def status(app: App) -> None:
    """Show how everything stands, and what waits for a person."""
    data = app.client.call("GetStatus")
    app.show(data, lambda: rendering().status(data))


@cli.command()
@click.option("--token-file", metavar="FILE", help="Read the token from FILE, or from standard input when it is '-'.")
@click.option("--certificate", metavar="FILE", help="Use a factory-made certificate (PEM) whose key is in the token.")
@no_wait
@as_json
@click.pass_obj
def bootstrap(app: App, token_file: str | None, certificate: str | None, no_wait: bool) -> None:
    """Get the gateway's first certificate.

    With a registrar's Entra token, which is asked for or read from standard input and never kept, or with a
    factory-made certificate.
    """
    if certificate is not None:
        if token_file is not None:
            raise InvalidArgument("give --token-file or --certificate, not both")
        pem = arguments.certificate(read(certificate, arguments.MAX_PEM))
        path = app.client.call("BootstrapWithCertificate", "(s)", pem)
    else:
        path = app.client.call("Bootstrap", "(s)", arguments.token(_token(token_file)))
    app.job(path, wait=not no_wait)


@cli.command()
@click.argument("device_id", metavar="[ID]", default="", shell_complete=device_ids)
@click.option("--key", "key_algorithm", type=one_of(KeyAlgorithm), help="Algorithm of the new key.")
@no_wait
@as_json
@click.pass_obj
def renew(app: App, device_id: str, key_algorithm: str | None, no_wait: bool) -> None:
    """Renew a certificate now: the gateway's, when no ID is given."""
    options = {"key_algorithm": key_algorithm} if key_algorithm else {}
    app.job(app.client.call("Renew", "(sa{sv})", device_id, variants(options)), wait=not no_wait)


@cli.command()
@click.argument("device_id", metavar="ID", shell_complete=device_ids)
@click.option(
    "--reason",
    required=True,
    type=one_of(RevocationReason),
    help="CRLReason of RFC 5280, 5.3.1.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@no_wait
@as_json
@click.pass_obj
def revoke(app: App, device_id: str, reason: str, yes: bool, no_wait: bool) -> None:
    """Revoke a device's certificates, and see it disabled in the hub. There is no way back."""
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidArgument("revoke asks before it acts: say --yes where there is nobody to ask")
        arguments.device_id(device_id)
        click.confirm(f"Revoke {device_id} ({reason})? There is no way back.", abort=True, err=True)
    app.job(app.client.call("Revoke", "(ssa{sv})", device_id, reason, {}), wait=not no_wait)


@cli.command()
@click.argument("path", metavar="JOB")
@as_json
@click.pass_obj
def job(app: App, path: str) -> None:
    """Follow a job by the path that was printed for it, or by its number."""
    number = path.removeprefix(JOBS)
    if not number.isdecimal() or not number.isascii():
        raise InvalidArgument(f"{arguments.shown(path)} is not a job: {JOBS}1 or just 1, say")
    app.job(JOBS + number, wait=True)


cli.add_command(device)
cli.add_command(token)
cli.add_command(attest)
cli.add_command(export)
cli.add_command(adopt)
cli.add_command(audit)
cli.add_command(page)
cli.add_command(doctor)
cli.add_command(logs)
cli.add_command(watch)
cli.add_command(completion)
cli.add_command(reload)
cli.add_command(backup)
cli.add_command(restore)


@cli.group()
def clock() -> None:
    """The machine's time of day."""


@clock.command("trust")
@as_json
@click.pass_obj
def clock_trust(app: App) -> None:
    """Take the machine's time as right, whatever was seen before.

    For a machine whose clock nothing synchronises, after its time was set by hand.
    """
    data = app.client.call("TrustClock")
    app.show(data, lambda: rendering().clock(data))


@cli.group()
def registrar() -> None:
    """The gateway's own application in Entra."""


@registrar.command("certificate")
@as_json
@click.pass_obj
def registrar_certificate(app: App) -> None:
    """Print the certificate (PEM) to upload to the gateway's Entra application."""
    pem = app.client.call("GetRegistrarCertificate")
    app.show({"certificate": pem}, lambda: pem.rstrip("\n"))


def _token(file: str | None) -> str:
    """Never from the command line, which everybody on the machine can read."""
    if file is not None or not sys.stdin.isatty():
        return read(file or "-", arguments.MAX_TOKEN)
    token: str = click.prompt("Entra token of a registrar (not shown)", hide_input=True, err=True)
    if len(token) >= TTY_LINE:
        raise InvalidArgument(f"a terminal cuts a line at {TTY_LINE} characters: give the token with --token-file")
    return token


def _fail(app: App, error: GatewayError) -> int:
    if app.as_json and not app.answered:
        failure = {"error": error.name(), "message": error.message, "remedy": error.remedy}
        with suppress(OSError):
            click.echo(json.dumps(failure, indent=2, ensure_ascii=False))
    click.echo(f"gatewayctl: {words.clean(error.message)}\n{error.remedy}", err=True)
    return error.exit_code


def _unexpected(app: App, error: Exception) -> int:
    return _fail(app, Internal(f"gatewayctl met an unexpected error ({type(error).__name__}: {error})"))


def _have_streams() -> None:
    """Those that are closed are as good as /dev/null; what they cannot show is replaced."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def main() -> int:
    """Returns the exit status: 0, that of the error (gatewayd/errors.py), or 130 when interrupted."""
    _have_streams()
    app = App()
    try:
        return int(cli.main(obj=app, prog_name=PROGRAM, complete_var=VARIABLE, standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return InvalidArgument.exit_code
    except click.ClickException as error:
        return _fail(app, InvalidArgument(" ".join(error.format_message().split())))
    except GatewayError as error:
        return _fail(app, error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        if error.errno not in LOST:
            return _unexpected(app, error)
        app.answered = True
        return _fail(app, OutputLost(f"the answer cannot be written: {error.strerror}"))
    except Exception as error:
        return _unexpected(app, error)
