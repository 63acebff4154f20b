"""Ten years of a gateway with 10,000 leaves, in a minute or two: does anything expire, and is the CA crushed?

What is real: every decision. When a leaf asks and asks again (core.renewal), whose turn it is and how fast they go
(core.sparing's pace), the limiter and the breaker, what a failure means and when the next attempt is due
(services.outcomes), each state that a request passes through (core.lifecycle), and the look at the CA before it is
asked again. What is modelled: the store is a list in order of urgency, a request takes no time, the hub accepts
everything, and a leaf that has expired is put right by a technician within a day.

The world: all leaves are enrolled in the first hour; the CA is away for 5 % of the time, in spells of up to 20 days;
one answer in 500 is lost after the certificate was minted; the gateway restarts every ten days or so, at times in the
midst of a request, and is off for days now and then; its clock jumps, back before its last known time or ahead.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from gatewayd.core import lifecycle, renewal, sparing
from gatewayd.core.lifecycle import Action, Event
from gatewayd.core.model import Credential, CredentialState
from gatewayd.core.renewal import RenewalPolicy
from gatewayd.core.sparing import Breaker, Bucket, burst
from gatewayd.errors import IssuerUnreachable
from gatewayd.services import outcomes

from .figures import figure

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
START: Final = datetime(2030, 1, 1, tzinfo=UTC)
POLICY: Final = RenewalPolicy()
CA_LIMIT: Final = 10.0
"""Requests a second."""
LOST_ANSWERS: Final = 1 / 500
SHORT: Final = HOUR
"""A gateway that is off for less than this is no excuse for an expired certificate."""

Spell = tuple[float, float]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Spells:
    """Times that do not overlap, in order."""

    def __init__(self, spells: list[Spell]) -> None:
        self.all: list[Spell] = []
        for start, end in sorted(spells):
            if self.all and start <= self.all[-1][1]:
                self.all[-1] = (self.all[-1][0], max(end, self.all[-1][1]))
            else:
                self.all.append((start, end))
        self._starts = [start for start, _ in self.all]

    def until(self, now: float) -> float | None:
        """When the spell that holds now ends; None when none does."""
        index = bisect_right(self._starts, now) - 1
        return self.all[index][1] if index >= 0 and now < self.all[index][1] else None

    def touch(self, start: float, end: float, longer_than: float = 0.0) -> bool:
        return any(a < end and start < b for a, b in self.all if b - a > longer_than)


def spells(dice: random.Random, horizon: float, share: float, longest: float) -> Spells:
    """``share`` of the time, one of them as long as may be."""
    found: list[Spell] = []
    left = min(share * horizon, longest)
    while (total := sum(end - start for start, end in found)) < share * horizon:
        length = min(left, share * horizon - total)
        start = dice.uniform(2 * DAY, horizon - length)
        if not any(a < start + length and start < b for a, b in found):
            found.append((start, start + length))
            left = dice.uniform(HOUR, longest)
    return Spells(found)


def restarts(dice: random.Random, horizon: float) -> Spells:
    short = [(dice.uniform(DAY, horizon), dice.uniform(1, 30) * MINUTE) for _ in range(int(horizon / (10 * DAY)))]
    long = [(dice.uniform(DAY, horizon), dice.uniform(1, 5) * DAY) for _ in range(int(horizon / (180 * DAY)))]
    return Spells([(start, start + length) for start, length in short + long])


@dataclass(slots=True)
class Leaf:
    name: str
    not_before: float
    not_after: float
    asked: int = 0
    """Times in a row that nobody has answered it."""


@dataclass(slots=True)
class Request:
    """What the store holds of one renewal."""

    leaf: Leaf
    deadline: float
    state: CredentialState = CredentialState.KEYED
    attempts: int = 0
    next_attempt: float = 0.0
    minted: float | None = None
    """When the CA has made the certificate, whether or not anybody knows here."""

    def step(self, event: Event) -> tuple[Action, ...]:
        self.state, actions = lifecycle.step(self.state, event)
        return actions


@dataclass(slots=True)
class Count:
    renewed: int = 0
    expired: int = 0
    """Though gateway and CA were up for the 24 hours before."""
    excused: int = 0
    found: int = 0
    second: int = 0
    """Certificates minted for a key that had one."""
    closest: float = float("inf")
    """Seconds between two requests at the CA."""
    by_hour: Counter[int] = field(default_factory=Counter)
    last: float = float("-inf")


class Decade:
    def __init__(self, years: float, leaves: int, lifetime: float, seed: int) -> None:
        self.horizon = years * 365 * DAY
        self.lifetime = lifetime
        self.dice = random.Random(seed)
        self.away = spells(self.dice, self.horizon, 0.05, 20 * DAY)
        self.off = restarts(self.dice, self.horizon)
        self.jumps = [
            (
                start,
                start + self.dice.uniform(10, 120) * MINUTE,
                self.dice.choice((-1, 1)) * self.dice.uniform(0, 2) * DAY,
            )
            for start in sorted(self.dice.uniform(DAY, self.horizon) for _ in range(int(self.horizon / (60 * DAY))))
        ]
        self.jumped = Spells([(start, end) for start, end, _ in self.jumps])
        self.count = Count()
        self.leaves = [Leaf(f"leaf-{number}", 0.0, 0.0) for number in range(leaves)]
        self.waiting: list[tuple[float, int, Request]] = []
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._round_at = float("inf")
        self.start_up(0.0)

    # --- time ------------------------------------------------------------------------------------

    def plan(self, when: float, what: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what))

    def run(self) -> None:
        for leaf in self.leaves:
            self.enrolled(leaf, self.dice.uniform(0, HOUR))
        for start, end in self.off.all:
            self.plan(start, self.shut_down)
            self.plan(end, self.start_up)
        for _, end in self.jumped.all:
            self.plan(end, self.round)
        while self._events and self._events[0][0] < self.horizon:
            when, _, what = heapq.heappop(self._events)
            what(when)
        for leaf in self.leaves:
            if leaf.not_after < self.horizon:
                self.judge(leaf)

    def clock(self, now: float) -> float | None:
        """The gateway's own time; None while it cannot be right."""
        if self.jumped.until(now) is not None:
            offset = next(offset for start, end, offset in reversed(self.jumps) if start <= now < end)
            return now + offset if offset > 0 else None
        return now

    def serves(self, now: float) -> bool:
        return self.off.until(now) is None and self.clock(now) is not None

    # --- a leaf ----------------------------------------------------------------------------------

    def enrolled(self, leaf: Leaf, now: float) -> None:
        leaf.not_before, leaf.not_after, leaf.asked = now, now + self.lifetime, 0
        due = renewal.renew_at(leaf.name, at(now), at(leaf.not_after), POLICY)
        self.plan((due - START).total_seconds(), lambda when: self.ask(leaf, when))

    def ask(self, leaf: Leaf, now: float) -> None:
        if not self.serves(now):
            leaf.asked += 1
            again = renewal.retry_at(at(now), leaf.asked, self.dice.random(), not_after=at(leaf.not_after))
            self.plan((again - START).total_seconds(), lambda when: self.ask(leaf, when))
            return
        request = Request(leaf, leaf.not_after)
        if now >= leaf.not_after or self.at_once(request, now):  # with a technician, or its turn already
            self.attempt(request, now)
        if request.state is not CredentialState.CURRENT:
            insort(self.waiting, (request.deadline, id(request), request))
            self.wake(now)

    def fetch(self, leaf: Leaf, minted: float, now: float) -> None:
        """The leaf comes back for its certificate as Retry-After says; after its end with a technician."""
        if not self.serves(now):
            until = max(self.off.until(now) or now, self.jumped.until(now) or now)
            self.plan(until + self.dice.uniform(0, HOUR), lambda when: self.fetch(leaf, minted, when))
            return
        if now > leaf.not_after:
            self.judge(leaf)
        self.count.renewed += 1
        leaf.not_before = minted
        leaf.not_after, leaf.asked = minted + self.lifetime, 0
        due = renewal.renew_at(leaf.name, at(minted), at(leaf.not_after), POLICY)
        self.plan(max((due - START).total_seconds(), now), lambda when: self.ask(leaf, when))

    def judge(self, leaf: Leaf) -> None:
        end = leaf.not_after
        excused = self.away.touch(end - DAY, end) or self.off.touch(end - DAY, end, longer_than=SHORT)
        self.count.excused += excused
        self.count.expired += not excused

    # --- the gateway -----------------------------------------------------------------------------

    def shut_down(self, now: float) -> None:
        if self.waiting and self.dice.random() < 0.5:  # in the midst of a request
            request = self.waiting[0][2]
            if request.next_attempt <= now:
                request.step(Event.START)
                self.ask_ca(request, now)

    def start_up(self, now: float) -> None:
        """Nothing but the store has survived."""
        self.breaker, self.bucket, self.limiter = Breaker(), Bucket(), Bucket()
        self.rate, self.rate_until, self.line = sparing.LEAST_PACE, float("-inf"), False
        for _, _, request in self.waiting:
            if request.state in lifecycle.IN_PROGRESS:
                request.state = lifecycle.recover(request.state)
                request.attempts += 1
        self.wake(now)

    def wake(self, when: float) -> None:
        if when < self._round_at:
            self._round_at = when
            self.plan(when, self.round)

    def at_once(self, request: Request, now: float) -> bool:
        return not self.line and sparing.pause(self.breaker, now) == 0 and self.take(request, now)

    def take(self, request: Request, now: float) -> bool:
        if sparing.wait(self.bucket, now, self.rate, burst(self.rate)) > 0:
            return False
        requests = 2 if request.attempts else 1
        self.bucket, _ = sparing.take(self.bucket, now, self.rate, burst(self.rate), requests)
        return True

    def round(self, now: float) -> None:
        """As services.turns and services.renewals do it."""
        if now >= self._round_at:
            self._round_at = float("inf")
        clock = self.clock(now)
        if self.off.until(now) is not None or clock is None:
            return  # woken when that ends
        if (pause := sparing.pause(self.breaker, now)) > 0:
            self.wake(now + pause)
            return
        if now >= self.rate_until:
            mean = len(self.leaves) / self.lifetime / ((POLICY.opens + POLICY.closes) / 2)
            remaining = [deadline - clock for deadline, _, _ in self.waiting[:1000]]
            self.bucket = Bucket(sparing.level(self.bucket, now, self.rate, burst(self.rate)), now)
            self.rate, self.rate_until = min(sparing.pace(mean, remaining), CA_LIMIT), now + MINUTE
        self.line = False
        due = [each for each in self.waiting if each[2].next_attempt <= clock][:40]
        if self.breaker.until is not None:  # services.turns.probe
            due = [next((each for each in due if each[2].attempts), *due[:1])] if due else []
        for entry in due:
            if sparing.pause(self.breaker, now) > 0 or not self.take(entry[2], now):
                self.line = True
                break
            self.attempt(entry[2], now)
            if entry[2].state is CredentialState.CURRENT:
                self.waiting.remove(entry)
        if self.line:
            self.wake(
                now
                + max(
                    sparing.wait(self.bucket, now, self.rate, burst(self.rate)), sparing.pause(self.breaker, now), 0.001
                )
            )
        elif self.waiting:
            self.wake(now + max(min(each[2].next_attempt for each in self.waiting) - clock, MINUTE))

    def attempt(self, request: Request, now: float) -> None:
        request.step(Event.START)
        self.breaker = sparing.begun(self.breaker, now)
        if self.ask_ca(request, now):
            self.breaker = Breaker()
            assert request.minted is not None
            request.step(Event.ISSUED)
            request.step(Event.START)
            request.step(Event.ACCEPTED)
            comes_back = min(max(request.deadline - now, 0) / 100, HOUR) if request.deadline > now else DAY
            minted, leaf = request.minted, request.leaf
            self.plan(now + self.dice.random() * comes_back, lambda when: self.fetch(leaf, minted, when))
            return
        self.breaker = sparing.failed(self.breaker, now, self.dice.random())
        clock = self.clock(now) or now
        error = IssuerUnreachable("no answer")
        event = outcomes.event_of(Action.REQUEST, error)
        request.attempts = outcomes.attempts_after(event, request.attempts)
        leaf = request.leaf
        present = Credential(
            leaf.name,
            1,
            CredentialState.CURRENT,
            START,
            START,
            not_before=at(leaf.not_before),
            not_after=at(leaf.not_after),
        )
        again = outcomes.next_attempt(event, request.attempts, error, present, POLICY, at(clock), self.dice.random())
        assert again is not None
        request.next_attempt = (again - START).total_seconds()
        request.step(event)

    # --- the CA ----------------------------------------------------------------------------------

    def ask_ca(self, request: Request, now: float) -> bool:
        """Look first after an unclear failure, as services.steps does; then ask. False: no clear answer."""
        if request.attempts > 0:
            if not self.reaches_ca(now):
                return False
            if request.minted is not None:
                self.count.found += 1
                return True
        if not self.reaches_ca(now):
            return False
        self.count.second += request.minted is not None
        request.minted = now
        return self.dice.random() >= LOST_ANSWERS and self.off.until(now) is None

    def reaches_ca(self, now: float) -> bool:
        self.limiter, wait = sparing.take(self.limiter, now, CA_LIMIT, 1.0)
        arrives = now + wait
        if self.away.until(arrives) is not None:
            return False
        if arrives >= HOUR:  # the first hour is the commissioning
            self.count.by_hour[int(arrives // HOUR)] += 1
        self.count.closest = min(self.count.closest, arrives - self.count.last)
        self.count.last = arrives
        return True


def main() -> None:
    options = argparse.ArgumentParser(description="Ten years of a gateway with 10,000 leaves.")
    options.add_argument("--years", type=float, default=10)
    options.add_argument("--leaves", type=int, default=10_000)
    options.add_argument("--days", type=float, default=90, help="lifetime of a certificate")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    began = time.monotonic()
    decade = Decade(chosen.years, chosen.leaves, chosen.days * DAY, chosen.seed)
    decade.run()
    count = decade.count
    mean = count.by_hour.total() / (decade.horizon / HOUR)
    away = sum(end - start for start, end in decade.away.all)
    figure("renewals", count.renewed)
    figure("ca_away", away / decade.horizon * 100, "%")
    figure("ca_longest_spell", max(end - start for start, end in decade.away.all) / DAY, "days")
    figure("gateway_restarts", len(decade.off.all))
    figure("clock_jumps", len(decade.jumps))
    figure("expired_with_gateway_and_ca_up", count.expired, at_most=0)
    figure("expired_with_either_away", count.excused)
    figure("minted_twice_for_one_key", count.second, at_most=0)
    figure("found_at_the_ca_after_a_lost_answer", count.found)
    figure("requests_a_second_at_the_ca", 1 / count.closest, at_most=CA_LIMIT * 1.000001)
    figure("requests_an_hour_mean", mean)
    figure("requests_an_hour_busiest", max(count.by_hour.values()))
    figure("busiest_hour_to_mean", max(count.by_hour.values()) / mean, at_most=3)
    figure("took", time.monotonic() - began, "s", at_most=300)


if __name__ == "__main__":
    main()
