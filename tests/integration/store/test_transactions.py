"""What ``write`` and ``read`` promise while many use them at once."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import DeviceExists, Internal, StoreBroken
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore
from gatewayd.store.tx import SqliteTx

from .values import device


class Refused(Exception):
    pass


class Gate:
    """Holds a work up in the store's thread until the test says go on."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()
        self.open = self._opened.set

    def hold(self) -> None:
        self._reached.set()
        assert self._opened.wait(10)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 10)


async def test_a_hundred_writers_lose_no_update(store: SqliteStore) -> None:
    def increment(tx: Tx) -> None:
        tx.settings.set("count", str(int(tx.settings.get("count") or "0") + 1))

    async def writer() -> None:
        for _ in range(20):
            await store.write(increment)

    await asyncio.gather(*(writer() for _ in range(100)))
    assert await store.read(lambda tx: tx.settings.get("count")) == "2000"


async def test_a_failing_work_undoes_its_own_changes_only(store: SqliteStore) -> None:
    def failing(tx: Tx) -> None:
        tx.settings.set("mine", "1")
        tx.devices.add(device("leaf-2"))
        raise Refused

    outcomes = await asyncio.gather(
        store.write(lambda tx: tx.settings.set("before", "1")),
        store.write(failing),
        store.write(lambda tx: tx.settings.set("after", "1")),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [type(None), Refused, type(None)]
    settings_ = await store.read(lambda tx: [tx.settings.get(each) for each in ("before", "mine", "after")])
    assert settings_ == ["1", None, "1"]
    assert await store.read(lambda tx: tx.devices.all()) == []


async def test_a_work_may_catch_what_a_repository_raises_and_go_on(store: SqliteStore) -> None:
    def add_or_note(tx: Tx) -> str:
        try:
            tx.devices.add(device())
        except DeviceExists:
            tx.settings.set("noted", "yes")
        return "went on"

    assert [await store.write(add_or_note) for _ in range(2)] == ["went on"] * 2
    assert await store.read(lambda tx: tx.settings.get("noted")) == "yes"


Change = tuple[str, str]
Plan = tuple[list[Change], bool]


def _work(changes: list[Change], fails: bool) -> Callable[[Tx], int]:
    def work(tx: Tx) -> int:
        for name, value in changes:
            tx.settings.set(name, value)
        if fails:
            raise Refused
        return len(changes)

    return work


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from("abc"), st.text("xyz", max_size=2)), max_size=4),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_the_outcome_is_that_of_the_successful_works_one_after_the_other(plans: list[Plan]) -> None:
    expected: dict[str, str] = {}
    for changes, fails in plans:
        if not fails:
            expected.update(changes)

    async def run(directory: str) -> None:
        store = SqliteStore(Path(directory) / "gatewayd.db")
        await store.open()
        async with aclosing(_Closing(store)):
            outcomes = await asyncio.gather(*(store.write(_work(*plan)) for plan in plans), return_exceptions=True)
            for (changes, fails), outcome in zip(plans, outcomes, strict=True):
                assert isinstance(outcome, Refused) if fails else outcome == len(changes)
            assert await store.read(_all) == expected
        await store.open()  # and the same after a restart
        async with aclosing(_Closing(store)):
            assert await store.read(_all) == expected

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(directory))


class _Closing:
    def __init__(self, store: SqliteStore) -> None:
        self.aclose = store.close


def _all(tx: Tx) -> dict[str, str]:
    return {name: value for name in "abc" if (value := tx.settings.get(name)) is not None}


