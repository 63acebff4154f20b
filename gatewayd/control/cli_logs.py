"""gatewayctl logs: the journal of the daemon's unit, by way of journalctl."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import click

from ..errors import InvalidArgument, JournalMissing
from . import arguments
from .app import App, as_json
from .completion import device_ids

UNIT = "gatewayd.service"
FIELDS = (
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "DEVICE_ID",
    "CERT_SERIAL",
    "GATEWAYD_EVENT",
    "GATEWAYD_OUTCOME",
    "GATEWAYD_ERROR",
)
_JOURNALS = (Path("/run/log/journal"), Path("/var/log/journal"))


@click.command()
@click.option("--device", "device_id", metavar="ID", shell_complete=device_ids, help="What concerns this device.")
@click.option("--serial", metavar="HEX", help="What concerns the certificate with this serial number.")
@click.option("--since", metavar="TIME", help="Not older: as journalctl takes it, such as -2h, yesterday, 2031-05-01.")
@click.option("--lines", "-n", type=click.IntRange(1), metavar="N", help="The last N at most.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; Ctrl-C ends it.")
@click.option("--explain", "-x", is_flag=True, help="With what each means and what to do about it.")
@click.option("--directory", metavar="DIR", help="A journal from elsewhere, such as a copy of another machine's.")
@as_json
@click.pass_obj
def logs(
    app: App,
    device_id: str | None,
    serial: str | None,
    since: str | None,
    lines: int | None,
    follow: bool,
    explain: bool,
    directory: str | None,
) -> None:
    """Show what gatewayd has written to the system's journal."""
    command = [_journalctl(directory), f"--unit={UNIT}"]
    command += [f"--directory={directory}"] if directory is not None else []
    command += [f"--since={since}"] if since is not None else []
    command += [f"--lines={lines}"] if lines is not None else []
    command += ["--follow"] if follow else []
    command += ["--output=json", f"--output-fields={','.join(FIELDS)}"] if app.as_json else []
    command += ["--catalog"] if explain and not app.as_json else []
    command += [f"DEVICE_ID={arguments.device_id(device_id)}"] if device_id is not None else []
    command += [f"CERT_SERIAL={_serial(serial)}"] if serial is not None else []
    os.execv(command[0], command)  # noqa: S606 - no shell on purpose


def _journalctl(directory: str | None) -> str:
    """Its path. Raises JournalMissing where it would find nothing to show."""
    program = shutil.which("journalctl")
    if program is None:
        raise JournalMissing("There is no journalctl on this machine.")
    if directory is None and not any(any(each.glob("*/*.journal")) for each in _JOURNALS):
        raise JournalMissing("There is no journal on this machine.")
    return program


def _serial(text: str) -> str:
    """As gatewayd writes it; taken as others do, too: ``0A:1B``, ``0x0a1b``."""
    plain = text.replace(":", "").lower().removeprefix("0x").lstrip("0")
    if not re.fullmatch(r"[0-9a-f]{1,40}", plain):
        raise InvalidArgument(f"{arguments.shown(text)} is not a serial number in hex")
    return plain
