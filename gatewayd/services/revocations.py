"""The loop that carries each open revocation to *verified*: what core.revocation says is due, tried for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509

from ..ca.base import Issuer
from ..core import revocation as table
from ..core.model import Credential, DeviceState, JournalEntry, Milestone, MilestoneProgress, Revocation
from ..core.renewal import retry_at
from ..errors import GatewayError, HubRejected, Internal
from ..store.base import Store, Tx
from ..upstream import report
from ..upstream.base import Order, Waiting, Way
from .clock import Clock
from .events import DAEMON, Alarm, Events
from .health import Health

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 60.0
_AT_ONCE = {Milestone.REVOKED_AT_CA: 4, Milestone.DISABLED: 16, Milestone.VERIFIED: 16}
"""Attempts side by side. Few at the CA: it is the hub that lets a stolen key in."""
_RETRY_LAST = timedelta(minutes=10)
"""A revoked certificate that still works is worse than some requests too many."""

_REPORTS_WITHIN = timedelta(minutes=5)
"""How long disabling a revoked gateway waits for its own report."""

_SETTLE = 0.02
"""Seconds: what is told within them makes one round."""
_EVER = datetime.max.replace(tzinfo=UTC)

_Key = tuple[str, str]
"""(device id, serial)."""


class _Carried:
    """A revocation on its way."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.attempts: dict[Milestone, asyncio.Task[None]] = {}
        """Under way."""
        self._more = asyncio.Event()

    def tell(self, due: Iterable[Milestone], *, again: bool) -> None:
        """These are due; ``again``: also where an attempt is under way, which may have looked too early."""
        if again or any(milestone not in self.attempts for milestone in due):
            self._more.set()

    async def changed(self) -> None:
        """Until an attempt has ended or there is more to attempt."""
        more = asyncio.create_task(self._more.wait())
        try:
            await asyncio.wait({more, *self.attempts.values()}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            more.cancel()
            self._more.clear()


class Revocations:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        health: Health,
        issuer: Issuer,
        way: Way,
        gateway_id: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._health = health
        self._issuer = issuer
        self._way = way
        self._gateway_id = gateway_id
        self._own: DeviceState | None = None
        """The gateway's."""
        self.alarm = Alarm()
        self._room = {milestone: asyncio.Semaphore(at_once) for milestone, at_once in _AT_ONCE.items()}
        self._carrying: dict[_Key, _Carried] = {}
        self._hastened: set[_Key] = set()
        self._all_hastened = False
        self._credentials: dict[_Key, Credential | None] = {}
        """Of what is being carried."""
        # REPORTED is the outbox's, when the hub has taken the message.
        self._act: dict[Milestone, Callable[[Revocation], Awaitable[str | Waiting]]] = {
            Milestone.REVOKED_AT_CA: self._revoke_at_ca,
            Milestone.DISABLED: self._disable,
            Milestone.VERIFIED: self._verify,
        }

    def ring(self) -> None:
        self.alarm.ring()

    def waits_for_reports(self, entry: JournalEntry) -> bool:
        """Whether more can be done about this device once it is reported."""
        return self._way.reports_first or entry.device_id == self._gateway_id

    def hasten(self, device_id: str, serial: str) -> None:
        """What this revocation waits for may have come: look now."""
        self._hastened.add((device_id, serial))
        self.alarm.ring()

    def hasten_all(self) -> None:
        """The same for all that are open: the network is back, or the time right, and what has failed for want of it
        need not wait for its next turn."""
        self._all_hastened = True
        self.alarm.ring()

    async def run(self) -> None:
        await self.alarm.rounds("revocations", self._settled_round, _LONGEST_SLEEP)

    async def _settled_round(self) -> float:
        await asyncio.sleep(_SETTLE)
        return await self.round()

    async def round(self) -> float:
        """Start to carry what is due. Returns the seconds until something is due again."""
        now = self._clock.now()
        moments: list[datetime] = []
        everything, self._all_hastened = self._all_hastened, False
        own, revocations = await self._store.read(lambda tx: (tx.devices.get(self._gateway_id), tx.revocations.open()))
        self._own = own.state if own is not None else None
        still_open = {(revocation.device_id, revocation.serial) for revocation in revocations}
        if everything:
            self._hastened |= still_open
        for revocation in revocations:
            key = (revocation.device_id, revocation.serial)
            if due := self._due(revocation, now):
                if carried := self._carrying.get(key):
                    carried.tell(due, again=key in self._hastened)
                else:
                    carried = self._carrying[key] = _Carried()
                    carried.task = asyncio.create_task(self._carry(key, carried))
            elif (moment := self._next(revocation, now)) is not None:
                moments.append(moment)
        self._hastened &= still_open
        if not moments:
            return _LONGEST_SLEEP  # a finished carry rings
        return min(max((min(moments) - now).total_seconds(), 0.1), _LONGEST_SLEEP)

    def _report_first(self, revocation: Revocation) -> bool:
        if self._way.reports_first:
            return True
        # The CA's own link may have shut the gateway out already: what cannot be said does not keep it enabled.
        patient = self._clock.now() < revocation.known_at + _REPORTS_WITHIN
        # New hardware that is not in service yet reports once it is.
        return revocation.device_id == self._gateway_id and patient and self._own is not DeviceState.REPLACING

    def _due(self, revocation: Revocation, now: datetime) -> tuple[Milestone, ...]:
        if (revocation.device_id, revocation.serial) in self._hastened:
            now = _EVER
        return table.due(revocation, now, report_first=self._report_first(revocation), among=self._act)

    def _next(self, revocation: Revocation, now: datetime) -> datetime | None:
        moment = table.next_attempt(revocation, now, report_first=self._report_first(revocation), among=self._act)
        return moment if moment is not None and moment > now else None

    async def _carry(self, key: _Key, carried: _Carried) -> None:
        """Attempt all that is due, until nothing is. Milestones that do not need each other go side by side: a CA that
        does not answer must not keep the hub waiting."""
        attempts = carried.attempts
        broken = False
        try:
            while True:
                revocation = await self._store.read(lambda tx: tx.revocations.get(*key))
                due = () if revocation is None else self._due(revocation, self._clock.now())
                if not attempts.keys() & set(due):  # otherwise what is under way may have looked too early
                    self._hastened.discard(key)
                for milestone in due:
                    if revocation is not None and milestone not in attempts:
                        attempts[milestone] = asyncio.create_task(self._attempt(revocation, milestone))
                if not attempts:
                    return
                await carried.changed()
                for milestone in [each for each, task in attempts.items() if task.done()]:
                    attempts.pop(milestone).result()
        except GatewayError as error:
            broken = True  # the disk: what cannot be written down would be asked for without a pause
            log.error("revocation of %s: %s", key[0], error)
        finally:
            await _end(attempts.values())
            del self._carrying[key]
            self._hastened.discard(key)
            self._credentials.pop(key, None)
            if not self._carrying and not broken:
                self.alarm.ring()  # for the next moment, which only the last of many has to work out

    async def _attempt(self, revocation: Revocation, milestone: Milestone) -> None:
        try:
            async with self._room[milestone]:
                came = await self._act[milestone](revocation)
        except GatewayError as error:
            await self._failed(revocation, milestone, error)
        except Exception as error:
            log.exception("%s of %s failed unexpectedly", milestone, revocation.device_id)
            await self._failed(revocation, milestone, Internal(f"{milestone} failed: {type(error).__name__}."))
        else:
            if isinstance(came, Waiting):
                pause, words = timedelta(seconds=came.seconds), came.words
                await self._settle(
                    revocation, milestone, "waiting", words, lambda p, now: table.waiting(p, now + pause)
                )
            else:
                await self._settle(revocation, milestone, "done", came, lambda p, now: table.done(p, now, came))

    async def _failed(self, revocation: Revocation, milestone: Milestone, error: GatewayError) -> None:
        words = f"{error.name()}: {error.message}"

        def change(progress: MilestoneProgress, now: datetime) -> MilestoneProgress:
            dice = self._clock.dice()
            again = retry_at(now, progress.attempts + 1, dice, retry_after=error.retry_after, longest=_RETRY_LAST)
            return table.failed(progress, words, again)

        await self._settle(revocation, milestone, "failed", words, change)

    async def _settle(
        self,
        revocation: Revocation,
        milestone: Milestone,
        outcome: str,
        detail: str,
        change: Callable[[MilestoneProgress, datetime], MilestoneProgress],
    ) -> None:
        now = self._clock.now()

        def work(tx: Tx) -> JournalEntry | None:
            fresh = tx.revocations.get(revocation.device_id, revocation.serial)
            assert fresh is not None
            progress = dict(fresh.progress)
            again = outcome == "waiting" and progress.get(milestone, MilestoneProgress()).attempts > 0
            progress[milestone] = change(progress.get(milestone, MilestoneProgress()), now)
            tx.revocations.put(replace(fresh, progress=progress))
            if again:
                return None  # it still waits: nothing new to tell
            entry = JournalEntry(now, fresh.device_id, DAEMON, str(milestone), outcome, detail, serial=fresh.serial)
            tx.journal.append(entry)
            return entry

        if (entry := await self._store.write(work)) is not None:
            self._events.publish(entry)

    async def _revoke_at_ca(self, revocation: Revocation) -> str:
        credential = await self._credential(revocation)
        if credential is None or credential.certificate is None:
            raise Internal(f"The certificate {revocation.serial} is not on record.", device=revocation.device_id)
        with self._health.watch(self._health.issuer):
            return await self._issuer.revoke(x509.load_der_x509_certificate(credential.certificate), revocation.reason)

    async def _disable(self, revocation: Revocation) -> str | Waiting:
        with self._health.watch(self._health.registry):
            return await self._way.disable(await self._order(revocation, Milestone.DISABLED))

    async def _verify(self, revocation: Revocation) -> str | Waiting:
        try:
            return await self._look(revocation)
        except HubRejected:
            # Somebody has enabled it again. What is done stays done, so it is seen to here.
            await self._disable(revocation)
            return await self._look(revocation)

    async def _look(self, revocation: Revocation) -> str | Waiting:
        with self._health.watch(self._health.registry):
            return await self._way.verify(await self._order(revocation, Milestone.VERIFIED))

    async def _order(self, revocation: Revocation, milestone: Milestone) -> Order:
        credential = await self._credential(revocation)
        return Order(
            device_id=revocation.device_id,
            serial=revocation.serial,
            reason=revocation.reason,
            known_at=revocation.known_at,
            attempts=revocation.progress.get(milestone, MilestoneProgress()).attempts,
            report=report.revocation_report(revocation, credential),
            own_end=revocation.device_id == self._gateway_id and self._own is DeviceState.REVOKED,
        )

    async def _credential(self, revocation: Revocation) -> Credential | None:
        """The revoked one; its certificate never changes, so one look is enough for all milestones."""
        key = (revocation.device_id, revocation.serial)
        if key not in self._credentials:

            def work(tx: Tx) -> Credential | None:
                return next((each for each in tx.credentials.all(key[0]) if each.serial == key[1]), None)

            self._credentials[key] = await self._store.read(work)
        return self._credentials[key]

    async def stop(self) -> None:
        await _end(each.task for each in self._carrying.values() if each.task is not None)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Break them off, and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
