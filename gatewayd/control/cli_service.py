"""gatewayctl reload, backup and restore: the daemon itself."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidArgument
from .app import App, as_json
from .output import written

if TYPE_CHECKING:
    from .base import Data

_CONFIG = "/etc/gatewayd/gatewayd.toml"
_WITHIN = 3600
"""Seconds that a backup may take: a large one to a slow disk."""


@click.command()
@as_json
@click.pass_obj
def reload(app: App) -> None:
    """Take up gatewayd.toml as it is now, while all goes on.

    No connection is lost. Settings that a running daemon cannot take up are named and wait for a restart; a file with a
    fault changes nothing (exit status 78).
    """
    data = app.client.call("Reload")
    app.show(data, lambda: _reloaded(data))


def _reloaded(data: Data) -> str:
    lines = [
        f"in force: {', '.join(data['applied'])}" if data["applied"] else "nothing that can be taken up has changed"
    ]
    if data["needs_restart"]:
        lines.append(f"after 'systemctl restart gatewayd': {', '.join(data['needs_restart'])}")
    return "\n".join(lines)


@click.command()
@click.argument("file", metavar="FILE")
@as_json
@click.pass_obj
def backup(app: App, file: str) -> None:
    """Write a copy of the database to FILE, consistent, while the daemon runs.

    A tar of a manifest and the database. There is no key, PIN or code in it. 'gatewayctl restore' takes it back.
    """
    with written(file) as opened:
        data = app.client.call_with_file("Backup", opened, within=_WITHIN)
    app.show({"file": file, **data}, lambda: f"written to {file}: {_described(data)}")


def _described(manifest: Data) -> str:
    return f"{manifest['devices']} devices, {manifest['credentials']} certificates, of {manifest['created_at']}"


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--config", metavar="FILE", default=_CONFIG, show_default=True, help="The configuration of the daemon.")
@as_json
@click.pass_obj
def restore(app: App, file: str, config: str) -> None:
    """Take a backup back, with the daemon stopped.

    It is joined with what the database here still knows: a revocation is never undone, and a newer certificate never
    gives way to an older one. A damaged database is put aside and read as far as it can be.
    """
    from ..config import load
    from ..store.restoring import restore as restored

    settings = load(Path(config))
    directory = settings.gateway.state_directory
    try:
        opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from None
    with os.fdopen(opened, "rb") as source:
        who = f"uid:{os.getuid()}"
        _become_owner_of(directory)
        done = restored(source, directory / "gatewayd.db", settings.gateway.device_id, who, datetime.now(UTC))
    data: dict[str, Any] = {
        "device_id": done.manifest.device_id,
        "backup_created_at": done.manifest.created_at,
        "kept": done.kept,
        "added": done.added,
        "unproven": done.lost,
    }
    if done.put_aside is not None:
        data["put_aside"] = str(done.put_aside)
    app.show(data, lambda: _restored(data))


def _become_owner_of(directory: Path) -> None:
    """What root left in the state directory, the daemon could not open."""
    if os.geteuid() != 0:
        return
    try:
        owner = directory.stat()
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except OSError as error:
        raise InvalidArgument(f"{directory} cannot be used: {error.strerror}") from None
    os.umask(0o077)


def _restored(data: dict[str, Any]) -> str:
    if data["kept"]:
        lines = [f"the database here is whole and stays; certificates that it did not know: {data['added']}"]
    else:
        lines = [f"restored to {data['backup_created_at']}, joined with what could be read here"]
    if "put_aside" in data:
        lines.append(f"the database that was here: {data['put_aside']}")
    if data["unproven"]:
        lines.append("leaves get no certificates until it is known what the CA has revoked since: 'gatewayctl status'")
    return "\n".join([*lines, "now: systemctl start gatewayd"])
