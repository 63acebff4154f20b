"""The engine that drives a credential along core.lifecycle's table.

Each turn is: write down the state in progress, carry out its action, write down the outcome. A record found in a
state in progress while nobody holds its lock was interrupted (a crash, a broken disk): ``lifecycle.recover`` puts it
back to its last stable state, and the attempt counts as failed with an unknown outcome, so that the next request
looks at the CA before it asks.

How a step is carried out differs between the gateway and a leaf, and is the business of ``Steps``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.serialization import Encoding

from ..ca.base import Issued, Working
from ..core import lifecycle
from ..core.lifecycle import Action, Event
from ..core.model import (
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    DeviceState,
    JournalEntry,
    OutboxMessage,
    RevocationReason,
)
from ..core.renewal import RETRY_FIRST, RenewalPolicies, Window, ask_again_at, is_due, renew_at, retry_at
from ..errors import CertificateUnacceptable, GatewayError, HubUnreachable, Internal
from ..pki import certificates
from ..store.base import Store, Tx
from . import generations, outcomes, replacing, revoking
from .clock import Clock
from .events import DAEMON, Events

log = logging.getLogger(__name__)


class Steps(Protocol):
    """How one kind of device takes its steps. Each is idempotent and may raise any GatewayError."""

    async def make_key(self, device: Device, credential: Credential) -> Credential:
        """With ``csr`` and ``public_key_sha256`` set."""

    async def request(self, device: Device, credential: Credential) -> Issued | Working:
        """Look first when ``credential.attempts`` says that an earlier request's outcome may be unknown."""

    async def find(self, device: Device, credential: Credential) -> Issued | None:
        """A certificate for this credential's key that an interrupted request left behind."""

    async def check(self, device: Device, credential: Credential, issued: Issued, replaces: Credential | None) -> None:
        """Raises CertificateUnacceptable."""

    async def accept(self, device: Device, credential: Credential) -> None:
        """Have the hub accept it."""


@dataclass(frozen=True, slots=True)
class Driven:
    credential: Credential
    error: GatewayError | None
    """Why it went no further, when that was a failure in this drive."""


