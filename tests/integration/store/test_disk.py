"""What the disk and other processes do to the store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gatewayd.errors import StoreBroken, StoreInUse
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore
from tests.support.mounts import PRIVATE_MOUNTS

from .child import record

CHILD = [sys.executable, "-m", "tests.integration.store.child"]


@pytest.mark.parametrize("way", ["limit"] if PRIVATE_MOUNTS is None else ["limit", "tmpfs"])
def test_after_a_full_disk_the_store_works_again_without_a_restart(path: Path, way: str) -> None:
    path.parent.mkdir(mode=0o700)
    if way == "limit":
        command, says, error = [*CHILD, "limit", str(path)], "SQLITE_IOERR_WRITE", "StoreBroken"
    else:
        error = "StoreFull"
        command, says = [*(PRIVATE_MOUNTS or []), *CHILD, "fill", str(path), str(path.parent)], "is full"
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert len(report["acknowledged"]) > 10
    assert says in report["sentence"]
    assert report["group"] == [error] * 5
    assert report["readable"] == len(report["acknowledged"])
    assert report["present"] == report["acknowledged"] + report["after"]


def _acknowledged_until_killed(path: Path, lines: int) -> set[int]:
    """Kill the writing child after so many lines; everything it had printed by then."""
    with subprocess.Popen([*CHILD, "write", str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        acknowledged = {int(child.stdout.readline()) for _ in range(lines)}
        child.send_signal(signal.SIGKILL)
        acknowledged.update(int(line) for line in child.stdout.read().splitlines())
    assert child.returncode == -signal.SIGKILL
    return acknowledged


async def test_everything_acknowledged_survives_kill_9(path: Path) -> None:
    acknowledged: set[int] = set()
    for lines in (30, 300, 1000):
        acknowledged |= await asyncio.to_thread(_acknowledged_until_killed, path, lines)
        store = SqliteStore(path)
        await store.open()
        journal = {int(each.what) for each in await store.read(lambda tx: tx.journal.recent(limit=1_000_000))}

        def incomplete(tx: Tx, numbers: frozenset[int] = frozenset(journal)) -> list[int]:
            return [n for n in numbers if tx.outbox.get(f"{n}") is None or tx.settings.get(f"payload-{n}") is None]

        assert acknowledged <= journal
        assert await store.read(incomplete) == []
        await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


async def test_files_are_private_whatever_the_umask(path: Path) -> None:
    umask = os.umask(0)
    try:
        store = SqliteStore(path)
        await store.open()
        await store.write(record(1))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in _files(path)}
        directory = stat.S_IMODE(os.stat(path.parent).st_mode)
        await store.close()
    finally:
        os.umask(umask)
    names = {"gatewayd.db", "gatewayd.db-wal", "gatewayd.db-shm", "gatewayd.db.lock"}
    assert modes == dict.fromkeys(names, 0o600)
    assert directory == 0o700


def _files(path: Path) -> list[Path]:
    return list(path.parent.iterdir())


async def test_a_database_left_readable_is_made_private(store: SqliteStore, path: Path) -> None:
    await store.close()
    os.chmod(path, 0o644)
    await store.open()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


async def test_a_directory_that_others_may_write_is_refused(path: Path) -> None:
    _directory(path.parent, 0o777)
    with pytest.raises(StoreBroken, match="0777"):
        await SqliteStore(path).open()


def _directory(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)


async def test_a_second_process_is_refused(store: SqliteStore, path: Path) -> None:
    command = [*CHILD, "write", str(path)]
    other = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    assert other.returncode != 0
    assert "StoreInUse" in other.stderr
    assert f"({os.getpid()})" in other.stderr
    for again in (SqliteStore(path), store):
        with pytest.raises(StoreInUse):
            await again.open()
    await store.write(record(1))
    await store.close()
    await store.open()


async def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    _directory(path.parent, 0o700)
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(StoreBroken, match=r"gatewayd\.db"):
        await SqliteStore(path).open()
    assert "elsewhere" not in os.listdir(tmp_path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    _directory(path.parent, 0o700)
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreBroken, match="not a gatewayd database"):
        asyncio.run(SqliteStore(path).open())
    assert path.read_bytes() == b"something else entirely" * 100


async def test_a_damaged_database_says_so(store: SqliteStore, path: Path) -> None:
    await store.write(record(1))
    await store.close()
    _scribble(path, "journal")
    await store.open()
    with pytest.raises(StoreBroken, match="damaged"):
        await store.read(lambda tx: tx.journal.recent())
    await store.close()
    _scribble(path, "sqlite_schema")
    with pytest.raises(StoreBroken, match="damaged"):
        await store.open()


def _scribble(path: Path, table: str) -> None:
    """Overwrite what follows the headers in the table's first page."""
    with closing(sqlite3.connect(path)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        page = (connection.execute(query, (table,)).fetchone() or [1])[0]
    with open(path, "r+b") as file:
        file.seek((page - 1) * size + 100 * (page == 1))
        file.write(b"\xff" * (size - 100))
