"""Leaves enroll and re-enroll: the decision is core.enrollment's, the way to a certificate the engine's.

One transaction decides, consumes the code and writes the credential down, so that a refused request leaves nothing
behind and an accepted one is finished whatever happens to the connection, the daemon or the CA. A request is known by
its public key: the same key asks about the same credential, for as long as it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..core import enrollment as rules
from ..core import lifecycle
from ..core.enrollment import Enrolled, EnrollmentRequest, Origin, Pending, Refusal
from ..core.model import Credential, CredentialState, Device, JournalEntry
from ..core.renewal import RenewalPolicies, is_due, renew_at, retry_at
from ..errors import (
    DeviceRevoked,
    EnrollmentDenied,
    IssuerRejected,
    NotBootstrapped,
    TooManyRequests,
)
from ..store.base import Store, Tx
from . import asking, revoking
from .asking import Asker
from .clock import Clock, require
from .credentials import CredentialEngine
from .events import Events
from .generations import unfinished_of
from .turns import Turns

_COME_BACK = 5
"""Seconds, for a leaf whose certificate is on its way."""
_COME_BACK_LATEST = 300
_COME_BACK_ISSUED = 10
"""The latest for a first certificate that is here already and waits for the hub, or for an old one to be shut out: that
may come at any moment, and somebody may stand beside the device."""
_COME_BACK_RENEWAL = 3600
"""The latest for a leaf whose present certificate is still good while it waits for its turn."""
_EARLY = 10
_EARLY_WITHIN = timedelta(days=1)
"""So many new generations in so much time are enough for a leaf whose certificate is not due for renewal."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What the deciding transaction has settled."""

    credential: Credential
    entries: tuple[JournalEntry, ...] = ()


