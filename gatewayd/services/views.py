"""What an administrator is shown, as docs/json.md defines it. Pure: records in, plain data out."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from ..ca.sparing import Spared
from ..core import listing
from ..core import replacement as swap
from ..core import revocation as table
from ..core.clock import Verdict
from ..core.doctor import Finding
from ..core.inventory import Claim
from ..core.listing import Overview
from ..core.model import (
    Binding,
    Credential,
    JournalEntry,
    Milestone,
    MilestoneProgress,
    Replacement,
    Revocation,
    Standing,
)
from ..errors import (
    CertificateExpired,
    GatewayError,
    HookFailed,
    KeyMissing,
    PinMissing,
    PinRefused,
    RegistrarCertificateEnds,
    ReplacementWaiting,
    StoreBroken,
    TokenNotFound,
    TokenUnusable,
    all_errors,
)
from ..keys.base import PinTries, TokenObject, TokenState, TokenStatus
from ..upstream.base import LinkStatus
from .clock import ClockStatus
from .health import Proven

Data = dict[str, Any]

CLOSED_SHOWN = 10


def when(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else None


def present(data: Data) -> Data:
    """Without the keys whose value is not known."""
    return {key: value for key, value in data.items() if value is not None}


def device(it: Overview, now: datetime) -> Data:
    live: Data = {}
    if it.live is not None:
        live = {
            "generation": it.live.generation,
            "serial": it.live.serial,
            "thumbprint": it.live.thumbprint,
            "not_before": when(it.live.not_before),
            "not_after": when(it.live.not_after),
            "renew_at": when(it.live.renew_at),
            "key_algorithm": str(it.live.algorithm) if it.live.algorithm else None,
        }
    return present(
        {
            "device_id": it.device.device_id,
            "kind": str(it.device.kind),
            "state": str(listing.state_of(it, now)),
            "hub_state": str(listing.hub_state_of(it)),
            "sans": [str(san) for san in it.device.sans],
            "created_at": when(it.device.created_at),
            **live,
        }
    )


def least_size(row: Data) -> int:
    """Bytes that a row of a list takes on the bus at least, as GVariant lays it out: a value begins at a multiple of 8,
    and so does what follows it; beside the text there are its end, its type with a mark, and two offsets."""
    texts = ((len(key), len(value) if isinstance(value, str) else 0) for key, value in row.items())
    return sum(_to_eight(_to_eight(key + 1) + value + 4) + 1 for key, value in texts) - 7


def _to_eight(size: int) -> int:
    return -(-size // 8) * 8


def binding(record: Binding | None) -> Data | None:
    if record is None:
        return None
    return {"manufacturer": record.manufacturer, "serial": record.serial, "void": record.void}


def credential(record: Credential) -> Data:
    return present(
        {
            "generation": record.generation,
            "state": str(record.state),
            "created_at": when(record.created_at),
            "updated_at": when(record.updated_at),
            "key_algorithm": str(record.key.algorithm) if record.key else None,
            "serial": record.serial,
            "thumbprint": record.thumbprint,
            "not_before": when(record.not_before),
            "not_after": when(record.not_after),
            "renew_at": when(record.renew_at),
            **progress_of(record),
        }
    )


def progress_of(record: Credential) -> Data:
    return present(
        {
            "attempts": record.attempts or None,
            "next_attempt_at": when(record.next_attempt_at),
            "last_error": record.last_error,
        }
    )


def revocation(record: Revocation) -> Data:
    return {
        "device_id": record.device_id,
        "serial": record.serial,
        "reason": str(record.reason),
        "origin": record.origin,
        "known_at": when(record.known_at),
        "open": not table.is_closed(record),
        "scope": str(record.scope),
        "milestones": [
            _milestone(each, record.progress.get(each, MilestoneProgress())) for each in table.EXPECTED[record.scope]
        ],
    }


def _milestone(milestone: Milestone, progress: MilestoneProgress) -> Data:
    return present(
        {
            "name": str(milestone),
            "attempts": progress.attempts,
            "done_at": when(progress.done_at),
            "next_attempt_at": when(progress.next_attempt_at),
            "last_error": progress.last_error,
            "evidence": progress.evidence,
        }
    )


def replacement(record: Replacement, revocations: Iterable[Revocation]) -> Data:
    return present(
        {
            "state": str(record.state),
            "reason": str(record.reason),
            "origin": record.origin,
            "lift_at": when(record.lift_at),
            "ended_at": when(record.ended_at),
            "attempts": record.attempts or None,
            "next_attempt_at": when(record.next_attempt_at),
            "last_error": record.last_error,
            "steps": [
                present({"name": str(name), "done_at": when(done_at)})
                for name, done_at in swap.steps(record, revocations).items()
            ],
        }
    )


def history(entries: Iterable[JournalEntry]) -> list[Data]:
    return [{"at": when(e.at), "who": e.who, "what": e.what, "outcome": e.outcome, "detail": e.detail} for e in entries]


def token(status: TokenStatus) -> Data:
    return present(
        {
            "state": str(status.state),
            "label": status.label or None,
            "serial": status.serial or None,
            "model": status.model or None,
            "manufacturer": status.manufacturer or None,
            "module": status.module,
            "detail": status.detail or None,
            "since": when(status.since),
            "pin_tries": None if status.pin_tries is PinTries.UNKNOWN else str(status.pin_tries),
            "pin_tries_left": status.pin_tries_left,
            "locked_until": when(status.locked_until),
            "algorithms": [str(each) for each in status.algorithms] or None,
        }
    )


def token_object(token_label: str, item: TokenObject, claim: Claim) -> Data:
    return present(
        {
            "token": token_label,
            "kind": item.kind,
            "id": item.id.hex(),
            "label": item.label,
            "algorithm": str(item.algorithm) if item.algorithm else None,
            "role": str(claim.role),
            "reason": claim.reason,
            "collected_from": when(claim.collect_from),
            **(_protection(item) if item.kind == "private-key" else {}),
        }
    )


def _protection(item: TokenObject) -> Data:
    return {"sensitive": item.sensitive, "extractable": item.extractable, "local": item.local}


_TRIES = {
    PinTries.FEWER: "The token says that fewer tries than at first are left, and not how many.",
    PinTries.ONE: "One try is left before the token locks.",
    PinTries.NONE: "The token is locked.",
    PinTries.UNKNOWN: "How many tries are left the token does not say.",
}


def _tries(status: TokenStatus) -> str:
    if status.locked_until is not None:
        return f"The token is locked, until {when(status.locked_until)} at the latest if it has power till then."
    if status.pin_tries_left is not None:
        return f"{status.pin_tries_left} tries are left before the token locks."
    return _TRIES[status.pin_tries]


_TOKEN_WAITS_FOR = {
    TokenState.ABSENT: TokenNotFound,
    TokenState.UNUSABLE: TokenUnusable,
    TokenState.KEY_MISSING: KeyMissing,
}


def token_waiting(status: TokenStatus) -> Data | None:
    """When the token waits for a person."""
    if status.state is TokenState.PIN_REFUSED:
        return waiting(f"PIN refused: {status.detail} {_tries(status)}", PinRefused)
    if status.state is TokenState.PIN_MISSING:
        return waiting("No PIN for the token was given.", PinMissing)
    if error := _TOKEN_WAITS_FOR.get(status.state):
        return waiting(status.detail, error)
    return None


def clock(status: ClockStatus) -> Data:
    return {
        "sane": status.verdict is Verdict.SANE,
        "state": str(status.verdict),
        "synchronised": status.synchronised,
        "now": when(status.now),
        "system": when(status.system),
        "floor": when(status.floor),
    }


def peer(proven: Proven) -> Data:
    return present(
        {
            "last_success_at": when(proven.last_success_at),
            "last_error": proven.last_error,
            "last_error_at": when(proven.last_error_at),
        }
    )


def spared(breaker: Spared | None, now: datetime) -> Data:
    """``left_alone_until`` while the breaker before the CA is open."""
    if breaker is None:
        return {}
    return {"failures": breaker.failures, "left_alone_until": when(now + timedelta(seconds=breaker.next_try))}


def link(status: LinkStatus) -> Data:
    return present(
        {
            "state": str(status.state),
            "since": when(status.since),
            "detail": status.detail or None,
            "serial": status.serial,
        }
    )


def enroll_url(est_url: str, device_id: str, code: str) -> str:
    """All that new hardware has to know, in one line for a QR: where to enroll, as whom, with which code (RFC 3986,
    userinfo)."""
    scheme, _, rest = est_url.partition("://")
    return f"{scheme}://{quote(device_id, safe='')}:{code}@{rest}"


def waiting_for_hardware(device_id: str, code_open_until: datetime | None) -> Data:
    """A swap that is ready for the technician."""
    code = f"the code is good until {when(code_open_until)}" if code_open_until else "its code has expired"
    return waiting(
        f"The old certificates are shut out; the new hardware has not enrolled ({code}).", ReplacementWaiting, device_id
    )


def waiting(what: str, error: type[GatewayError], device_id: str | None = None, remedy: str = "") -> Data:
    """``remedy``: when it can be said more exactly than the error does."""
    return present({"what": what, "device_id": device_id, "error": error.name(), "remedy": remedy or error.remedy})


EXPIRED_SHOWN = 20


def expired_waiting(gateway: Data, leaves: Iterable[tuple[str, datetime, bool]], count: int) -> list[Data]:
    """The devices that are out because their certificates are over, with the command that brings each back. The gateway
    comes back by itself where its CA allows that: it is here once that has failed. ``leaves``: the first EXPIRED_SHOWN
    of ``count``."""
    found: list[Data] = []
    if gateway["state"] == "expired" and "last_error" in gateway:
        what = (
            f"Its certificate expired at {gateway['not_after']}, and the CA has not given it a new one by itself yet."
        )
        remedy = "It is tried on; 'gatewayctl bootstrap' gets one at once."
        found.append(waiting(what, CertificateExpired, gateway["device_id"], remedy))
    for device_id, not_after, bound in leaves:
        way = "with its manufacturer's certificate, or with a code" if bound else "with a code"
        what = f"Its certificate expired at {when(not_after)}: it enrolls anew, {way}."
        command = f"gatewayctl device code {shlex.quote(device_id)}"
        found.append(waiting(what, CertificateExpired, device_id, f"'{command}' makes one."))
    if (more := count - EXPIRED_SHOWN) > 0:
        found.append(waiting(f"{more} more leaves have expired: 'gatewayctl device list'.", CertificateExpired))
    return found


def finding(it: Finding) -> Data:
    return present(
        {
            "area": str(it.area),
            "check": it.check,
            "verdict": str(it.verdict),
            "what": it.what,
            "remedy": it.remedy or None,
        }
    )


def hooks_waiting(hooks: Iterable[Data]) -> list[Data]:
    return [waiting(each["last_error"].partition(": ")[2], HookFailed) for each in hooks if each["state"] == "failed"]


def store_waiting(trouble: StoreBroken | None) -> list[Data]:
    return [] if trouble is None else [waiting(trouble.message, type(trouble))]


def registrar_waiting(registrar: dict[str, str]) -> list[Data]:
    """While there is a next certificate that Entra does not take yet."""
    if "next_not_after" not in registrar:
        return []
    what = f"The certificate that Entra knows the gateway by ends at {registrar['not_after']}; the next one is made."
    return [waiting(what, RegistrarCertificateEnds)]


def waiting_for_person(last_error: str | None, device_id: str) -> Data | None:
    """A recorded failure, if it is one that a person has to mend."""
    if last_error is None:
        return None
    name, _, sentence = last_error.partition(": ")
    error = all_errors().get(name)
    if error is None or error.fault != "operator":
        return None
    return waiting(sentence, error, device_id)


def counts(census: Iterable[tuple[Standing, int]]) -> Data:
    counted = dict.fromkeys(map(str, listing.Shown), 0)
    for it, count in census:
        counted[listing.state(it)] += count
    return counted
