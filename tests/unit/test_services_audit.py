"""The audit trail in its real file, with somebody at the file behind the daemon's back."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gatewayd.control.app import App
from gatewayd.control.cli import cli
from gatewayd.core.model import JournalEntry
from gatewayd.errors import AuditTrailBroken, InvalidArgument
from gatewayd.pki import pem
from gatewayd.services.audit import LONGEST_UNSIGNED, MOST_UNSIGNED
from gatewayd.store import journal, migrations
from gatewayd.store.base import Tx
from gatewayd.upstream import report
from tests.support.plant import GATEWAY, Plant

SWAPPED = [
    "UPDATE journal SET seq = 1000 WHERE seq = 2",
    "UPDATE journal SET seq = 2 WHERE seq = 4",
    "UPDATE journal SET seq = 4 WHERE seq = 1000",
]


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        yield plant


async def record(plant: Plant, count: int) -> None:
    def work(tx: Tx) -> None:
        for number in range(count):
            tx.journal.append(JournalEntry(plant.clock.now(), "leaf-1", "uid:1000", "revocation", "done", f"{number}"))

    await plant.write(work)


def tamper(path: Path, *statements: str) -> None:
    """As root with a copy of sqlite3 does: the triggers are taken away first."""
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def found(report: dict[str, Any]) -> set[tuple[str, int, int]]:
    return {(each["fault"], each["first"], each["last"]) for each in report["findings"]}


async def test_nothing_is_signed_before_there_is_a_registrar(plant: Plant) -> None:
    await record(plant, MOST_UNSIGNED)
    await plant.audit.round()
    report = await plant.audit.verify()
    assert report["intact"]
    assert (report["records"], report["signed_up_to"]) == (MOST_UNSIGNED, 0)
    assert await plant.keys.objects() == []


async def test_a_head_is_signed_when_many_records_or_an_old_one_wait(plant: Plant) -> None:
    await plant.registrar.certificate()
    await record(plant, 5)
    await plant.audit.round()
    assert (await plant.audit.verify())["signed_up_to"] == 0
    plant.clock.advance(seconds=LONGEST_UNSIGNED.total_seconds())
    await plant.audit.round()
    assert (await plant.audit.verify())["signed_up_to"] == 5
    await plant.audit.round()
    await record(plant, MOST_UNSIGNED)
    await plant.audit.round()
    report = await plant.audit.verify()
    assert report["intact"]
    assert report["signed_up_to"] == report["records"] == MOST_UNSIGNED + 5


@pytest.mark.parametrize(
    ("statements", "finding"),
    [
        (["UPDATE journal SET who = 'uid:0' WHERE seq = 3"], {("changed", 3, 3)}),
        (["DELETE FROM journal WHERE seq BETWEEN 3 AND 4"], {("missing", 3, 4)}),
        (["DELETE FROM journal WHERE seq = 9"], {("missing", 9, 9)}),
        (["DELETE FROM journal WHERE seq = 9", "DELETE FROM sqlite_sequence"], {("missing", 9, 9)}),
        (SWAPPED, {("reordered", 2, 2), ("reordered", 4, 4)}),
        (["UPDATE audit_heads SET signature = x'00'"], {("head-invalid", 9, 9)}),
    ],
)
async def test_what_is_done_to_the_file_is_found_here_and_in_a_copy(
    plant: Plant, tmp_path: Path, statements: list[str], finding: set[tuple[str, int, int]]
) -> None:
    certificate = tmp_path / "registrar.pem"
    certificate.write_text(pem.encode([await plant.registrar.certificate()]))
    await record(plant, 9)
    await plant.audit.sign()
    await plant.stop()
    tamper(tmp_path / "gatewayd.db", *statements)
    arguments = ["audit", "verify", "--database", str(tmp_path / "gatewayd.db"), "--certificate", str(certificate)]
    said = CliRunner().invoke(cli, [*arguments, "--json"], obj=App())
    assert isinstance(said.exception, AuditTrailBroken)
    assert found(json.loads(said.stdout)) == finding
    assert "NOT intact" in CliRunner().invoke(cli, arguments, obj=App()).stdout
    await plant.start()
    assert found(await plant.audit.verify()) == finding


async def test_a_trail_written_anew_is_not_what_was_signed(plant: Plant, tmp_path: Path) -> None:
    await plant.registrar.certificate()
    await record(plant, 9)
    await plant.audit.sign()
    await record(plant, 3)
    await plant.stop()
    tamper(tmp_path / "gatewayd.db", "UPDATE journal SET who = 'uid:0' WHERE seq = 3")
    with closing(sqlite3.connect(tmp_path / "gatewayd.db")) as connection:
        connection.row_factory = sqlite3.Row
        journal.chain(connection)
        connection.commit()
    await plant.start()
    assert found(await plant.audit.verify()) == {("rewritten", 1, 9)}


async def test_what_is_found_before_a_signature_becomes_part_of_the_trail(plant: Plant, tmp_path: Path) -> None:
    await plant.registrar.certificate()
    await record(plant, 9)
    await plant.audit.sign()
    await record(plant, 3)
    await plant.stop()
    tamper(tmp_path / "gatewayd.db", "DELETE FROM journal WHERE seq = 12")
    await plant.start()
    await plant.audit.sign()
    (last,) = await plant.read(lambda tx: tx.journal.recent(limit=1))
    assert (last.device_id, last.what, last.outcome, last.detail) == (GATEWAY, "audit", "failed", "missing 12-12")
    report = await plant.audit.verify()
    assert found(report) == {("missing", 12, 12)}
    assert report["signed_up_to"] == 13


async def test_a_new_registrar_key_covers_what_the_old_one_signed(plant: Plant) -> None:
    await plant.registrar.certificate()
    await record(plant, 9)
    await plant.audit.sign()
    for each in await plant.keys.objects():
        await plant.keys.destroy(each.id)
    assert found(await plant.audit.verify()) == {("head-invalid", 9, 9)}
    await plant.audit.round()
    report = await plant.audit.verify()
    assert report["intact"]
    assert report["signed_up_to"] == 10


async def test_what_was_written_before_the_chain_is_chained(tmp_path: Path) -> None:
    path = tmp_path / "gatewayd.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        for version, script in migrations.scripts().items():
            if version < 6:
                connection.executescript(f"{script}\nPRAGMA user_version = {version};")
        for number in range(3):
            connection.execute(
                "INSERT INTO journal (at, who, what, outcome, detail) VALUES (?, 'uid:0', 'x', 'done', '')", (number,)
            )
        migrations.migrate(connection)
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("UPDATE journal SET who = 'nobody'")
    async with Plant(tmp_path) as plant:
        await record(plant, 2)
        report = await plant.audit.verify()
    assert report["intact"]
    assert report["records"] == 5


async def test_a_signature_costs_the_same_however_long_the_trail(plant: Plant) -> None:
    await plant.registrar.certificate()
    await record(plant, 20_000)
    await plant.audit.sign()
    await record(plant, 10)
    began = time.process_time()
    await plant.audit.sign()
    assert time.process_time() - began < 0.5


async def test_an_end_that_was_cut_off_shows_by_the_head_that_was_published(plant: Plant, tmp_path: Path) -> None:
    certificate = tmp_path / "registrar.pem"
    certificate.write_text(pem.encode([await plant.registrar.certificate()]))
    await record(plant, 5)
    await plant.audit.sign()
    await record(plant, 4)
    head = await plant.audit.sign()
    twin = tmp_path / "twin.json"
    state = report.reported_state("1.0", None, {}, [], head)
    twin.write_text(json.dumps({"deviceId": GATEWAY, "properties": {"reported": state}}))
    await plant.stop()
    database = tmp_path / "gatewayd.db"
    tamper(
        database,
        "DELETE FROM journal WHERE seq > 5",
        "DELETE FROM audit_heads WHERE seq > 5",
        "UPDATE sqlite_sequence SET seq = 5 WHERE name = 'journal'",
    )
    arguments = ["audit", "verify", "--json", "--database", str(database), "--certificate", str(certificate)]
    alone = CliRunner().invoke(cli, arguments, obj=App())
    assert json.loads(alone.stdout)["intact"], "in itself it is"
    said = CliRunner().invoke(cli, [*arguments, "--head", str(twin)], obj=App())
    assert isinstance(said.exception, AuditTrailBroken)
    assert found(json.loads(said.stdout)) == {("missing", 6, 9)}
    state["gatewayd"]["audit"]["seq"] = 5
    twin.write_text(json.dumps(state))
    forged = CliRunner().invoke(cli, [*arguments, "--head", str(twin)], obj=App())
    assert isinstance(forged.exception, InvalidArgument)
