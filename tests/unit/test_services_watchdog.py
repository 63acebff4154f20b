"""The watchdog is fed by progress and by nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gatewayd.services import watchdog
from gatewayd.services.events import Alarm
from gatewayd.services.watchdog import Watchdog, interval
from gatewayd.store.database import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "state" / "db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        yield listening


def heard(ear: socket.socket) -> int:
    count = 0
    while True:
        try:
            count += ear.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            return count


async def feed(store: SqliteStore, *watched: Alarm) -> None:
    task = asyncio.create_task(Watchdog(store=store, watched=watched).run())
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_progress_feeds_it(store: SqliteStore, ear: socket.socket) -> None:
    await feed(store, Alarm())
    assert heard(ear) >= 2


async def test_a_loop_that_stands_still_starves_it(
    store: SqliteStore, ear: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "STALE", -1.0)
    await feed(store, Alarm())
    assert heard(ear) == 0


async def test_a_store_that_does_not_answer_starves_it(store: SqliteStore, ear: socket.socket) -> None:
    await store.close()
    await feed(store, Alarm())
    assert heard(ear) == 0


@pytest.mark.parametrize(("given", "seconds"), [("60000000", 30.0), ("", None), ("0", None), ("x", None)])
def test_it_follows_what_systemd_asks(given: str, seconds: float | None) -> None:
    assert interval({"WATCHDOG_USEC": given} if given else {}) == seconds
