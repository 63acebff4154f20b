"""gatewayctl device: the devices that enroll here, one by one and as a list."""

from __future__ import annotations

import sys

import click

from ..core.listing import HubState, Order, Shown
from ..core.model import DeviceKind, RevocationReason
from ..errors import InvalidArgument
from . import arguments
from .app import App, as_json, length, no_wait, one_of, rendering, variants
from .cli_hardware import bind, hardware, hardware_options
from .completion import device_ids

lifetime = click.option(
    "--code-lifetime", metavar="TIME", help="How long the code is good for, such as 30m, 2h, 1d12h."
)


@click.group()
def device() -> None:
    """Devices that enroll with this gateway."""


@device.command("add")
@click.argument("device_id", metavar="ID")
@click.option(
    "--san", "sans", multiple=True, metavar="KIND:NAME", help="A name its certificate may carry: dns:x, ip:x …"
)
@lifetime
@hardware
@as_json
@click.pass_obj
def device_add(
    app: App,
    device_id: str,
    sans: tuple[str, ...],
    code_lifetime: str | None,
    manufacturer_serial: str | None,
    manufacturer: str | None,
) -> None:
    """Record a device and print its one-time enrollment code."""
    options = {
        **({"sans": list(sans)} if sans else {}),
        **_lifetime(code_lifetime),
        **hardware_options(manufacturer_serial, manufacturer),
    }
    data = app.client.call("AddDevice", "(sa{sv})", device_id, variants(options))
    app.show(data, lambda: rendering().added(data))


@device.command("code")
@click.argument("device_id", metavar="ID", shell_complete=device_ids)
@lifetime
@as_json
@click.pass_obj
def device_code(app: App, device_id: str, code_lifetime: str | None) -> None:
    """Print a new one-time code for a device; earlier unused ones stop working."""
    data = app.client.call("NewCode", "(sa{sv})", device_id, variants(_lifetime(code_lifetime)))
    app.show(data, lambda: rendering().added(data))


@device.command("list")
@click.argument("pattern", metavar="[PATTERN]", default="*", shell_complete=device_ids)
@click.option("--state", "states", multiple=True, type=one_of(Shown), help="In this state; may be repeated.")
@click.option("--hub", "hub_states", multiple=True, type=one_of(HubState), help="In this state in the hub.")
@click.option("--kind", type=one_of(DeviceKind), help="Gateway or leaf.")
@click.option("--expiring", metavar="TIME", help="Whose certificate ends within TIME (30m, 2h, 7d), or has ended.")
@click.option("--sort", type=one_of(Order), help="By id (unless given), by expiry or by state.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N.")
@as_json
@click.pass_obj
def device_list(
    app: App,
    pattern: str,
    states: tuple[str, ...],
    hub_states: tuple[str, ...],
    kind: str | None,
    expiring: str | None,
    sort: str | None,
    limit: int | None,
) -> None:
    """List the devices: all, or those whose id matches PATTERN ("pump-*") and for which all that is given is true."""
    given = {
        "id": pattern,
        "states": list(states) or None,
        "hub_states": list(hub_states) or None,
        "kind": kind,
        "expiring_within": None if expiring is None else length("--expiring", expiring, arguments.EXPIRING),
        "sort": sort,
        "limit": limit,
    }
    options = {name: value for name, value in given.items() if value is not None}
    data = app.client.call("ListDevices", "(a{sv})", variants(options))
    app.show(data, lambda: rendering().devices(data))


@device.command("show")
@click.argument("device_id", metavar="ID", shell_complete=device_ids)
@as_json
@click.pass_obj
def device_show(app: App, device_id: str) -> None:
    """Show a device, its certificates, its revocations and its history."""
    data = app.client.call("GetDevice", "(s)", device_id)
    app.show(data, lambda: rendering().device(data))


@device.command("replace")
@click.argument("device_id", metavar="ID", shell_complete=device_ids)
@click.option(
    "--reason",
    type=one_of(RevocationReason),
    help="Why the old certificates are revoked, if not because new hardware supersedes them.",
)
@click.option("--cancel", is_flag=True, help="Give a replacement up that is not finished; the device stays revoked.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@lifetime
@hardware
@no_wait
@as_json
@click.pass_obj
def device_replace(
    app: App,
    device_id: str,
    reason: str | None,
    cancel: bool,
    yes: bool,
    code_lifetime: str | None,
    manufacturer_serial: str | None,
    manufacturer: str | None,
    no_wait: bool,
) -> None:
    """Give a device new hardware under its old id, and see the old certificates stay dead.

    Revokes the old certificates, disables the id in the hub, and prints one code (and a QR of it) for the new hardware.
    When that has enrolled, the id is enabled for its certificate alone. With --json, the code is printed and nothing
    is waited for. Called again before the end, it goes on with the same replacement and makes a new code.
    """
    if cancel and (reason or code_lifetime or manufacturer_serial or manufacturer):
        raise InvalidArgument("--cancel goes with none of the options that describe a replacement")
    arguments.device_id(device_id)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidArgument("device replace asks before it acts: say --yes where there is nobody to ask")
        asked = "Give up the replacement of" if cancel else "Revoke the certificates of the old hardware of"
        click.confirm(f"{asked} {device_id}? They never come back.", abort=True, err=True)
    if cancel:
        data = app.client.call("CancelReplacement", "(s)", device_id)
        app.show(data, lambda: rendering().device(data))
        return
    options = {
        **({"reason": reason} if reason else {}),
        **_lifetime(code_lifetime),
        **hardware_options(manufacturer_serial, manufacturer),
    }
    data = app.client.call("ReplaceDevice", "(sa{sv})", device_id, variants(options))
    app.show(data, lambda: rendering().replacing(data))
    if not app.as_json and not no_wait:
        app.job(data["job"], wait=True)


device.add_command(bind)


def _lifetime(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    return {"code_lifetime": length("--code-lifetime", text, arguments.CODE_LIFETIME)}
