"""gatewayctl device bind: which piece of hardware a leaf is, by its manufacturer's certificate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from ..errors import InvalidArgument
from . import arguments
from .app import App, as_json, rendering, variants
from .completion import device_ids

F = TypeVar("F", bound=Callable[..., None])


def hardware(command: F) -> F:
    """The two options that name a piece of hardware."""
    serial = click.option(
        "--manufacturer-serial", metavar="SERIAL", help="Its serial number in its manufacturer's certificate."
    )
    name = click.option(
        "--manufacturer",
        metavar="NAME",
        help="Whose serial number that is, where there are several ([[manufacturers]]).",
    )
    return serial(name(command))


def hardware_options(manufacturer_serial: str | None, manufacturer: str | None) -> dict[str, str]:
    if manufacturer and not manufacturer_serial:
        raise InvalidArgument("--manufacturer goes with --manufacturer-serial")
    given = {"manufacturer_serial": manufacturer_serial, "manufacturer": manufacturer}
    return {name: value for name, value in given.items() if value}


@click.command("bind")
@click.argument("device_id", metavar="ID", shell_complete=device_ids)
@hardware
@click.option("--none", "nothing", is_flag=True, help="It is no known piece of hardware any more.")
@as_json
@click.pass_obj
def bind(app: App, device_id: str, manufacturer_serial: str | None, manufacturer: str | None, nothing: bool) -> None:
    """Say which piece of hardware a device is: it may enroll with its manufacturer's certificate.

    A revocation ends that; new hardware is bound with 'device replace --manufacturer-serial'.
    """
    if nothing == bool(manufacturer_serial):
        raise InvalidArgument("give --manufacturer-serial, or --none")
    options = hardware_options(manufacturer_serial, manufacturer)
    data = app.client.call("BindDevice", "(sa{sv})", arguments.device_id(device_id), variants(options))
    app.show(data, lambda: rendering().device(data))
