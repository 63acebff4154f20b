"""The watch over the sources: every one in its own time, none in another's way, and what is stale is said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest

from gatewayd.core.learning import Freshness
from gatewayd.errors import IssuerUnreachable, StoreBroken
from gatewayd.services.own import Own
from gatewayd.services.watch import Looked, Watch
from tests.support.fakes import FakeClock

INTERVAL = timedelta(hours=1)


class FakeOwn:
    """As OwnCertificates; what the certificates name is ``points``."""

    def __init__(self) -> None:
        self.points: tuple[str, ...] = ()
        self.broken = False

    async def refresh(self) -> None:
        if self.broken:
            raise StoreBroken("The disk fails.")

    def all(self) -> Iterable[Own]:
        return [Own("leaf-1", 1, 1, None, self.points, None)]  # type: ignore[arg-type]


class FakeSource:
    kind = "crl"

    def __init__(self, name: str) -> None:
        self.name = name
        self.looks = 0
        self.then: Callable[[], Looked] = Looked
        self.hangs: asyncio.Event | None = None

    async def look(self) -> Looked:
        self.looks += 1
        if self.hangs is not None:
            await self.hangs.wait()
        return self.then()


class Watching:
    def __init__(self, *fixed: FakeSource, crl_urls: Iterable[str] = (), follow: bool = True) -> None:
        self.clock = FakeClock()
        self.own = FakeOwn()
        self.made: dict[str, FakeSource] = {}
        self.watch = Watch(
            clock=self.clock,
            interval=INTERVAL,
            own=self.own,  # type: ignore[arg-type]
            fixed=fixed,
            crl=self._make,
            crl_urls=crl_urls,
            follow=follow,
        )

    def _make(self, url: str) -> FakeSource:
        return self.made.setdefault(url, FakeSource(url))

    async def round(self, **later: float) -> float:
        self.clock.advance(**later)
        wait = await self.watch._round()
        for _ in range(3):
            await asyncio.sleep(0)
        return wait

    def state(self, name: str) -> Freshness:
        return self.watch.watched[name].freshness(INTERVAL, self.clock.now())


async def test_each_is_looked_at_once_in_an_interval() -> None:
    source = FakeSource("list")
    watching = Watching(source)
    await watching.round()
    assert source.looks == 1
    await watching.round(minutes=50)
    assert source.looks == 1
    await watching.round(minutes=10)
    assert source.looks == 2


async def test_one_that_hangs_is_not_in_the_others_way() -> None:
    slow, quick = FakeSource("slow"), FakeSource("quick")
    slow.hangs = asyncio.Event()
    watching = Watching(slow, quick)
    await watching.round()
    await watching.round(hours=1)
    assert (slow.looks, quick.looks) == (1, 2)
    slow.hangs.set()


async def test_to_be_heard_anew_a_source_is_looked_at_once_more_whatever_a_look_that_was_under_way_says() -> None:
    source = FakeSource("list")
    watching = Watching(source)
    await watching.round()
    assert watching.watch.heard()
    source.hangs = asyncio.Event()
    await watching.round(hours=1)
    watching.watch.hear_anew()
    assert not watching.watch.heard()
    source.hangs.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert (source.looks, watching.watch.heard()) == (2, False)
    await watching.round()
    assert (source.looks, watching.watch.heard()) == (3, True)


async def test_a_failure_is_shown_retried_sooner_and_ends_in_staleness() -> None:
    source = FakeSource("list")
    watching = Watching(source)
    await watching.round()
    assert watching.state("list") is Freshness.FRESH

    def fail() -> Looked:
        raise IssuerUnreachable("Nobody answers.")

    source.then = fail
    await watching.round(hours=1)
    it = watching.watch.watched["list"]
    assert it.proven.last_error == "IssuerUnreachable: Nobody answers."
    assert it.next_look_at is not None
    assert it.next_look_at - watching.clock.now() <= timedelta(seconds=10)
    assert watching.state("list") is Freshness.FRESH
    await watching.round(hours=2.1)
    assert watching.state("list") is Freshness.STALE
    source.then = Looked
    await watching.round(hours=1)
    assert watching.state("list") is Freshness.FRESH
    assert it.proven.last_error is None


async def test_an_overdue_list_is_stale_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    source = FakeSource("list")
    watching = Watching(source)
    overdue = watching.clock.now() - timedelta(minutes=1)
    source.then = lambda: Looked(next_update=overdue)
    for _ in range(3):
        await watching.round(hours=1)
    assert watching.state("list") is Freshness.STALE
    assert caplog.text.count("what is known of revocations is out of date") == 1


async def test_what_the_engine_held_is_looked_at_again_soon() -> None:
    source = FakeSource("list")
    source.then = lambda: Looked(settled=False)
    watching = Watching(source)
    await watching.round()
    await watching.round(seconds=1)
    assert source.looks == 2


async def test_the_crls_that_certificates_name_come_and_go() -> None:
    watching = Watching(crl_urls=["http://configured.example/a.crl"])
    await watching.round()
    watching.own.points = ("http://named.example/b.crl",)
    await watching.round()
    assert sorted(watching.watch.watched) == ["http://configured.example/a.crl", "http://named.example/b.crl"]
    watching.own.points = ()
    await watching.round()
    assert sorted(watching.watch.watched) == ["http://configured.example/a.crl"]
    alone = Watching(follow=False)
    alone.own.points = ("http://named.example/b.crl",)
    await alone.round()
    assert not alone.watch.watched


async def test_nothing_is_decided_by_a_clock_that_is_not_sane() -> None:
    source = FakeSource("list")
    watching = Watching(source)
    watching.clock.right = False
    assert await watching.round() <= 1
    assert source.looks == 0


async def test_a_defect_or_a_broken_disk_does_not_end_the_watch() -> None:
    source = FakeSource("list")

    def defect() -> Looked:
        raise ZeroDivisionError

    source.then = defect
    watching = Watching(source)
    watching.own.broken = True
    running = asyncio.create_task(watching.watch.run())
    await asyncio.sleep(0.01)
    watching.own.broken = False
    watching.watch.ring()
    await asyncio.sleep(0.01)
    assert not running.done()
    assert (
        watching.watch.watched["list"].proven.last_error == "Internal: list could not be looked at: ZeroDivisionError."
    )
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
