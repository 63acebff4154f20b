"""A backup of a database in use, and what becomes of it over a database that is whole, damaged, begun anew or gone."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gatewayd.core import audit
from gatewayd.core.model import CredentialState, DeviceKind, DeviceState, Milestone, MilestoneProgress
from gatewayd.errors import BackupUnusable, OutputLost, RestoreRefused, StoreInUse
from gatewayd.store import backup
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore
from gatewayd.store.journal import copy_of
from gatewayd.store.restoring import RESTORED, Restored, restore

from .values import MINUTE, NOW, code, credential, device, entry, full_credential, message, revocation

SECRET = "5e" * 32
"""Hash of a code."""


def founded(tx: Tx) -> None:
    """A gateway and a leaf, each with its first certificate; a code that nobody has used."""
    tx.devices.add(device("gw", DeviceKind.GATEWAY))
    tx.devices.add(device())
    for device_id in ("gw", "leaf-1"):
        tx.credentials.add(replace(full_credential(device_id), serial=f"{len(device_id):x}"))
        known = tx.devices.get(device_id)
        assert known is not None
        tx.devices.put(replace(known, current=1))
    tx.codes.add(code(SECRET))
    tx.outbox.add(message("one"))
    for number in range(20):
        tx.journal.append(entry(f"day one {number}"))


def lived_on(tx: Tx) -> None:
    """The gateway has renewed, the leaf was revoked."""
    for state, generation in ((CredentialState.PREVIOUS, 1), (CredentialState.CURRENT, 2)):
        made = replace(full_credential("gw", generation), state=state, updated_at=NOW + 5 * MINUTE)
        if generation == 1:
            tx.credentials.put(replace(made, serial="2"))
        else:
            tx.credentials.add(replace(made, serial="22", thumbprint="ee" * 32, public_key_sha256="ff" * 32))
    own, leaf, revoked = tx.devices.get("gw"), tx.devices.get("leaf-1"), tx.credentials.get("leaf-1", 1)
    assert own is not None
    assert leaf is not None
    assert revoked is not None
    tx.devices.put(replace(own, current=2))
    tx.devices.put(replace(leaf, state=DeviceState.REVOKED))
    tx.credentials.put(replace(revoked, state=CredentialState.REVOKED))
    done = MilestoneProgress(done_at=NOW, attempts=1, evidence="etag")
    tx.revocations.add(replace(revocation(serial="6"), progress={Milestone.REFUSED_HERE: done}))
    tx.journal.append(entry("day two"))


async def _written(path: Path, *works: Callable[[Tx], None]) -> None:
    store = SqliteStore(path)
    await store.open()
    for work in works:
        await store.write(work)
    await store.close()


async def _backed_up(path: Path) -> bytes:
    """While it is in use."""
    store = SqliteStore(path)
    await store.open()
    target = io.BytesIO()
    backup.make(path, path.with_name("backup.partial"), target, NOW)
    await store.write(lambda tx: tx.journal.append(entry("meanwhile")))
    await store.close()
    return target.getvalue()


def written(path: Path, *works: Callable[[Tx], None]) -> None:
    asyncio.run(_written(path, *works))


def backed_up(path: Path) -> bytes:
    return asyncio.run(_backed_up(path))


def seen(path: Path) -> tuple[Any, ...]:
    return asyncio.run(_seen(path))


def restored(path: Path, content: bytes, gateway_id: str = "gw") -> Restored:
    return restore(io.BytesIO(content), path, gateway_id, "uid:0", NOW + 60 * MINUTE)


async def _seen(path: Path) -> tuple[Any, ...]:
    store = SqliteStore(path)
    await store.open()
    try:
        return await store.read(
            lambda tx: (
                [(each.device_id, each.state, each.current) for each in tx.devices.all()],
                [each.state for each in tx.credentials.all("gw") + tx.credentials.all("leaf-1")],
                [(each.serial, list(each.progress)) for each in tx.revocations.all()],
                tx.codes.get(SECRET) is not None,
                bool(tx.settings.get(RESTORED)),
            )
        )
    finally:
        await store.close()


def trail(path: Path) -> list[str]:
    """What happened, after the chain was proved whole."""
    with copy_of(path) as journal:
        verification = audit.Verification((), lambda _: False)
        records = journal.records(1, 1000)
        verification.take(records)
        assert verification.findings(journal.written()) == []
        return [each.entry.what for each in records]


S = CredentialState
NEWER = (
    [("gw", DeviceState.ACTIVE, 2), ("leaf-1", DeviceState.REVOKED, 1)],
    [S.PREVIOUS, S.CURRENT, S.REVOKED],
    [("6", [Milestone.REFUSED_HERE])],
)


def test_a_whole_database_stays_as_new_as_it_is(path: Path) -> None:
    written(path, founded)
    content = backed_up(path)
    written(path, lived_on)
    done = restored(path, content)
    assert (done.kept, done.added, done.lost, done.put_aside) == (True, 0, False, None)
    assert seen(path) == (*NEWER, True, False)
    assert trail(path)[-2:] == ["day two", "restored"]


def test_an_older_whole_one_becomes_as_new_as_the_backup_with_its_very_trail(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "gatewayd.db"
    written(path, founded)
    other.parent.mkdir(mode=0o700)
    other.write_bytes(path.read_bytes())
    written(other, lived_on)
    done = restored(path, backed_up(other))
    assert (done.kept, done.added, done.lost) == (True, 1, True)
    assert seen(path) == (*NEWER, True, True)
    assert trail(path)[-2:] == ["day two", "restored"]
    with copy_of(path) as here, copy_of(other) as there:
        assert here.records(21, 1) == there.records(21, 1)


def test_of_a_damaged_one_all_counts_that_can_be_read(path: Path) -> None:
    written(path, founded)
    content = backed_up(path)
    written(path, lived_on)
    damaged = bytearray(path.read_bytes())
    at = damaged.index(b"day one 7")
    damaged[at : at + 3] = b"DAY"  # the audit trail is broken, and nothing else
    path.write_bytes(damaged)
    done = restored(path, content)
    assert not done.kept
    assert done.put_aside is not None
    assert done.put_aside.read_bytes() == damaged
    assert seen(path) == (*NEWER, False, True)
    assert trail(path)[-1] == "restored"


def test_over_nothing_at_all(path: Path) -> None:
    written(path, founded)
    content = backed_up(path)
    path.unlink()
    assert restored(path, content).lost
    known = seen(path)
    assert known[0] == [("gw", DeviceState.ACTIVE, 1), ("leaf-1", DeviceState.ACTIVE, 1)]
    assert known[3:] == (False, True), "no code of the time of the backup, and it is known that there may be more"
    assert path.stat().st_mode & 0o077 == 0
    assert sorted(each.name for each in path.parent.iterdir()) == ["gatewayd.db", "gatewayd.db.lock"]


def test_one_that_was_begun_anew_makes_way(path: Path) -> None:
    written(path, founded)
    content = backed_up(path)
    path.unlink()
    written(path, lambda tx: tx.devices.add(device("gw", DeviceKind.GATEWAY)))
    done = restored(path, content)
    assert not done.kept
    assert [each for each, _, _ in seen(path)[0]] == ["gw", "leaf-1"]


def test_two_histories_are_not_mixed(path: Path) -> None:
    written(path, founded)
    content = backed_up(path)
    path.unlink()

    def bootstrapped_anew(tx: Tx) -> None:
        tx.devices.add(device("gw", DeviceKind.GATEWAY))
        tx.credentials.add(replace(credential("gw"), public_key_sha256="00" * 32))

    written(path, bootstrapped_anew)
    before = path.read_bytes()
    with pytest.raises(RestoreRefused, match="two histories"):
        restored(path, content)
    assert path.read_bytes() == before


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _altered(content: bytes) -> bytes:
    return content.replace(b"day one 3", b"day one 4")


def _rewritten(content: bytes) -> bytes:
    """With a manifest that fits what was altered."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = tar.extractfile("gatewayd.db")
        assert member is not None
        database = member.read()
    old = hashlib.sha256(database).hexdigest().encode()
    new = hashlib.sha256(database.replace(b"day one 3", b"day one 4")).hexdigest().encode()
    return _altered(content).replace(old, new)