class Enrollments:
    """Implements leaf.base.Enroller."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        engine: CredentialEngine,
        turns: Turns,
        policies: RenewalPolicies,
        anchors: Callable[[], tuple[x509.Certificate, ...]],
        answer_within: float,
        hold: Callable[[], None],
        origin_of: Callable[[EnrollmentRequest, datetime], Origin | None] = lambda request, now: None,
    ) -> None:
        """``hold`` raises while nobody may be given a certificate; ``origin_of``: what a request's client certificate
        says if it is a manufacturer's."""
        self._store = store
        self._clock = clock
        self._events = events
        self._engine = engine
        self._turns = turns
        self.policies = policies
        self._anchors = anchors
        self._answer_within = answer_within
        self._hold = hold
        self._origin_of = origin_of

    async def anchors(self) -> tuple[bytes, ...]:
        known = self._anchors()
        if not known:
            raise NotBootstrapped("The CA's certificates are not known yet.")
        return tuple(each.public_bytes(Encoding.DER) for each in known)

    async def enroll(self, request: EnrollmentRequest) -> Enrolled | Pending:
        self._hold()
        await self.anchors()  # without them no certificate could be judged
        require(self._clock)  # whether a code or a certificate has expired cannot be said
        now = self._clock.now()
        origin = self._origin_of(request, now)
        admission = await self._store.write(lambda tx: self._admit(tx, request, origin, now))
        self._events.publish(*admission.entries)
        credential = admission.credential
        if credential.state in lifecycle.UNFINISHED and self._may_go(credential, now):
            credential = await self._drive(credential)
        return self._answer(credential)

    def _may_go(self, credential: Credential, now: datetime) -> bool:
        """A renewal goes to the CA when its turn comes; the loop sees to that if it is not now."""
        if self._engine.drives(credential) or credential.deadline is None:
            return True
        if credential.state in (CredentialState.ISSUED, CredentialState.ACCEPTING):
            return True
        return is_due(credential.next_attempt_at, now) and self._turns.at_once(credential)

    async def _drive(self, credential: Credential) -> Credential:
        """Wait for the engine, but no longer than a client should; the engine goes on behind."""
        task = self._engine.start(credential.device_id, credential.generation)
        done, _ = await asyncio.wait({task}, timeout=self._answer_within)
        return task.result().credential if done else credential

    def _answer(self, credential: Credential) -> Enrolled | Pending:
        if credential.state in lifecycle.USABLE and credential.certificate is not None:
            return Enrolled(credential.certificate)
        if credential.state is CredentialState.REJECTED:
            raise IssuerRejected(
                f"The CA refused the certificate of {credential.device_id}.", device=credential.device_id
            )
        if credential.state is CredentialState.REVOKED:
            raise DeviceRevoked(Refusal.REVOKED, device=credential.device_id)
        now = self._clock.now()
        wait: float = _COME_BACK
        if credential.next_attempt_at is not None:
            wait = (credential.next_attempt_at - now).total_seconds() + 1
        latest: float = _COME_BACK_LATEST
        if credential.deadline is not None and credential.deadline > now:
            latest = min((credential.deadline - now).total_seconds() / 100, _COME_BACK_RENEWAL)
            wait = max(wait, latest)
        elif credential.state in (CredentialState.ISSUED, CredentialState.ACCEPTING):
            latest = _COME_BACK_ISSUED
        return Pending(int(max(min(wait, latest), _COME_BACK)))

    def _admit(self, tx: Tx, request: EnrollmentRequest, origin: Origin | None, now: datetime) -> Admission:
        """Decide and write down, in one transaction. Raises a GatewayError, and then nothing was changed."""
        asker = asking.prove(tx, request, origin, now)
        device = asker.device
        refusal = rules.scope_refusal(device, request.csr)
        if refusal is Refusal.REVOKED:
            raise DeviceRevoked(refusal, device=device.device_id)
        if refusal is not None:
            raise EnrollmentDenied(refusal, device=device.device_id)
        if _was_revoked(tx, device, request):
            raise EnrollmentDenied(Refusal.REVOKED_KEY, device=device.device_id)
        if (known := self._same_request(tx, asker, request, now)) is not None:
            return Admission(known)
        asking.admit_use(tx, asker, now)
        if any(not revoking.is_given_up(tx, device, each.generation) for each in unfinished_of(tx, device.device_id)):
            raise TooManyRequests(
                f"Another request of {device.device_id} is under way.", device=device.device_id, retry_after=_COME_BACK
            )
        if asker.code is None:
            self._not_too_soon(tx, device, now)
            self._not_too_often(tx, device, now)
        return self._write_down(tx, asker, request, now)

    def _not_too_soon(self, tx: Tx, device: Device, now: datetime) -> None:
        """A leaf whose renewal the CA has refused asks again and again, each time for a new key perhaps: the CA is
        asked later and later. A code is different: behind it is a person who has seen to it."""
        rejected = 0
        latest: datetime | None = None
        for each in reversed(tx.credentials.all(device.device_id)):
            if each.state is not CredentialState.REJECTED:
                break
            rejected += 1
            latest = latest or each.updated_at
        if latest is not None and now < (again := retry_at(latest, rejected, 1.0)):
            raise IssuerRejected(
                f"The CA refused the certificate of {device.device_id}; it is asked again later.",
                device=device.device_id,
                retry_after=(again - now).total_seconds(),
            )

    def _not_too_often(self, tx: Tx, device: Device, now: datetime) -> None:
        """A leaf may have a new key before its time, but one that asks for another again and again, because it is
        broken or in wrong hands, must not have a certificate minted each time."""
        present = tx.credentials.current(device.device_id)
        if present is None or self._is_due(present, now):
            return
        begun = [each.created_at for each in tx.credentials.all(device.device_id)]
        lately = sorted(each for each in begun if each > now - _EARLY_WITHIN)
        if len(lately) >= _EARLY:
            raise TooManyRequests(
                f"{device.device_id} has renewed too often before its time.",
                device=device.device_id,
                retry_after=(lately[-_EARLY] + _EARLY_WITHIN - now).total_seconds(),
            )

    def _same_request(self, tx: Tx, asker: Asker, request: EnrollmentRequest, now: datetime) -> Credential | None:
        """The credential that a request for this key asks about. A renewal may keep the key: once the certificate is
        due for renewal it is a new request."""
        for each in reversed(tx.credentials.all(asker.device.device_id)):
            if each.public_key_sha256 != request.csr.public_key_sha256:
                continue
            if each.state in lifecycle.USABLE:
                return None if self._is_due(each, now) else each
            if each.state in lifecycle.UNFINISHED:
                return each
            return each if each.state is CredentialState.REJECTED and asker.code is not None else None
        return None

    def _is_due(self, credential: Credential, now: datetime) -> bool:
        assert credential.not_before is not None
        assert credential.not_after is not None
        policy = self.policies.of(credential.device_id)
        due = renew_at(credential.device_id, credential.not_before, credential.not_after, policy)
        return now >= due

    def _write_down(self, tx: Tx, asker: Asker, request: EnrollmentRequest, now: datetime) -> Admission:
        device_id = asker.device.device_id
        bound = asking.consume(tx, asker, request.csr.public_key_sha256)
        # Whoever comes without its present certificate has none that is of use: that does not wait for a turn.
        present = tx.credentials.current(device_id) if asker.holds_certificate else None
        credential = Credential(
            device_id=device_id,
            generation=tx.credentials.next_generation(device_id),
            state=CredentialState.KEYED,
            created_at=now,
            updated_at=now,
            deadline=present.not_after if present is not None else None,
            csr=request.csr.der,
            public_key_sha256=request.csr.public_key_sha256,
        )
        tx.credentials.add(credential)
        what = f"{request.operation} from {request.remote}"
        words = ", ".join(each for each in (request.csr.key_description, bound) if each)
        entry = JournalEntry(now, device_id, asker.who, what, "done", words)
        tx.journal.append(entry)
        return Admission(credential, (entry,))


def _was_revoked(tx: Tx, device: Device, request: EnrollmentRequest) -> bool:
    """Whoever has this key may be the one for whom it was revoked."""
    known = tx.credentials.by_public_key(device.device_id, request.csr.public_key_sha256)
    return known is not None and known.state is CredentialState.REVOKED
