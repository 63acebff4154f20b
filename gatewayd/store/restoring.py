"""Restores a backup, with the daemon stopped: joined with what the database here still knows (core.restoring).

A database that is whole stays, and takes in what it lacks, in one transaction. One that is damaged, or was begun anew,
gives way to the backup's with all that can still be read of it; it is put aside, never deleted. Killed anywhere, it is
done or not.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from ..core import restoring
from ..core.model import DeviceState, JournalEntry, ReplacementState
from ..core.restoring import Account, Diverged
from ..errors import BackupUnusable, RestoreRefused, StoreBroken
from . import backup
from .backup import Manifest, opened
from .faults import broken
from .files import claim, sync_directory
from .migrations import migrate
from .tx import SqliteTx

T = TypeVar("T")

RESTORED: Final = "restored"
"""The setting that says so, until all that may have come since the backup has been looked for."""
_PIECE: Final = 1000


@dataclass(frozen=True, slots=True)
class Restored:
    manifest: Manifest
    kept: bool
    """Whether the database here stayed, and the backup was joined into it."""
    put_aside: Path | None
    """Where the one that was here lies now."""
    added: int
    """Credentials that were on record in the backup alone."""
    lost: bool
    """Whether what came after the backup may be unknown now."""


def restore(source: IO[bytes], database: Path, gateway_id: str, who: str, now: datetime) -> Restored:
    """Raises StoreInUse (the daemon runs), BackupUnusable, RestoreRefused, StoreBroken, StoreTooNew; and then the
    database is as it was."""
    there_before = database.exists() and database.stat().st_size > 0
    lock = claim(database)
    incoming = database.with_name("restore.partial")
    try:
        manifest = backup.unpack(source, incoming)
        if manifest.device_id != gateway_id:
            raise BackupUnusable(f"It is of {manifest.device_id}, and this gateway is {gateway_id}.")
        with opened(incoming, "rw") as theirs:
            _prove(theirs)
            if there_before and _is_whole(database):
                return _join_into_present(database, theirs, manifest, who, now)
            salvaged = _salvage(database) if there_before else None
            _complete(theirs, salvaged, manifest, who, now)
        put_aside = _put_aside(database, now) if there_before else None
        os.replace(incoming, database)
        sync_directory(database.parent)
        return Restored(manifest, kept=False, put_aside=put_aside, added=manifest.credentials, lost=True)
    except sqlite3.Error as error:
        raise broken(error, database) from error
    except OSError as error:
        raise StoreBroken(f"The state directory {database.parent} cannot be used: {error.strerror}.") from error
    finally:
        for left in (incoming, *_beside(incoming)):
            left.unlink(missing_ok=True)
        os.close(lock)


def _prove(theirs: sqlite3.Connection) -> None:
    try:
        backup.check(theirs)
        migrate(theirs)
    except (StoreBroken, sqlite3.Error) as error:
        raise BackupUnusable(f"Its database cannot be used: {error}") from error
    backup.check_trail(SqliteTx(theirs).journal)


def _is_whole(database: Path) -> bool:
    """Raises StoreTooNew."""
    try:
        with opened(database, "rw") as connection:
            backup.check(connection)
            migrate(connection)
            backup.check_trail(SqliteTx(connection).journal)
            # One that was begun only since the loss knows nothing yet: the backup's, with its signed trail, goes on.
            return connection.execute("SELECT 1 FROM credentials LIMIT 1").fetchone() is not None
    except (StoreBroken, BackupUnusable, sqlite3.Error):
        return False


# --- the database here is whole --------------------------------------------------------------------------------------


def _join_into_present(
    database: Path, theirs: sqlite3.Connection, manifest: Manifest, who: str, now: datetime
) -> Restored:
    with opened(database, "rw") as mine:
        mine.execute("PRAGMA synchronous = FULL")
        mine.execute("PRAGMA foreign_keys = ON")
        mine.execute("BEGIN IMMEDIATE")
        tx, other = SqliteTx(mine), SqliteTx(theirs)
        added = _take_in(tx, _account(other))
        _take_in_rest(tx, theirs)
        _continue_trail(tx, other)
        _sign_off(tx, manifest, who, now, lost=added > 0, words="joined with the database here")
        mine.execute("COMMIT")
    return Restored(manifest, kept=True, put_aside=None, added=added, lost=added > 0)


def _continue_trail(tx: SqliteTx, other: SqliteTx) -> None:
    """What the other trail has beyond the part that both have in common follows here, chained anew; where this one is
    merely the beginning of that one, it comes out as the same chain, and its signed heads hold."""
    first = _common(tx, other) + 1
    as_signed = tx.journal.written() < first
    while records := other.journal.records(first, _PIECE):
        for each in records:
            tx.journal.append(each.entry)
        first = records[-1].seq + 1
    if as_signed:
        last = tx.journal.last_head()
        for head in other.journal.heads():
            if last is None or head.seq > last.seq:
                tx.journal.add_head(head)


def _common(tx: SqliteTx, other: SqliteTx) -> int:
    """How many records both trails begin with: a hash covers all before it, so that the last equal one is searched."""
    low, high = 0, min(tx.journal.written(), other.journal.written())
    while low < high:
        middle = (low + high + 1) // 2
        ours, theirs = (each.journal.records(middle, 1)[0].hash for each in (tx, other))
        low, high = (middle, high) if ours == theirs else (low, middle - 1)
    return low


# --- the database here is damaged, or gone ---------------------------------------------------------------------------


def _salvage(database: Path) -> Account | None:
    """What can still be read; None when it cannot even be opened."""
    try:
        with opened(database, "ro") as connection:
            return _account(SqliteTx(connection), _or_nothing)
    except sqlite3.Error:
        return None


def _or_nothing(read: Callable[[], list[Any]]) -> list[Any]:
    try:
        return read()
    except (sqlite3.Error, ValueError, TypeError, KeyError, IndexError):
        return []


def _complete(
    theirs: sqlite3.Connection, salvaged: Account | None, manifest: Manifest, who: str, now: datetime
) -> None:
    theirs.execute("PRAGMA synchronous = FULL")
    theirs.execute("PRAGMA foreign_keys = ON")
    theirs.execute("BEGIN IMMEDIATE")
    tx = SqliteTx(theirs)
    words = "in place of a lost database"
    if salvaged is not None:
        words = "in place of a database that was damaged or begun anew, joined with what could be read of it"
        _take_in(tx, _whole_parts(salvaged, _account(tx)))
    _sign_off(tx, manifest, who, now, lost=True, words=words)
    theirs.execute("COMMIT")
    theirs.execute("PRAGMA journal_mode = DELETE")


def _whole_parts(salvaged: Account, known: Account) -> Account:
    """Without what hangs in the air because the record that it belongs to could not be read."""
    devices = salvaged.devices.keys() | known.devices.keys()
    credentials = salvaged.credentials.keys() | known.credentials.keys()
    return restoring.account(
        (
            each if (each.device_id, each.current) in credentials else replace(each, current=None)
            for each in salvaged.devices.values()
        ),
        (each for each in salvaged.credentials.values() if each.device_id in devices),
        (each for each in salvaged.revocations.values() if each.device_id in devices),
        (each for each in salvaged.replacements.values() if each.device_id in devices),
    )


def _put_aside(database: Path, now: datetime) -> Path:
    """Under another name beside its own, which the restored one takes next. What SQLite keeps beside it goes with it:
    it must not be replayed into the other."""
    aside = database.with_name(f"{database.name}.before-restore-{now:%Y%m%dT%H%M%SZ}")
    os.link(database, aside)
    for each in _beside(database):
        if each.exists():
            os.replace(each, each.with_name(each.name.replace(database.name, aside.name)))
    sync_directory(database.parent)
    return aside


def _beside(database: Path) -> tuple[Path, ...]:
    return tuple(database.with_name(database.name + end) for end in ("-wal", "-shm", "-journal"))


# --- records ---------------------------------------------------------------------------------------------------------


def _account(tx: SqliteTx, attempt: Callable[[Callable[[], list[Any]]], list[Any]] = lambda read: read()) -> Account:
    devices = attempt(tx.devices.all)
    ids = [each.device_id for each in devices]
    return restoring.account(
        devices,
        (each for id_ in ids for each in attempt(lambda id_=id_: tx.credentials.all(id_))),  # type: ignore[misc]
        attempt(tx.revocations.all),
        (each for id_ in ids for each in attempt(lambda id_=id_: tx.replacements.all(id_))),  # type: ignore[misc]
    )


def _take_in(tx: SqliteTx, other: Account) -> int:
    """Raises RestoreRefused. Returns how many credentials were new."""
    mine = _account(tx)
    try:
        joined = restoring.join(mine, other)
    except Diverged as error:
        raise RestoreRefused(f"The backup and the database here are two histories: {error}.") from None
    for device_id, device in joined.devices.items():
        if device_id not in mine.devices:
            tx.devices.add(replace(device, current=None))
    # Current ones last: there is one of a device at a time.
    for key, credential in sorted(joined.credentials.items(), key=lambda each: each[1].state == "current"):
        if key not in mine.credentials:
            tx.credentials.add(credential)
        elif mine.credentials[key] != credential:
            tx.credentials.put(credential)
    for place, revocation in joined.revocations.items():
        if place not in mine.revocations:
            tx.revocations.add(revocation)
        if mine.revocations.get(place) != revocation:
            tx.revocations.put(revocation)
    for device in joined.devices.values():
        _put_device(tx, device, mine, joined)
    return len(joined.credentials.keys() - mine.credentials.keys())


def _put_device(tx: SqliteTx, device: Any, mine: Account, joined: Account) -> None:
    """A device leaves its revocation by way of a swap that is pinned, also here: the schema holds that."""
    swaps = [each for (device_id, _), each in sorted(joined.replacements.items()) if device_id == device.device_id]
    for number, swap in enumerate(swaps, 1):
        key = (swap.device_id, swap.number)
        through_pin = number == len(swaps) and swap.state in (ReplacementState.LIFTING, ReplacementState.LIFTED)
        first = replace(swap, state=ReplacementState.PINNED) if through_pin else swap
        if key not in mine.replacements:
            tx.replacements.add(first)
        elif mine.replacements[key] != swap:
            tx.replacements.put(first)
        else:
            through_pin = False
        if number == len(swaps):
            _step_device(tx, device, mine)
        if through_pin:
            tx.replacements.put(swap)
    if not swaps:
        _step_device(tx, device, mine)


def _step_device(tx: SqliteTx, device: Any, mine: Account) -> None:
    before = mine.devices.get(device.device_id)
    if before is not None and before.state is DeviceState.REVOKED and device.state is DeviceState.ACTIVE:
        tx.devices.put(replace(device, state=DeviceState.REPLACING))
    tx.devices.put(device)


def _take_in_rest(tx: SqliteTx, theirs: sqlite3.Connection) -> None:
    """Messages that are not known here, and settings that are not set."""
    for (key,) in theirs.execute("SELECT key FROM outbox ORDER BY seq").fetchall():
        if (message := SqliteTx(theirs).outbox.get(key)) is not None:
            tx.outbox.add(message)
    for name, value in theirs.execute("SELECT name, value FROM settings").fetchall():
        if tx.settings.get(name) is None:
            tx.settings.set(name, value)


def _sign_off(tx: SqliteTx, manifest: Manifest, who: str, now: datetime, *, lost: bool, words: str) -> None:
    detail = f"the backup of {manifest.created_at}, {words}"
    tx.journal.append(JournalEntry(now, manifest.device_id, who, "restored", "done", detail))
    if lost:
        tx.settings.set(RESTORED, json.dumps({"backup": manifest.created_at, "at": now.isoformat()}))
