"""What holds when two accounts of the same fleet meet: a backup, and the database that it is restored over.

One rule: what has gone further wins. A credential's life, a revocation's milestones and a swap only ever go forward, so
that of two accounts of one of them the later is simply the one further on, and the join of two accounts does not depend
on which of them is called the backup, nor on how often or in which order they are joined (commutative, associative,
idempotent). From that follows what a restore promises: what either side knows as revoked is revoked, no milestone is
undone, and the live generation is not older than either side's.

Two accounts can also contradict each other: the same generation with two keys. Then one of them was begun anew, and
there is no join (``Diverged``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from .model import (
    Credential,
    CredentialState,
    Device,
    DeviceState,
    Milestone,
    MilestoneProgress,
    Replacement,
    ReplacementState,
    Revocation,
    RevocationScope,
)

T = TypeVar("T")
K = TypeVar("K")

_LIFE: Final = tuple(CredentialState)
"""In the order of a life: model.CredentialState is written down in it, revoked last."""
_SERVED: Final = frozenset(_LIFE[_LIFE.index(CredentialState.CURRENT) :]) - {CredentialState.REJECTED}
_FACTS: Final = (
    *("key", "csr", "public_key_sha256", "certificate", "chain", "serial", "thumbprint", "not_before", "not_after"),
)
_HARDNESS: Final = (DeviceState.ACTIVE, DeviceState.REPLACING, DeviceState.REVOKED)
_SWAP: Final = tuple(ReplacementState)
_PINNED: Final = (ReplacementState.PINNED, ReplacementState.LIFTING, ReplacementState.LIFTED)


class Diverged(Exception):
    """The same generation stands for two different keys or certificates."""


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that is on record of the devices."""

    devices: Mapping[str, Device]
    credentials: Mapping[tuple[str, int], Credential]
    revocations: Mapping[tuple[str, str], Revocation]
    replacements: Mapping[tuple[str, int], Replacement]


def account(
    devices: Iterable[Device],
    credentials: Iterable[Credential],
    revocations: Iterable[Revocation],
    replacements: Iterable[Replacement],
) -> Account:
    return Account(
        {each.device_id: each for each in devices},
        {(each.device_id, each.generation): each for each in credentials},
        {(each.device_id, each.serial): each for each in revocations},
        {(each.device_id, each.number): each for each in replacements},
    )


def join(one: Account, other: Account) -> Account:
    """Raises Diverged."""
    replacements = _united(one.replacements, other.replacements, _further_swap)
    revocations = _united(one.revocations, other.revocations, _joined_revocation)
    credentials = _united(one.credentials, other.credentials, _further_credential)
    served: dict[str, int] = {}
    for (device_id, generation), each in credentials.items():
        if each.state in _SERVED:
            served[device_id] = max(served.get(device_id, 0), generation)
    credentials = {key: _superseded(each, served.get(each.device_id, 0)) for key, each in credentials.items()}
    devices = _united(one.devices, other.devices, lambda a, b: _joined_device(a, b, one, other))
    return Account(devices, credentials, revocations, replacements)


def _united(one: Mapping[K, T], other: Mapping[K, T], both: Callable[[T, T], T]) -> dict[K, T]:
    keys = [*one, *(key for key in other if key not in one)]
    return {
        key: both(one[key], other[key]) if key in one and key in other else one[key] if key in one else other[key]
        for key in keys
    }


# --- credentials -----------------------------------------------------------------------------------------------------


def _further_credential(one: Credential, other: Credential) -> Credential:
    for name in ("key", "public_key_sha256", "thumbprint", "created_at"):
        a, b = getattr(one, name), getattr(other, name)
        if a is not None and b is not None and a != b:
            raise Diverged(f"generation {one.generation} of {one.device_id} is not the same on both sides")
    ahead, behind = sorted((one, other), key=_credential_rank, reverse=True)
    # A fact once known stays known: a revocation may have come before the certificate was on record.
    missing = {name: getattr(behind, name) for name in _FACTS if not getattr(ahead, name)}
    return replace(ahead, **missing)


def _credential_rank(it: Credential) -> tuple[Any, ...]:
    rest = repr((it.next_attempt_at, it.last_error, it.renew_at, it.deadline))
    return (_LIFE.index(it.state), it.updated_at, it.attempts, rest)


def _superseded(it: Credential, served: int) -> Credential:
    """A current one has made way for a later generation that has served."""
    if it.state is CredentialState.CURRENT and it.generation < served:
        return replace(it, state=CredentialState.PREVIOUS, renew_at=None)
    return it


# --- devices ---------------------------------------------------------------------------------------------------------


def _joined_device(one: Device, other: Device, ones: Account, others: Account) -> Device:
    """The account with more swaps behind it is the later one; among equals the harder state holds."""
    if one.kind is not other.kind:
        raise Diverged(f"{one.device_id} is not the same on both sides")
    later = max((_device_rank(one, ones), 0, one), (_device_rank(other, others), 1, other))[2]
    return replace(
        later,
        current=max((each.current for each in (one, other) if each.current is not None), default=None),
        in_hub=one.in_hub or other.in_hub,
        created_at=min(one.created_at, other.created_at),
    )


def _device_rank(it: Device, known: Account) -> tuple[Any, ...]:
    bound = (it.binding is not None, it.binding is not None and it.binding.void)
    return (_swaps(it, known), _HARDNESS.index(it.state), *bound, repr((it.binding, it.revocation_reason, it.sans)))


def _swaps(it: Device, known: Account) -> int:
    """Twice the number of swaps, one less while the last has not come to its pin."""
    number = 0
    while (it.device_id, number + 1) in known.replacements:
        number += 1
    if number == 0:
        return 0
    return 2 * number - (known.replacements[it.device_id, number].state not in _PINNED)


# --- revocations and swaps -------------------------------------------------------------------------------------------


def _joined_revocation(one: Revocation, other: Revocation) -> Revocation:
    first = min(one, other, key=lambda each: (each.known_at, each.reason, each.origin))
    reach = RevocationScope.DEVICE if RevocationScope.DEVICE in (one.scope, other.scope) else one.scope
    known = [each for each in Milestone if each in one.progress or each in other.progress]
    progress = {
        each: max(*(it.progress.get(each, MilestoneProgress()) for it in (one, other)), key=_progress_rank)
        for each in known
    }
    return replace(first, scope=reach, progress=progress)


def _progress_rank(it: MilestoneProgress) -> tuple[Any, ...]:
    earliest = -it.done_at.timestamp() if it.done_at is not None else 0.0
    return (it.done_at is not None, earliest, it.attempts, repr(it))


def _further_swap(one: Replacement, other: Replacement) -> Replacement:
    return max(one, other, key=lambda each: (_SWAP.index(each.state), each.attempts, repr(each)))
