"""The clock of the machine, and what is made of it; on the real store and the real kernel where there is one."""

import asyncio
import errno
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gatewayd import kernel_clock
from gatewayd.core.clock import Verdict
from gatewayd.errors import ClockWrong
from gatewayd.services.clock import ClockWatch, SystemClock, require
from gatewayd.store.database import SqliteStore

BUILD = datetime(2026, 7, 1, tzinfo=UTC)
NOW = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Machine:
    """Its clocks, and what its kernel says of them."""

    def __init__(self) -> None:
        self.time, self.up, self.ntp = NOW, 100.0, False

    def clock(self) -> SystemClock:
        return SystemClock(system=lambda: self.time, uptime=lambda: self.up, synchronised=lambda: self.ntp, build=BUILD)

    def run(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.up += seconds


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "gatewayd.db")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def started(machine: Machine, store: SqliteStore) -> SystemClock:
    clock = machine.clock()
    await clock.load(store)
    return clock


async def test_a_gateway_that_boots_in_1970_goes_on_from_where_it_was(machine: Machine, store: SqliteStore) -> None:
    clock = await started(machine, store)
    await clock.keep(store)
    machine.time, machine.up = EPOCH, 5.0
    clock = await started(machine, store)
    assert not clock.sane()
    assert clock.now() == NOW
    machine.run(90)
    assert clock.now() == NOW + timedelta(seconds=90)
    with pytest.raises(ClockWrong):
        require(clock)
    machine.time, machine.ntp = NOW + timedelta(days=30), True
    clock.look()
    assert clock.sane()
    assert clock.now() == NOW + timedelta(days=30)


async def test_a_new_gateway_in_1970_knows_that_it_is_later_than_its_release(
    machine: Machine, store: SqliteStore
) -> None:
    machine.time = EPOCH
    clock = await started(machine, store)
    assert (clock.sane(), clock.now()) == (False, BUILD)


async def test_an_unsynchronised_jump_ahead_is_not_believed_and_leaves_no_trace(
    machine: Machine, store: SqliteStore
) -> None:
    clock = await started(machine, store)
    machine.time = datetime(2099, 1, 1, tzinfo=UTC)
    clock.look()
    machine.up += 60
    assert clock.status().verdict is Verdict.AHEAD
    assert clock.now() == NOW + timedelta(seconds=60)
    machine.time = NOW + timedelta(minutes=2)
    clock.look()
    assert (clock.sane(), clock.now()) == (True, machine.time)


async def test_a_smaller_jump_ahead_is_put_right_by_synchronisation(machine: Machine, store: SqliteStore) -> None:
    machine.ntp = True
    clock = await started(machine, store)
    machine.ntp, machine.time = False, NOW + timedelta(days=200)
    clock.look()
    assert clock.sane()
    machine.time = NOW + timedelta(minutes=1)
    clock.look()
    assert not clock.sane()
    machine.ntp = True
    clock.look()
    assert clock.sane()


async def test_a_person_may_say_that_the_clock_is_right(machine: Machine, store: SqliteStore) -> None:
    clock = await started(machine, store)
    await clock.keep(store)
    machine.time = NOW - timedelta(days=100)
    assert not clock.sane()
    await clock.trust(store)
    assert clock.sane()
    assert (await started(machine, store)).sane()
    machine.time = EPOCH
    with pytest.raises(ClockWrong, match="later than"):
        await clock.trust(store)
    assert not clock.sane()


async def test_the_watch_wakes_the_loops_when_the_verdict_changes(machine: Machine, store: SqliteStore) -> None:
    clock = await started(machine, store)
    rung: list[bool] = []
    watch = ClockWatch(clock=clock, store=store, changed=lambda: rung.append(clock.sane()))
    await watch.round()
    await watch.round()
    assert rung == []
    machine.time = EPOCH
    await watch.round()
    machine.time = NOW
    await watch.round()
    assert rung == [False, True]
    assert (await started(machine, store)).status().floor == NOW


async def test_the_kernel_can_be_asked_and_watched() -> None:
    assert kernel_clock.synchronised() in (True, False)
    steps: list[None] = []
    watch = kernel_clock.StepWatch(lambda: steps.append(None))
    watch.start()
    try:
        await asyncio.sleep(0.05)
    finally:
        watch.stop()
    assert not steps


async def test_a_step_of_the_clock_is_told_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel says it. (Really to set the clock would make the machine's own synchronisation begin anew.)"""

    def cancelled(*_: int) -> bytes:
        raise OSError(errno.ECANCELED, "the clock was set")

    steps: list[None] = []
    watch = kernel_clock.StepWatch(lambda: steps.append(None))
    watch.start()
    try:
        monkeypatch.setattr("os.read", cancelled)
        watch._readable()
        watch._readable()
    finally:
        watch.stop()
    assert len(steps) == 2


async def test_where_the_kernel_may_not_be_asked_systemd_timedated_is_and_seldom(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_clock, "_TIMESYNCD", tmp_path / "synchronized")
    asked: list[None] = []

    def timedated() -> bool:
        asked.append(None)
        return True

    sandboxed = kernel_clock.Synchronisation(kernel=lambda: None, timedated=timedated)
    assert not sandboxed()
    await sandboxed.refresh()
    await sandboxed.refresh()
    assert sandboxed()
    assert len(asked) == 1
    free = kernel_clock.Synchronisation(kernel=lambda: False, timedated=timedated)
    await free.refresh()
    assert not free()
    assert len(asked) == 1
