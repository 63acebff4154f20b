"""Carries out what ``decision`` says, and answers: one call for a batch of messages, as an event hub hands it over."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ...errors import GatewayError, Internal
from .. import answers, report
from .. import identity as identities
from ..answers import Answer, Status
from ..base import HubIdentity
from . import decision, message
from .decision import Act, Verdict
from .message import Ignored, Request

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8


class Registry(Protocol):
    """What the responder needs of ``registry.HubRegistry``."""

    async def get(self, device_id: str) -> HubIdentity | None: ...

    async def converge(
        self, device_id: str, change: Callable[[HubIdentity | None], dict[str, Any] | None]
    ) -> HubIdentity | None: ...


class Twins(Protocol):
    async def desired(self, device_id: str) -> dict[str, Any] | None: ...
    async def merge(self, device_id: str, patch: dict[str, Any]) -> bool: ...


class Recheck(Protocol):
    async def is_revoked(self, request: Request) -> bool: ...
    async def fault_of_pin(self, request: Request) -> str: ...


@dataclass(frozen=True, slots=True)
class Message:
    """As message routing hands it on."""

    system: Mapping[str, Any]
    """System properties: what the hub says. Never the application's, which the device writes."""
    body: Any
    """JSON."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one message."""

    request: Request | None
    """None when it was none."""
    verdict: Verdict
    answer: Answer | None = None
    error: GatewayError | None = None
    """The hub could not be asked, or not told: the message has to come again."""