async def test_a_cancelled_caller_harms_no_other(store: SqliteStore) -> None:
    gate = Gate()

    def slow(tx: Tx) -> None:
        tx.settings.set("slow", "done")
        gate.hold()

    running = asyncio.create_task(store.write(slow))
    await gate.reached()
    queued = [asyncio.create_task(store.write(lambda tx, i=i: tx.settings.set(str(i), "done"))) for i in range(3)]  # type: ignore[misc]
    await asyncio.sleep(0)
    running.cancel()
    queued[1].cancel()
    await asyncio.sleep(0)
    gate.open()
    outcomes = await asyncio.gather(running, *queued, return_exceptions=True)
    assert [type(each) for each in outcomes] == [asyncio.CancelledError, type(None), asyncio.CancelledError, type(None)]
    kept = await store.read(lambda tx: [tx.settings.get(each) for each in ("slow", "0", "1", "2")])
    assert kept == ["done", "done", None, "done"]


@pytest.mark.parametrize("swallows", [True, False])
async def test_when_sqlite_undoes_the_whole_transaction_nobody_is_told_of_success(
    store: SqliteStore, swallows: bool
) -> None:
    def undone(tx: Tx) -> None:
        # What SQLite does by itself, for example, when the disk is full in the middle of a statement.
        cast(SqliteTx, tx).settings._connection.execute("ROLLBACK")
        if not swallows:
            raise sqlite3.OperationalError("database or disk is full")

    gate = Gate()
    holding = asyncio.create_task(store.write(lambda tx: gate.hold()))
    await gate.reached()
    works: list[Callable[[Tx], object]] = [lambda tx: tx.settings.set("a", "1"), undone, lambda tx: None]
    group = [asyncio.create_task(store.write(each)) for each in works]
    await asyncio.sleep(0)
    gate.open()
    await holding
    outcomes = await asyncio.gather(*group, return_exceptions=True)
    assert [type(each) for each in outcomes] == [StoreBroken] * 3
    assert await store.read(lambda tx: tx.settings.get("a")) is None
    await store.write(lambda tx: tx.settings.set("a", "2"))


async def test_more_writers_than_the_queue_holds_wait_for_room(store: SqliteStore) -> None:
    works = [store.write(lambda tx, i=i: tx.settings.set(str(i), "")) for i in range(3000)]  # type: ignore[misc]
    await asyncio.gather(*works)
    assert await store.read(lambda tx: tx.settings.get("2999")) == ""


async def test_a_reader_sees_one_state_while_writers_go_on(store: SqliteStore) -> None:
    await store.write(lambda tx: tx.settings.set("a", "before"))
    gate = Gate()

    def look_twice(tx: Tx) -> tuple[str | None, str | None]:
        first = tx.settings.get("a")
        gate.hold()
        return first, tx.settings.get("a")

    reading = asyncio.create_task(store.read(look_twice))
    await gate.reached()
    await store.write(lambda tx: tx.settings.set("a", "after"))
    gate.open()
    assert await reading == ("before", "before")
    assert await store.read(lambda tx: tx.settings.get("a")) == "after"


async def test_a_read_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(Internal, match="read"):
        await store.read(lambda tx: tx.settings.set("a", "1"))
    assert await store.read(lambda tx: tx.settings.get("a")) is None


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt, asyncio.CancelledError])
async def test_a_work_that_raises_something_odd_leaves_the_store_working(
    store: SqliteStore, error: type[BaseException]
) -> None:
    def odd(tx: Tx) -> None:
        raise error

    async def call() -> BaseException | None:
        try:
            await store.write(odd)
        except BaseException as raised:
            return raised
        return None

    assert isinstance(await call(), (error, RuntimeError))
    await store.write(lambda tx: tx.settings.set("a", "1"))


async def test_closing_finishes_what_was_asked_for(store: SqliteStore, path: Path) -> None:
    writes = [asyncio.create_task(store.write(lambda tx, i=i: tx.settings.set(str(i), "x"))) for i in range(500)]  # type: ignore[misc]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    with pytest.raises(StoreBroken, match="closed"):
        await store.write(lambda tx: None)
    with pytest.raises(StoreBroken, match="closed"):
        await store.read(lambda tx: None)
    await store.close()
    await store.open()
    assert await store.read(lambda tx: tx.settings.get("499")) == "x"
