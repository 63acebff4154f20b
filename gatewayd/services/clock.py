"""The wall clock and the dice, as a port: services never ask the system themselves.

What is believed is core.clock's decision. While the system's time is not believed, ``now`` gives what must have been
reached by now: the floor, and the time that has passed since (CLOCK_BOOTTIME, which goes on while the machine sleeps
and does not jump). It may be too early, never too late, as far as is known: so nothing is ever taken for expired
because of a wrong clock, and what is written down stays in order. What needs the true time asks ``sane`` and waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from .. import RELEASED, kernel_clock
from ..core.clock import KnownTime, Verdict, judge
from ..errors import ClockWrong, GatewayError
from ..messages import kind
from ..store.base import Store
from .events import Alarm

log = logging.getLogger(__name__)

_SETTING: Final = "known-time"
_EVERY: Final = 60.0
_EVERY_WHILE_WRONG: Final = 5.0
"""Seconds between two looks: of being synchronised the kernel tells nobody."""
_KEPT_EVERY: Final = 600.0
"""Seconds between two times that the present moment is written down."""
_COME_BACK: Final = 60.0


@dataclass(frozen=True, slots=True)
class ClockStatus:
    verdict: Verdict
    synchronised: bool
    system: datetime
    """What the machine's clock says."""
    floor: datetime
    now: datetime


class Clock(Protocol):
    def now(self) -> datetime:
        """The time, in UTC: the wall clock's, or while that cannot be right the latest that has certainly come."""

    def sane(self) -> bool:
        """Whether ``now`` is the time, and dates may be decided by it."""

    def dice(self) -> float:
        """A random number in [0, 1): the jitter of retries, not a secret."""

    def status(self) -> ClockStatus: ...


def require(clock: Clock) -> None:
    """Before what must not be done with a wrong clock. Raises ClockWrong."""
    if not clock.sane():
        raise ClockWrong("The machine's clock cannot be right: gatewayd waits for the time.", retry_after=_COME_BACK)


def _system_now() -> datetime:
    return datetime.now(UTC)


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    def __init__(
        self,
        *,
        trust_kernel: bool = True,
        system: Callable[[], datetime] = _system_now,
        uptime: Callable[[], float] = _uptime,
        synchronised: Callable[[], bool] = kernel_clock.synchronised,
        build: datetime = RELEASED,
    ) -> None:
        """``trust_kernel``: whether the kernel's word on synchronisation is about this clock."""
        self._system = system
        self._uptime = uptime
        self._ask_kernel = synchronised if trust_kernel else lambda: False
        self._known = KnownTime(build)
        self._known_at = uptime()
        self._synchronised = False

    def now(self) -> datetime:
        system = self._system()
        return system if self._judge(system) is Verdict.SANE else self._at_least()

    def sane(self) -> bool:
        return self._judge(self._system()) is Verdict.SANE

    def dice(self) -> float:
        return random.random()  # noqa: S311 - jitter

    def status(self) -> ClockStatus:
        system = self._system()
        verdict = self._judge(system)
        now = system if verdict is Verdict.SANE else self._at_least()
        return ClockStatus(verdict, self._synchronised, system, self._known.floor(self._synchronised), now)

    def _judge(self, system: datetime) -> Verdict:
        return judge(system, self._synchronised, self._known)

    def _at_least(self) -> datetime:
        return self._known.floor(self._synchronised) + timedelta(seconds=self._uptime() - self._known_at)

    async def load(self, store: Store) -> None:
        """What earlier runs have seen. Before this, nothing is known but the build."""
        kept = await store.read(lambda tx: tx.settings.get(_SETTING))
        if kept:
            moments = {name: datetime.fromisoformat(each) for name, each in json.loads(kept).items()}
            self._known = KnownTime(self._known.build, moments.get("seen"), moments.get("proven"))
        self._known_at = self._uptime()
        self.look()

    def look(self) -> None:
        """Ask the kernel anew, and take the present moment as seen if it can be."""
        self._synchronised = self._ask_kernel()
        system = self._system()
        if self._judge(system) is Verdict.SANE:
            self._known, self._known_at = self._known.after(system, self._synchronised), self._uptime()

    async def keep(self, store: Store) -> None:
        """Make what is known durable."""
        moments = {"seen": self._known.seen, "proven": self._known.proven}
        text = json.dumps({name: each.isoformat() for name, each in moments.items() if each is not None})
        await store.write(lambda tx: tx.settings.set(_SETTING, text))

    async def trust(self, store: Store) -> None:
        """A person says that the system's time is right, whatever was seen before. Raises ClockWrong when it is
        earlier than the release."""
        system = self._system()
        if judge(system, True, build := KnownTime(self._known.build)) is Verdict.BEHIND:
            raise ClockWrong(f"It is certainly later than {system:%Y-%m-%d}: set the machine's clock first.")
        self._known, self._known_at = build.after(system, True), self._uptime()
        await self.keep(store)


class ClockWatch:
    """Looks at the clock every minute, and at once when it is set or the machine wakes up; then all that goes by time
    is worked out anew."""

    def __init__(
        self,
        *,
        clock: SystemClock,
        store: Store,
        changed: Callable[[], None],
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``changed`` wakes the loops; ``refresh`` asks whoever knows whether the clock is synchronised."""
        self._clock = clock
        self._store = store
        self._changed = changed
        self._refresh = refresh
        self._alarm = Alarm()
        self._kept_at = -_KEPT_EVERY
        self._said: Verdict | None = None

    def ring(self) -> None:
        self._alarm.ring()

    async def run(self) -> None:
        steps = kernel_clock.StepWatch(self._stepped)
        steps.start()
        try:
            while True:
                try:
                    await self.round()
                except GatewayError as error:
                    log.warning("the clock: %s", error)
                await self._alarm.sleep(_EVERY if self._clock.sane() else _EVERY_WHILE_WRONG)
        finally:
            steps.stop()

    def _stepped(self) -> None:
        log.info("the clock was set, or the machine has slept", extra=kind("clock-stepped"))
        self._kept_at = -_KEPT_EVERY
        self._alarm.ring()
        asyncio.get_running_loop().call_soon(self._changed)

    async def round(self) -> None:
        if self._refresh is not None:
            await self._refresh()
        self._clock.look()
        status = self._clock.status()
        if status.verdict is not self._said:
            if status.verdict is not Verdict.SANE:
                says = f"the clock says {status.system}, which is {status.verdict} what can be: waiting for the time"
                log.error("%s", ClockWrong(says))
            elif self._said is not None:
                log.info("the clock is right again: %s", status.system, extra=kind("clock-right"))
            if self._said is not None or status.verdict is not Verdict.SANE:
                self._changed()
            self._said = status.verdict
        if status.verdict is Verdict.SANE and time.monotonic() >= self._kept_at + _KEPT_EVERY:
            await self._clock.keep(self._store)
            self._kept_at = time.monotonic()