class CredentialEngine:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        policies: RenewalPolicies,
        steps: Mapping[DeviceKind, Steps],
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self.policies = policies
        self._steps = steps
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One turn at a time for a device; a lock lives only as long as somebody holds or awaits it."""
        self._running: dict[tuple[str, int], asyncio.Task[Driven]] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    def drives(self, credential: Credential) -> bool:
        """Whether this one is under way."""
        return (credential.device_id, credential.generation) in self._running

    def start(self, device_id: str, generation: int) -> asyncio.Task[Driven]:
        """Take the credential as far as it goes now, in a task of the engine's own: whoever waits for it may go away.
        One task a credential; a second start joins it. The task raises StoreBroken; other errors are recorded."""
        key = (device_id, generation)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._drive(device_id, generation))
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: tuple[str, int], task: asyncio.Task[Driven]) -> None:
        del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s, generation %d: %s", *key, error)

    def exclusive(self, device_id: str) -> asyncio.Lock:
        """Held while a credential of this device is driven: for whoever else writes to its identity."""
        return self._locks.setdefault(device_id, asyncio.Lock())

    async def drive(self, device_id: str, generation: int) -> Driven:
        return await asyncio.shield(self.start(device_id, generation))

    async def stop(self) -> None:
        """Break off what is under way; it is resumed at the next start."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, device_id: str, generation: int) -> Driven:
        error: GatewayError | None = None
        async with self.exclusive(device_id):
            while True:
                device, credential, action = await self._store.write(lambda tx: self._begin(tx, device_id, generation))
                if action is not None:
                    error = await self._turn(action, device, credential)
                elif self._is_due(credential):
                    error = await self._wind_up(device, credential)
                else:
                    return Driven(credential, error)

    def _is_due(self, credential: Credential) -> bool:
        if credential.state not in lifecycle.UNFINISHED or not self._clock.sane():
            return False  # with a wrong clock nothing new is begun
        return is_due(credential.next_attempt_at, self._clock.now())

    def _begin(self, tx: Tx, device_id: str, generation: int) -> tuple[Device, Credential, Action | None]:
        """Decide on the next action and write it down, in one transaction: a revocation comes before it or after it,
        never between. None when nothing is to be done now, or when the credential is given up."""
        device, credential = tx.devices.get(device_id), tx.credentials.get(device_id, generation)
        if device is None or credential is None:
            raise Internal(f"No generation {generation} of {device_id} is on record.", device=device_id)
        if not self._is_due(credential):
            return device, credential, None
        if credential.state in lifecycle.IN_PROGRESS:
            state = lifecycle.recover(credential.state)
            credential = replace(credential, state=state, attempts=credential.attempts + 1)
        if revoking.is_given_up(tx, device, generation):
            return device, credential, None
        state, (action, *_) = lifecycle.step(credential.state, Event.START)
        begun = replace(credential, state=state, updated_at=self._clock.now(), next_attempt_at=None)
        tx.credentials.put(begun)
        return device, begun, action

    async def _turn(self, action: Action, device: Device, begun: Credential) -> GatewayError | None:
        try:
            event, outcome, detail = await self._act(action, device, begun)
        except _Unacceptable as refused:
            await self._record_failure(action, refused.kept, refused.error)
            return refused.error
        except GatewayError as error:
            await self._record_failure(action, begun, error)
            return error
        except Exception as error:
            log.exception("%s of %s failed unexpectedly", action, device.device_id)
            internal = Internal(f"{action} failed: {type(error).__name__}.", device=device.device_id)
            await self._record_failure(action, begun, internal)
            return internal
        await self._record(action, begun.state, event, outcome, detail)
        return None

    async def _act(self, action: Action, device: Device, begun: Credential) -> tuple[Event, Credential, str]:
        """Carry out one action. Returns the event, the record with what was learned, and words for the journal."""
        steps = self._steps[device.kind]
        settled = replace(begun, attempts=0, last_error=None)
        match action:
            case Action.MAKE_KEY:
                made = await steps.make_key(device, settled)
                return Event.KEY_MADE, made, made.key.algorithm if made.key else ""
            case Action.REQUEST:
                answer = await steps.request(device, begun)
                if isinstance(answer, Working):
                    later = ask_again_at(self._clock.now(), answer.retry_after)
                    # What the CA has is looked for before it is asked again: an attempt whose outcome is open.
                    return Event.WORKING, replace(begun, attempts=1, next_attempt_at=later), "the CA is at work"
                replaces = await self._store.read(lambda tx: tx.credentials.current(device.device_id))
                kept = _with_certificate(settled, answer)
                if device.kind is DeviceKind.GATEWAY:  # a leaf asks by itself: only it has its key
                    kept = replace(kept, renew_at=self._renew_at(kept, answer.suggested))
                try:
                    await steps.check(device, settled, answer, replaces)
                except CertificateUnacceptable as error:
                    raise _Unacceptable(error, kept) from None
                return Event.ISSUED, kept, f"serial {kept.serial}, until {kept.not_after:%Y-%m-%d %H:%M:%S}Z"
            case Action.ACCEPT:
                if begun.not_after is not None and begun.not_after <= self._clock.now():
                    words = "it expired before the hub had accepted it"
                    return Event.EXPIRED, replace(settled, last_error=f"{HubUnreachable.name()}: {words}"), words
                await steps.accept(device, begun)
                return Event.ACCEPTED, settled, f"serial {begun.serial}"
            case _:
                raise AssertionError(action)

    async def _record(self, action: Action, was: CredentialState, event: Event, new: Credential, detail: str) -> None:
        now = self._clock.now()

        def work(tx: Tx) -> list[JournalEntry]:
            device = tx.devices.get(new.device_id)
            assert device is not None
            final_event = event
            if event is Event.ACCEPTED and revoking.is_given_up(tx, device, new.generation):
                # Given up while the hub was being asked: it must not become current. Back to ISSUED, and wound up.
                final_event = Event.FAILED
            state, actions = lifecycle.step(was, final_event)
            record = replace(new, state=state, updated_at=now)
            entries = [_entry(record, action, final_event, detail, now)]
            if Action.SWITCH in actions:
                self._switch(tx, device, record, now)
                entries.append(_entry(record, Action.SWITCH, final_event, f"generation {record.generation}", now))
            tx.credentials.put(record)
            for entry in entries:
                tx.journal.append(entry)
            if Action.SWITCH in actions and (pinned := replacing.pinned(tx, record, now)) is not None:
                entries.append(pinned)
            return entries

        self._events.publish(*await self._store.write(work))

    def _switch(self, tx: Tx, device: Device, record: Credential, now: datetime) -> None:
        """The one atomic switch: pointer, states and message in one transaction."""
        for other in tx.credentials.all(device.device_id, lifecycle.USABLE):
            if other.generation != record.generation:
                state, _ = lifecycle.step(other.state, Event.SUPERSEDED)
                tx.credentials.put(replace(other, state=state, updated_at=now, renew_at=None))
        tx.devices.put(replace(device, current=record.generation, in_hub=True))
        assert record.not_after is not None
        tx.outbox.add(
            OutboxMessage(
                key=f"certificate/{device.device_id}/{record.serial}",
                kind="certificate",
                payload=json.dumps(
                    {
                        "deviceId": device.device_id,
                        "generation": record.generation,
                        "serial": record.serial,
                        "thumbprint": record.thumbprint,
                        "notAfter": record.not_after.isoformat(),
                    }
                ),
                created_at=now,
            )
        )

    def _renew_at(self, kept: Credential, suggested: Window | None) -> datetime:
        assert kept.not_before is not None
        assert kept.not_after is not None
        policy = self.policies.of(kept.device_id)
        return renew_at(kept.device_id, kept.not_before, kept.not_after, policy, suggested)

    async def _record_failure(self, action: Action, begun: Credential, error: GatewayError) -> None:
        now = self._clock.now()
        words = f"{error.name()}: {error.message}"
        policy = self.policies.of(begun.device_id)

        def work(tx: Tx) -> JournalEntry:
            device, present = tx.devices.get(begun.device_id), tx.credentials.current(begun.device_id)
            assert device is not None
            # Revoked meanwhile: it is wound up at once, whatever was answered.
            revoked = revoking.is_given_up(tx, device, begun.generation)
            event = Event.FAILED if revoked else outcomes.event_of(action, error)
            state, actions = lifecycle.step(begun.state, event)
            attempts = outcomes.attempts_after(event, begun.attempts)
            again = outcomes.next_attempt(event, attempts, error, present, policy, now, self._clock.dice())
            again = replacing.next_attempt(tx, device, error, again, now)
            record = replace(
                begun,
                state=state,
                updated_at=now,
                attempts=attempts,
                next_attempt_at=None if revoked else again,
                last_error=words,
            )
            tx.credentials.put(record)
            if Action.BEGIN_ANEW in actions:
                self._begin_anew(tx, device, record, present, now)
            elif event is Event.REJECTED and present is not None and present.renew_at is not None:
                self._postpone(tx, present, now)
            entry = _entry(record, action, event, words, now)
            tx.journal.append(entry)
            return entry

        self._events.publish(await self._store.write(work))

    def _postpone(self, tx: Tx, present: Credential, now: datetime) -> None:
        """A rejected renewal is begun anew later and later, never at once: no renewal loop."""
        rejected = generations.rejected_since(tx, present.device_id, present.generation)
        # Each time costs a key in the token: even when the end is near, or past, it is not tried in a hurry.
        later = max(retry_at(now, rejected, self._clock.dice(), not_after=present.not_after), now + RETRY_FIRST)
        tx.credentials.put(replace(present, renew_at=later))

    def _begin_anew(
        self, tx: Tx, device: Device, failed: Credential, present: Credential | None, now: datetime
    ) -> None:
        """The first time at once; should that key come to nothing either, later and later. A leaf makes its own."""
        if failed.key is None:
            return
        lost = generations.rejected_since(tx, failed.device_id, present.generation if present else 0)
        fresh = generations.begin(tx, device, failed.key.algorithm, now)
        if lost > 1:
            later = retry_at(now, lost - 1, self._clock.dice())
            tx.credentials.put(replace(fresh, next_attempt_at=later))

    async def _wind_up(self, device: Device, credential: Credential) -> GatewayError | None:
        """The device was revoked on the way: what was minted is accounted for and revoked, the rest forgotten."""
        try:
            if credential.certificate is None and credential.attempts > 0 and credential.csr is not None:
                found = await self._steps[device.kind].find(device, credential)
                if found is not None:
                    credential = _with_certificate(credential, found)
        except GatewayError as error:
            now = self._clock.now()
            again = retry_at(now, credential.attempts + 1, self._clock.dice())
            waiting = replace(
                credential,
                attempts=credential.attempts + 1,
                next_attempt_at=again,
                updated_at=now,
                last_error=f"{error.name()}: {error.message}",
            )
            await self._store.write(lambda tx: tx.credentials.put(waiting))
            return error
        state, _ = lifecycle.step(credential.state, Event.REVOKED)
        now = self._clock.now()
        final = replace(credential, state=state, updated_at=now, next_attempt_at=None)
        reason = device.revocation_reason or RevocationReason.UNSPECIFIED

        def work(tx: Tx) -> JournalEntry:
            tx.credentials.put(final)
            # New hardware of the gateway's reports what the old one leaves behind once it is in service.
            tell = device.kind is DeviceKind.LEAF or device.state is DeviceState.REVOKED
            revoking.add_revocation(tx, final, reason, DAEMON, now, tell=tell)
            words = final.serial or "nothing was minted"
            entry = JournalEntry(now, device.device_id, DAEMON, "wind-up", "done", words, serial=final.serial)
            tx.journal.append(entry)
            return entry

        self._events.publish(await self._store.write(work))
        return None


class _Unacceptable(Exception):
    """Carries what the CA minted, so that it is on record though it is never used."""

    def __init__(self, error: CertificateUnacceptable, kept: Credential) -> None:
        super().__init__(error.message)
        self.error = error
        self.kept = kept


def _with_certificate(credential: Credential, issued: Issued) -> Credential:
    certificate = issued.certificate
    return replace(
        credential,
        certificate=certificate.public_bytes(Encoding.DER),
        chain=tuple(each.public_bytes(Encoding.DER) for each in issued.chain),
        serial=certificates.serial_hex(certificate),
        thumbprint=certificates.thumbprint(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


_OUTCOMES = {
    Event.FAILED: "failed",
    Event.REJECTED: "failed",
    Event.UNREACHABLE: "failed",
    Event.UNCONFIGURED: "failed",
    Event.NEEDS_NEW_KEY: "failed",
    Event.EXPIRED: "failed",
    Event.WORKING: "waiting",
    Event.DEFERRED: "waiting",
}


def _entry(credential: Credential, action: Action, event: Event, detail: str, now: datetime) -> JournalEntry:
    outcome = _OUTCOMES.get(event, "done")
    return JournalEntry(now, credential.device_id, DAEMON, str(action), outcome, detail, serial=credential.serial)
