"""The three ways (``base.Way``) by which the hub comes to shut a revoked certificate out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from ..config import UpstreamSettings
from ..core.model import UpstreamWay
from ..errors import HubConflict, HubRefused, HubRejected, PinLost, ResponderRefused, ResponderSilent
from . import report
from .answers import CLOSED, Answer, Answers, Status
from .base import Link, LinkState, Order, Pinning, Registry, Waiting, Way

_LOOK_FIRST: Final = 0.2
_LOOK_AGAIN: Final = 2.0
"""Seconds between two looks at what somebody else is to bring about."""
_ETAGS_TRIED: Final = 3
_PATIENCE: Final = 10.0
"""Seconds that a leaf's enrollment waits for the responder; after that it is tried again, as any step is."""


def chosen(
    settings: UpstreamSettings,
    *,
    gateway_id: str,
    registry: Registry,
    link: Link,
    answers: Answers,
    now: Callable[[], datetime],
) -> Way:
    """The way that the configuration names."""

    def way(name: UpstreamWay | None) -> Way:
        if name is UpstreamWay.REGISTRY:
            return RegistryWay(registry, gateway_id)
        return ReportWay(link, answers, gateway_id, settings.deadline)

    if settings.way is UpstreamWay.CA:
        return CaWay(way(settings.fallback), now, settings.deadline)
    return way(settings.way)


class RegistryWay:
    """The gateway does it in the hub's registry."""

    reports_first = False

    def shuts_by_pin(self, device_id: str) -> bool:
        return False

    def __init__(self, registry: Registry, gateway_id: str) -> None:
        self._registry = registry
        self._gateway_id = gateway_id
        self._scope = ""

    async def ensure(self, device_id: str, serial: str) -> None:
        if device_id == self._gateway_id:
            identity = await self._registry.ensure(device_id, edge=True)
        else:
            identity = await self._registry.ensure(device_id, parent=await self._own_scope())
        if not identity.enabled:
            why = identity.status_reason or "no reason given"
            raise HubRefused(f"{device_id} exists in the hub and is disabled there ({why}).", device=device_id)

    async def _own_scope(self) -> str:
        """Empty when the gateway's identity has none: then the leaf is nobody's child, which this way can do with."""
        if not self._scope:
            own = await self._registry.get(self._gateway_id)
            self._scope = own.own_scope if own is not None else ""
        return self._scope

    async def disable(self, order: Order) -> str:
        reason = f"certificate {order.serial[:40]} revoked: {order.reason}"
        identity = await self._registry.disable(order.device_id, reason, order.report["thumbprint"])
        return "no such identity in the hub" if identity is None else f"etag {identity.etag}"

    async def verify(self, order: Order) -> str:
        identity = await self._registry.get(order.device_id)
        if identity is None:
            return "read back: no such identity in the hub"
        if identity.lets_in(order.report["thumbprint"]):
            raise HubRejected(f"{order.device_id} is enabled in the hub.", device=order.device_id)
        how = "pinned to another certificate" if identity.enabled else "disabled"
        return f"read back: {how}, etag {identity.etag}"

    async def keep_out(self, device_id: str, reason: str) -> str:
        await self._registry.disable(device_id, reason)
        identity = await self._registry.get(device_id)
        if identity is None:
            return "no such identity in the hub yet"
        if identity.enabled:
            raise HubConflict(f"{device_id} was enabled by somebody else.", device=device_id)
        return f"read back: disabled, etag {identity.etag}"

    async def pin(self, pin: Pinning) -> str:
        parent = "" if pin.device_id == self._gateway_id else await self._own_scope()
        await self._registry.pin(pin, parent=parent)
        identity = await self._registry.get(pin.device_id)
        if identity is None:
            raise HubRejected(f"{pin.device_id} does not exist in the hub.", device=pin.device_id)
        if not identity.is_pinned(pin):
            why = identity.status_reason or "no reason given"
            raise HubConflict(
                f"{pin.device_id} was changed by somebody else after it had been pinned ({why}).", device=pin.device_id
            )
        return f"read back: pinned, etag {identity.etag}"

    async def check_pin(self, device_id: str, ours: frozenset[str]) -> None:
        identity = await self._registry.get(device_id)
        if identity is None or identity.pinned_to is None or not identity.pinned_to <= ours:
            raise _lost(device_id)

    async def unpin(self, device_id: str, ours: frozenset[str]) -> str:
        await self._registry.unpin(device_id, ours)
        identity = await self._registry.get(device_id)
        if identity is None:
            return "no such identity in the hub"
        if identity.pinned_to is not None:
            return f"left as somebody else has pinned it, etag {identity.etag}"
        return f"read back: {identity.authentication_type}, etag {identity.etag}"


