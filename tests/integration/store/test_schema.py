"""What the schema itself refuses, what its indexes promise, and how it moves to a newer version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.model import (
    Binding,
    CredentialState,
    Device,
    DeviceState,
    KeyAlgorithm,
    KeyRef,
    Milestone,
    MilestoneProgress,
    Replacement,
    ReplacementState,
    RevocationReason,
)
from gatewayd.errors import Internal, StoreBroken, StoreTooNew
from gatewayd.store import credentials, migrations, outbox, revocations
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore

from .values import NOW, code, credential, device, entry, full_credential, message, revocation

REVOKED = CredentialState.REVOKED
DONE = MilestoneProgress(done_at=NOW, attempts=1, evidence="etag")


def replacement(number: int, state: ReplacementState = ReplacementState.CLOSING) -> Replacement:
    return Replacement("stolen", number, state, RevocationReason.SUPERSEDED, "uid:0", 1, NOW, lift_at=NOW)


def _populate(tx: Tx) -> None:
    tx.devices.add(device("gw"))
    tx.devices.add(replace(device("stolen"), state=DeviceState.REVOKED))
    tx.credentials.add(full_credential("gw", 1))
    tx.credentials.add(credential("gw", 2, CredentialState.ISSUED))
    tx.credentials.add(credential("stolen", 1, REVOKED))
    tx.revocations.add(replace(revocation("stolen"), progress={Milestone.DISABLED: DONE}))
    tx.devices.put(replace(device("gw"), current=1))


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda tx: tx.credentials.add(credential("gw", 1)), "never overwritten"),
        (lambda tx: tx.credentials.add(credential("gw", 0)), "CHECK"),
        (lambda tx: tx.credentials.add(credential("nobody")), "FOREIGN KEY"),
        (lambda tx: tx.credentials.put(credential("gw", 9)), "no record (gw, 9)"),
        (lambda tx: tx.credentials.put(credential("gw", 2, CredentialState.CURRENT)), "UNIQUE"),
        (lambda tx: tx.credentials.put(replace(full_credential(), certificate=b"other")), "certificate"),
        (lambda tx: tx.credentials.put(replace(full_credential(), certificate=None)), "certificate"),
        (lambda tx: tx.credentials.put(replace(full_credential(), key=KeyRef(b"x", KeyAlgorithm.EC_P256))), "key"),
        (lambda tx: tx.credentials.put(credential("stolen", 1, CredentialState.KEYED)), "never undone"),
        (lambda tx: tx.devices.put(device("stolen")), "never undone"),
        (lambda tx: _replacing_to_active(tx), "pinned to the new certificate"),
        (lambda tx: _ended_to_pinned(tx), "stays so"),
        (lambda tx: [tx.replacements.add(replacement(number)) for number in (1, 2)], "UNIQUE"),
        (lambda tx: tx.devices.put(replace(device("gw"), current=3)), "FOREIGN KEY"),
        (lambda tx: tx.devices.put(device("nobody")), "no record (nobody)"),
        (lambda tx: tx.devices.put(_bound("stolen", DeviceState.REVOKED)), "not bound"),
        (lambda tx: [tx.devices.put(_bound("gw")), tx.devices.add(_bound("leaf"))], "UNIQUE"),
        (lambda tx: tx.codes.add(code(device_id="nobody")), "FOREIGN KEY"),
        (lambda tx: tx.revocations.add(revocation("nobody")), "FOREIGN KEY"),
        (lambda tx: tx.revocations.put(revocation("gw", "ff")), "no record (gw, ff)"),
        (lambda tx: tx.revocations.put(revocation("stolen")), "stays done"),
        (
            lambda tx: tx.revocations.put(
                replace(revocation("stolen"), progress={Milestone.DISABLED: MilestoneProgress(attempts=2)})
            ),
            "stays done",
        ),
        (lambda tx: tx.outbox.put(message("never added")), "no record (never added)"),
    ],
)
async def test_what_must_not_happen_is_refused(store: SqliteStore, attempt: Callable[[Tx], object], says: str) -> None:
    await store.write(_populate)
    with pytest.raises(Internal) as refusal:
        await store.write(attempt)
    assert says in refusal.value.message


def _bound(device_id: str, state: DeviceState = DeviceState.ACTIVE) -> Device:
    return replace(device(device_id), state=state, binding=Binding("acme", "4711"))


def _replacing_to_active(tx: Tx) -> None:
    tx.devices.put(replace(device("stolen"), state=DeviceState.REPLACING))
    tx.replacements.add(replacement(1))
    tx.devices.put(device("stolen"))


def _ended_to_pinned(tx: Tx) -> None:
    tx.replacements.add(replacement(1, ReplacementState.CANCELLED))
    tx.replacements.put(replacement(1, ReplacementState.PINNED))


async def test_a_replaced_device_is_active_again_once_it_is_pinned(store: SqliteStore) -> None:
    await store.write(_populate)

    def swap(tx: Tx) -> None:
        tx.devices.put(replace(device("stolen"), state=DeviceState.REPLACING))
        tx.replacements.add(replacement(1, ReplacementState.PINNED))
        tx.devices.put(device("stolen"))

    await store.write(swap)
    found = await store.read(lambda tx: (tx.replacements.open(), tx.replacements.open_of("stolen")))
    assert found == ([replacement(1, ReplacementState.PINNED)], replacement(1, ReplacementState.PINNED))


async def test_a_collected_key_may_be_forgotten(store: SqliteStore) -> None:
    await store.write(_populate)
    forgotten = replace(full_credential("gw", 1), state=CredentialState.RETIRED, key=None)
    await store.write(lambda tx: tx.credentials.put(forgotten))
    assert await store.read(lambda tx: tx.credentials.get("gw", 1)) == forgotten


async def test_a_switch_is_one_transaction(store: SqliteStore) -> None:
    await store.write(_populate)

    def switch(tx: Tx) -> None:
        tx.credentials.put(replace(full_credential("gw", 1), state=CredentialState.PREVIOUS))
        tx.credentials.put(credential("gw", 2, CredentialState.CURRENT))
        tx.devices.put(replace(device("gw"), current=2))

    await store.write(switch)
    current = await store.read(lambda tx: tx.credentials.current("gw"))
    assert current is not None
    assert current.generation == 2


@pytest.mark.parametrize(
    "statement",
    ["UPDATE journal SET outcome = 'failed'", "DELETE FROM journal", "DELETE FROM credentials"],
)
async def test_history_cannot_be_rewritten_even_by_hand(store: SqliteStore, path: Path, statement: str) -> None:
    await store.write(_populate)
    await store.write(lambda tx: tx.journal.append(entry("enroll")))
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)


@pytest.mark.parametrize(
    ("query", "values", "search"),
    [
        (credentials.DUE, (0, 100), "SEARCH credentials USING INDEX credentials_due (renew_at>? AND renew_at<?)"),
        (credentials.UNFINISHED, (0, 100), "SEARCH credentials USING INDEX credentials_unfinished (<expr><?)"),
        (credentials.NEXT_RENEWAL, (0,), "SEARCH credentials USING INDEX credentials_due (renew_at>?)"),
        (credentials.NEXT_ATTEMPT, (0,), "SEARCH credentials USING INDEX credentials_unfinished (<expr>>?)"),
        # These walk their whole index, which holds nothing but the rows in question.
        (credentials.WAITING, (0, 100), "SEARCH credentials USING INDEX credentials_waiting (deadline>?)"),
        (credentials.DEADLINES, (100,), "SEARCH credentials USING INDEX credentials_waiting (deadline>?)"),
        (
            credentials.FLEET.replace(":now", "?1"),
            (0,),
            "SEARCH credentials USING INDEX credentials_left (not_after>?)",
        ),
        (credentials.COUNT_WAITING, (), "SEARCH credentials USING INDEX credentials_waiting (deadline>?)"),
        (credentials.COUNT_TROUBLED, (), "SCAN credentials USING INDEX credentials_unfinished"),
        (outbox.QUEUE, (), "SCAN outbox USING INDEX outbox_unsent"),
        (outbox.UNSENT, (1, 2, 50), "SCAN outbox USING INDEX outbox_unsent"),
        (revocations.OPEN, (), "SCAN revocations USING INDEX revocations_open"),
    ],
)
async def test_what_every_wake_asks_for_reads_only_the_rows_in_question(
    store: SqliteStore, path: Path, query: str, values: tuple[int, ...], search: str
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        plan = [row[3].replace("COVERING ", "") for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
        partial = "SELECT name FROM pragma_index_list(?) WHERE partial"
        indexes = {
            name
            for table in ("credentials", "outbox", "revocations")
            for (name,) in connection.execute(partial, (table,))
        }
    assert plan[0] == search
    assert not any(step.startswith("SCAN") for step in plan[1:])
    assert plan[0].split()[4] in indexes


async def test_an_order_by_created_needs_no_sorting_in_the_outbox(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {outbox.UNSENT}", (1, 2, 50))]
    assert len(plan) == 1


async def test_a_newer_database_is_left_alone(store: SqliteStore, path: Path) -> None:
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA user_version = 999; DROP TABLE outbox;")
    with pytest.raises(StoreTooNew, match="999"):
        await SqliteStore(path).open()
    with closing(sqlite3.connect(path)) as connection:
        assert migrations.version_of(connection) == 999
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox'").fetchone() is None


async def test_an_older_database_is_brought_forward_and_a_failed_step_leaves_the_one_before(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(_populate)
    await store.close()
    newest = max(migrations.scripts())
    steps = {
        **migrations.scripts(),
        newest + 1: "ALTER TABLE devices ADD COLUMN note TEXT;",
        newest + 2: "ALTER TABLE devices ADD COLUMN place TEXT; INSERT INTO nowhere VALUES (1);",
    }
    monkeypatch.setattr(migrations, "scripts", lambda: steps)
    with pytest.raises(StoreBroken, match="nowhere"):
        await SqliteStore(path).open()
    with closing(sqlite3.connect(path)) as connection:
        assert migrations.version_of(connection) == newest + 1
        columns = [row[1] for row in connection.execute("PRAGMA table_info(devices)")]
    assert "note" in columns
    assert "place" not in columns

    steps[newest + 2] = "INSERT INTO enrollment_codes VALUES ('aa', 'nobody', 0, 0, NULL);"
    with pytest.raises(StoreBroken, match="dangling"):
        await SqliteStore(path).open()

    del steps[newest + 2]
    await store.open()
    assert await store.read(lambda tx: tx.devices.get("gw")) == replace(device("gw"), current=1)