@pytest.mark.parametrize(
    ("spoil", "gateway_id", "words"),
    [
        (lambda content: content, "gw-2", "is of gw"),
        (_cut, "gw", "cut off|describes"),
        (_altered, "gw", "not the one that its manifest describes"),
        (_rewritten, "gw", "audit trail is not as it was written"),
        (lambda content: b"", "gw", "not a backup"),
        (lambda content: b"\0" * 20480, "gw", "not a backup"),
    ],
)
def test_what_is_no_whole_backup_of_this_gateway_changes_nothing(
    path: Path, spoil: Callable[[bytes], bytes], gateway_id: str, words: str
) -> None:
    written(path, founded)
    content = backed_up(path)
    before = path.read_bytes()
    with pytest.raises(BackupUnusable, match=words):
        restored(path, spoil(content), gateway_id)
    assert path.read_bytes() == before
    assert not path.with_name("restore.partial").exists()


async def test_not_while_the_daemon_runs(path: Path, store: SqliteStore) -> None:
    with pytest.raises(StoreInUse):
        restored(path, b"")


def test_no_hash_of_a_code_is_in_it(path: Path) -> None:
    written(path, founded)
    content = backed_up(path)
    assert SECRET.encode() in path.read_bytes()
    assert SECRET.encode() not in content


def test_no_room_for_it_is_said_and_leaves_nothing(path: Path) -> None:
    written(path, founded)
    with open("/dev/full", "wb") as full, pytest.raises(OutputLost, match="No space left"):
        backup.make(path, path.with_name("backup.partial"), full, NOW)
    assert not path.with_name("backup.partial").exists()
