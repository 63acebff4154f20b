"""What to do about a request: values in, a verdict out.

The rule of trust: a gateway speaks for itself and for its own children, which are those whose parent scope in the
registry is the gateway's scope. A report about anybody else is refused, unless the CA itself is seen to have revoked
that certificate of that device, and not merely as superseded: then the device has a better one, and is healthy.

The rule of a gateway's own pin: whoever holds the old hardware's key is stamped as the same device as the new hardware.
So it is not the speaker who is believed, but the CA (``recheck``): the certificate to be let in is one that the CA has
issued for this name and has not revoked, and each that it replaces is revoked and older. Whoever asks brings about the
pin of the rightful certificate, or nothing.

The rule of harm: a revoked certificate must not get in, and a healthy device must not be shut out. A report may come
late, again, or years after the device was given new hardware; so nothing is done where the identity is pinned to others
than the certificate that it names, and one about a certificate that has expired counts for one version of the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .. import report
from ..answers import Status
from ..base import HubIdentity, Pinning
from .message import Request


class Act(StrEnum):
    DISABLE = "disable"
    CREATE = "create"
    PIN = "pin"
    UNPIN = "unpin"
    ANSWER = "answer"
    """Nothing is to be done; the speaker is told so."""
    IGNORE = "ignore"
    """Not even an answer: it is logged."""


@dataclass(frozen=True, slots=True)
class Verdict:
    act: Act
    status: Status | None = None
    """Of the answer to an ANSWER; the others' depends on what comes of it."""
    detail: str = ""


def judge(
    request: Request,
    speaker: HubIdentity | None,
    device: HubIdentity | None,
    now: datetime,
    *,
    revoked_at_ca: bool = False,
    fault: str = "",
) -> Verdict:
    """``speaker`` and ``device`` as the registry has them now; the same one when a gateway speaks for itself.
    ``revoked_at_ca``: the CA was seen to have revoked this certificate, which is one of this device's. ``fault``: why
    the CA does not bear out what a gateway asks for its own pin; empty when it does."""
    if speaker is None:
        return Verdict(Act.IGNORE, detail=f"{request.speaker} is not in the registry any more")
    if speaker.generation_id != request.generation_id:
        return Verdict(Act.IGNORE, detail=f"{request.speaker} was deleted and made anew since it said so")
    if request.kind == report.ENROLLMENT:
        return _enrollment(request, speaker, device)
    if request.kind in (report.PIN, report.UNPIN):
        return _pin(request, speaker, device, fault)
    if device is None:
        return Verdict(Act.ANSWER, Status.ABSENT)
    if not (request.is_own or is_child(device, speaker) or revoked_at_ca):
        return _not_his(request, speaker)
    return _revocation(request, device, now)


def is_child(device: HubIdentity, gateway: HubIdentity) -> bool:
    return bool(gateway.own_scope) and gateway.own_scope in (device.scope, *device.parents)


def _not_his(request: Request, speaker: HubIdentity) -> Verdict:
    words = f"{request.device_id} is not a child of {request.speaker}"
    if speaker.own_scope:  # a gateway, which may be an honest one that somebody has to give this child
        return Verdict(Act.ANSWER, Status.REFUSED, words)
    return Verdict(Act.IGNORE, detail=words)


def _enrollment(request: Request, speaker: HubIdentity, device: HubIdentity | None) -> Verdict:
    if not speaker.own_scope:
        return Verdict(Act.IGNORE, detail=f"{request.speaker} is no gateway: its identity has no scope of its own")
    if request.is_own:
        return Verdict(Act.IGNORE, detail=f"{request.speaker} is there already")
    if device is None:
        return Verdict(Act.CREATE)
    if not is_child(device, speaker):
        return _not_his(request, speaker)
    return Verdict(Act.ANSWER, Status.PRESENT if device.enabled else Status.DISABLED)


def _pin(request: Request, speaker: HubIdentity, device: HubIdentity | None, fault: str) -> Verdict:
    """Only of one's own and one's children's. A message may come late or again, so it counts for one version of the
    identity."""
    if not speaker.own_scope:
        return Verdict(Act.IGNORE, detail=f"{request.speaker} is no gateway: its identity has no scope of its own")
    if device is None:
        return Verdict(Act.PIN) if request.enable else Verdict(Act.ANSWER, Status.ABSENT)
    if not (request.is_own or is_child(device, speaker)):
        return _not_his(request, speaker)
    if request.kind == report.UNPIN:
        if device.pinned_to is None or not device.pinned_to <= frozenset(request.thumbprints):
            return Verdict(Act.ANSWER, Status.UNPINNED)
    elif device.is_pinned(pin_of(request)):
        return Verdict(Act.ANSWER, Status.PINNED)
    if request.etag != device.etag:
        return Verdict(Act.ANSWER, Status.STALE)
    if request.kind == report.UNPIN:
        return Verdict(Act.UNPIN)
    if request.is_own and (why := fault or _own_fault(request, device)):
        return Verdict(Act.ANSWER, Status.REFUSED, why)
    return Verdict(Act.PIN)


def _own_fault(request: Request, device: HubIdentity) -> str:
    """Once it is pinned, whoever can ask at all holds a key that is let in; he may place the next certificate beside
    the present one. Before, a pin is there to shut a revoked certificate out, and without one it would only serve to
    keep the next hardware out."""
    if not set(request.thumbprints) <= {request.thumbprint, *(device.pinned_to or ())}:
        return "it would let in another certificate than the one that it brings"
    if device.pinned_to is None and not request.replaced:
        return "it names no revoked certificate that the pin would shut out"
    return ""


def pin_of(request: Request) -> Pinning:
    primary, secondary = request.thumbprints
    return Pinning(request.device_id, request.serial, primary, secondary, request.enable)


def _revocation(request: Request, device: HubIdentity, now: datetime) -> Verdict:
    if not device.enabled:
        return Verdict(Act.ANSWER, Status.DISABLED)
    if not device.lets_in(request.thumbprint):
        return Verdict(Act.ANSWER, Status.SHUT_OUT, "the identity is pinned to another certificate")
    # At once, without a margin for clocks: the gateway lifts a pin soon after, and a report that comes late must not
    # shut the new hardware out. One that means the identity as it is asks again with its etag.
    expired = request.not_after is not None and request.not_after < now
    if expired and request.etag != device.etag:
        return Verdict(Act.ANSWER, Status.STALE, "the certificate has expired")
    return Verdict(Act.DISABLE)