class ReportWay:
    """The gateway reports, and a responder in the cloud does it and answers. No rights on the hub are needed.

    The first report is the outbox's. Its answer comes as a desired property; when it stays away for ``deadline``
    seconds the report is sent again.
    """

    reports_first = True

    def __init__(self, link: Link, answers: Answers, gateway_id: str, deadline: float) -> None:
        self._link = link
        self._answers = answers
        self._gateway_id = gateway_id
        self._deadline = deadline

    def shuts_by_pin(self, device_id: str) -> bool:
        return device_id == self._gateway_id

    async def ensure(self, device_id: str, serial: str) -> None:
        if device_id == self._gateway_id:
            # Without an identity it cannot say anything, and only a person can change that.
            raise HubRefused(
                f"The hub does not let {device_id} in: its identity has to be created there, as an IoT Edge device "
                "that authenticates with certificates of a CA, and be enabled.",
                device=device_id,
            )
        kind = report.ENROLLMENT
        answer = self._answers.get(kind, device_id, serial)
        if answer is None:
            body = report.enrollment_report(device_id, serial)
            await self._link.send(body, message_id=f"{kind}:{device_id}:{serial}", kind=kind)
            answer = await self._answers.wait(kind, device_id, serial, min(self._deadline, _PATIENCE))
        if answer is None:
            raise ResponderSilent(f"The responder has not answered about {device_id} yet.", device=device_id)
        if answer.status is Status.PRESENT:
            return
        self._answers.forget(answer)  # so that it is asked anew
        if answer.status is Status.DISABLED:
            raise HubRefused(f"{device_id} exists in the hub and is disabled there.", device=device_id)
        raise _refused(answer)

    async def disable(self, order: Order) -> str | Waiting:
        if order.own_end:
            return await self._watch_own_end(order)
        answer = self._answers.get(report.REVOCATION, order.device_id, order.serial)
        if answer is not None and answer.status is Status.STALE:
            # It has expired meanwhile, so that the hub lets it in no more; but it is the device that is to be disabled.
            body = dict(order.report)
            answer = await self._bring_about(report.REVOCATION, order.device_id, order.serial, body, answer.etag)
            self._answers.keep(answer)
        if answer is not None and answer.status in CLOSED:
            return _evidence(answer)
        if answer is not None:
            self._answers.forget(answer)
            raise _refused(answer)
        if not order.attempts:
            return Waiting(self._deadline, "reported; waiting for the responder's answer")
        await self._report_again(order)
        raise ResponderSilent(
            f"The responder has not answered about {order.device_id} within {self._deadline:g} seconds; asked again.",
            device=order.device_id,
            retry_after=self._deadline,
        )

    verify = disable
    """The responder answers when it has read the identity back: its answer is the proof of both."""

    async def keep_out(self, device_id: str, reason: str) -> str:
        """The responder has answered for each certificate. Should somebody enable the identity again before the new
        hardware is there: the write that pins it shuts the old certificates out in any case."""
        if self.shuts_by_pin(device_id):
            return "revoked at the CA; the write that pins the new certificate shuts them out of the hub"
        return "answered by the responder for each certificate"

    async def pin(self, pin: Pinning) -> str:
        answer = await self._bring_about(report.PIN, pin.device_id, pin.serial, report.pin_report(pin))
        if answer.status is not Status.PINNED:
            raise HubRejected(
                f"{pin.device_id} was not pinned in the hub: it is {answer.status}.", device=pin.device_id
            )
        return _evidence(answer)

    async def check_pin(self, device_id: str, ours: frozenset[str]) -> None:
        # What names no version of the identity changes nothing: "stale" says that there would be something to let go.
        answer = await self._ask(report.UNPIN, device_id, "", report.unpin_report(device_id, ours), "")
        if answer.status is not Status.STALE:
            raise _lost(device_id)

    async def unpin(self, device_id: str, ours: frozenset[str]) -> str:
        return _evidence(await self._bring_about(report.UNPIN, device_id, "", report.unpin_report(device_id, ours)))

    async def _bring_about(
        self, kind: str, device_id: str, serial: str, body: dict[str, Any], etag: str = ""
    ) -> Answer:
        """Ask for a change of the identity as it is now, known by its etag, so that a message that comes late or twice
        changes nothing. The first time the etag is not known, and the answer tells it."""
        for _ in range(_ETAGS_TRIED):
            answer = await self._ask(kind, device_id, serial, body, etag)
            if answer.status is not Status.STALE:
                return answer
            etag = answer.etag
        raise HubConflict(f"{device_id} is being changed by somebody else, again and again.", device=device_id)

    async def _ask(self, kind: str, device_id: str, serial: str, body: dict[str, Any], etag: str) -> Answer:
        message_id = f"{kind}:{device_id}:{serial}:{hashlib.sha256(etag.encode()).hexdigest()[:8]}"
        if (known := self._answers.get(kind, device_id, serial)) is not None:
            self._answers.forget(known)  # to an earlier question
        await self._link.send({**body, "etag": etag}, message_id=message_id, kind=kind)
        answer = await self._answers.wait(kind, device_id, serial, min(self._deadline, _PATIENCE))
        if answer is None:
            raise ResponderSilent(f"The responder has not answered about {device_id} yet.", device=device_id)
        self._answers.forget(answer)  # it is about the identity as it was
        if answer.status is Status.REFUSED:
            raise _refused(answer)
        return answer

    async def _watch_own_end(self, order: Order) -> str | Waiting:
        """A disabled gateway cannot be answered any more. That the hub refuses its certificate is the answer."""
        status = self._link.status()
        if status.state is LinkState.REFUSED:
            return f"the hub refuses the gateway: {status.detail}"
        if order.attempts and order.attempts % max(round(self._deadline / _LOOK_AGAIN), 1) == 0:
            await self._report_again(order)
        return Waiting(_LOOK_AGAIN, "reported; waiting for the hub to shut the gateway out")

    async def _report_again(self, order: Order) -> None:
        message_id = f"{report.REVOCATION}:{order.device_id}:{order.serial}:{order.attempts}"
        await self._link.send(order.report, message_id=message_id, kind=report.REVOCATION)