class Responder:
    def __init__(
        self,
        registry: Registry,
        twins: Twins,
        recheck: Recheck | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """With ``recheck`` a gateway is believed about others' devices as well, where the CA bears it out; and its own
        identity is given to new hardware."""
        self._registry = registry
        self._twins = twins
        self._recheck = recheck
        self._now = now
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def handle(self, messages: Iterable[Message]) -> list[Outcome]:
        """Act on each and answer; never raises for what a message holds. In the order of the messages."""
        requests = [_read(message) for message in messages]
        speakers = _Once(self._registry.get)
        # The same request may be there twice, and two of them at a time would only be in each other's way.
        by_device: defaultdict[str, list[Request]] = defaultdict(list)
        for each in dict.fromkeys(request for request in requests if isinstance(request, Request)):
            by_device[each.device_id].append(each)
        done: dict[Request, Outcome] = {}

        async def in_order(said: list[Request]) -> None:
            # What is said last of a device holds: an identity is not created after its certificate was revoked.
            for request in said:
                done[request] = await self._act(request, speakers)

        await asyncio.gather(*(in_order(said) for said in by_device.values()))
        lost = await self._tell(outcome for outcome in done.values() if outcome.answer is not None)
        outcomes = []
        for request in requests:
            outcome = done[request] if isinstance(request, Request) else Outcome(None, request)
            if outcome.request is not None and (error := lost.get(outcome.request.speaker)) is not None:
                outcome = Outcome(outcome.request, outcome.verdict, outcome.answer, error)
            _note(outcome)
            outcomes.append(outcome)
        return outcomes

    async def _act(self, request: Request, speakers: _Once) -> Outcome:
        verdict = Verdict(Act.IGNORE)
        try:
            async with self._room:
                at_ca = False
                fault = await self._fault_of_own_pin(request)
                speaker = None if request.is_own else await speakers.get(request.speaker)

                def change(device: HubIdentity | None) -> dict[str, Any] | None:
                    # Decided on the very version that the write replaces.
                    nonlocal verdict
                    own = device if request.is_own else speaker
                    verdict = decision.judge(request, own, device, self._now(), revoked_at_ca=at_ca, fault=fault)
                    if verdict.act is Act.DISABLE and device is not None:
                        return identities.disabled(
                            device, f"certificate {request.serial[:40]} revoked: {request.reason}"
                        )
                    if verdict.act is Act.CREATE and speaker is not None:
                        return identities.new(request.device_id, parent=speaker.own_scope)
                    if verdict.act is Act.PIN:
                        parent = speaker.own_scope if speaker is not None else ""
                        document = device.raw if device is not None else identities.new(request.device_id, parent)
                        return identities.pinned(document, decision.pin_of(request))
                    if verdict.act is Act.UNPIN and device is not None:
                        return identities.unpinned(device.raw)
                    return None

                found = await self._registry.converge(request.device_id, change)
                at_ca = verdict.status is Status.REFUSED and await self._is_revoked_at_ca(request)
                if at_ca:
                    found = await self._registry.converge(request.device_id, change)
                first = verdict
                if first.act in (Act.DISABLE, Act.CREATE, Act.PIN, Act.UNPIN):
                    # What was written is not what is: read it back.
                    found = await self._registry.converge(request.device_id, change)
        except GatewayError as error:
            return Outcome(request, verdict, error=error)
        except Exception as error:
            log.exception("%s of %s failed unexpectedly", request.kind, request.device_id)
            return Outcome(request, verdict, error=Internal(f"{request.kind} failed: {type(error).__name__}."))
        if verdict.act is Act.IGNORE or verdict.status is None:
            return Outcome(request, verdict)
        answer = Answer(
            kind=request.kind,
            device_id=request.device_id,
            serial=request.serial,
            status=verdict.status,
            etag=found.etag if found is not None else "",
            detail=verdict.detail,
            at=self._now().isoformat(timespec="milliseconds"),
        )
        return Outcome(request, first, answer)

    async def _is_revoked_at_ca(self, request: Request) -> bool:
        if self._recheck is None or request.kind != report.REVOCATION:
            return False
        return await self._recheck.is_revoked(request)

    async def _fault_of_own_pin(self, request: Request) -> str:
        """For ``decision.judge``. What names no version of the identity changes nothing, and is not looked into."""
        if not request.is_own or request.kind != report.PIN or not request.etag:
            return ""
        if self._recheck is None:
            return "this responder has no list of the CA's by which to tell the new hardware from the old"
        return await self._recheck.fault_of_pin(request)

    async def _tell(self, outcomes: Iterable[Outcome]) -> dict[str, GatewayError]:
        """Answer each speaker, in one write for all its messages. Returns whom that failed for."""
        by_speaker: defaultdict[str, list[Answer]] = defaultdict(list)
        for outcome in outcomes:
            assert outcome.request is not None
            assert outcome.answer is not None
            by_speaker[outcome.request.speaker].append(outcome.answer)
        lost: dict[str, GatewayError] = {}
        for speaker, new in by_speaker.items():
            try:
                desired = await self._twins.desired(speaker)
                if desired is None or not await self._twins.merge(speaker, answers.patch(answers.of(desired), new)):
                    log.info("%s is disabled and cannot be answered: that the hub refuses it is its answer", speaker)
            except GatewayError as error:
                lost[speaker] = error
        return lost


class _Once:
    """Reads each speaker's identity once a batch."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read
        self._reading: dict[str, asyncio.Task[HubIdentity | None]] = {}

    async def get(self, device_id: str) -> HubIdentity | None:
        if device_id not in self._reading:
            self._reading[device_id] = asyncio.ensure_future(self._read(device_id))
        return await self._reading[device_id]


def from_event(body: bytes, iothub_metadata: Mapping[str, str] | None) -> Message:
    """An event as Azure Functions hands it over where it takes many at a time: the metadata are the event's system
    properties, without their prefix. Whatever it holds is a message, if only one to be ignored."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    return Message({f"iothub-{name}": value for name, value in (iothub_metadata or {}).items()}, document)


def _read(each: Message) -> Request | Verdict:
    try:
        return message.read(each.system, each.body)
    except Ignored as reason:
        return Verdict(Act.IGNORE, detail=str(reason))


def _note(outcome: Outcome) -> None:
    request, verdict = outcome.request, outcome.verdict
    if request is None:
        log.warning("ignored: %s", verdict.detail)
        return
    said = f"{request.kind} of {request.device_id}, serial {request.serial}, by {request.speaker}"
    if outcome.error is not None:
        log.error("%s: not done: %s", said, outcome.error)
    elif verdict.act is Act.IGNORE:
        log.warning("%s: ignored: %s", said, verdict.detail)
    elif verdict.status is Status.REFUSED:
        log.warning("%s: refused: %s", said, verdict.detail)
    else:
        log.info("%s: %s, answered %s", said, verdict.act, outcome.answer and outcome.answer.status)