class CaWay:
    """The CA's own link to the hub does it. What it has done is looked at by another way, which is also gone when
    ``deadline`` seconds after the revocation became known nothing has come of it."""

    def __init__(self, other: Way, now: Callable[[], datetime], deadline: float) -> None:
        self.reports_first = other.reports_first
        self.shuts_by_pin = other.shuts_by_pin
        self.check_pin = other.check_pin
        self._other = other
        self._now = now
        self._deadline = timedelta(seconds=deadline)

    async def ensure(self, device_id: str, serial: str) -> None:
        await self._other.ensure(device_id, serial)

    async def disable(self, order: Order) -> str | Waiting:
        remaining = order.known_at + self._deadline - self._now()
        if remaining <= timedelta(0):
            return await self._other.disable(order)
        pause = min(_LOOK_FIRST * 2.0 ** min(order.attempts, 10), _LOOK_AGAIN, remaining.total_seconds())
        waiting = Waiting(pause, "waiting for the CA's link to the hub")
        try:
            seen = await self._other.verify(replace(order, attempts=0))  # a look, and no second request
        except HubRejected:
            return waiting
        return f"by the CA's link, or somebody else: {seen}" if isinstance(seen, str) else waiting

    async def verify(self, order: Order) -> str | Waiting:
        return await self._other.verify(order)

    async def keep_out(self, device_id: str, reason: str) -> str:
        return await self._other.keep_out(device_id, reason)

    async def pin(self, pin: Pinning) -> str:
        return await self._other.pin(pin)

    async def unpin(self, device_id: str, ours: frozenset[str]) -> str:
        return await self._other.unpin(device_id, ours)


def _evidence(answer: Answer) -> str:
    match answer.status:
        case Status.ABSENT:
            return "responder: no such identity in the hub"
        case Status.SHUT_OUT:
            return f"responder read back: pinned to another certificate, etag {answer.etag}"
        case _:
            return f"responder read back: {answer.status}, etag {answer.etag}"


def _lost(device_id: str) -> PinLost:
    return PinLost(f"The hub's identity of {device_id} is not pinned to its certificates any more.", device=device_id)


def _refused(answer: Answer) -> ResponderRefused:
    return ResponderRefused(
        f"The responder does not act on {answer.device_id} for this gateway: {answer.detail or 'no reason given'}.",
        device=answer.device_id,
    )
