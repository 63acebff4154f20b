"""The port to what is written down.

All access goes through short functions of one transaction: ``await store.write(lambda tx: tx.devices.add(d))``. A
function runs in the store's own thread, sees a consistent state, and either happens whole or not at all; when
``write`` has returned, what it wrote has survived a power cut (WAL, synchronous=FULL). It must be quick, must not
await, and must have no effect outside ``tx``.

Records go in and come out as the frozen values of ``core.model``; ``put`` replaces a whole record. What the schema
refuses raises Internal, being a defect in the caller: a ``put`` of what was never added, a credential of an unknown
device, a second CURRENT one, another certificate or key for a generation that has one, anything that would undo a
revocation or a milestone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from ..core.audit import Head, Record
from ..core.listing import Overview, Wanted
from ..core.measures import Fleet, Queue
from ..core.model import (
    Binding,
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    DeviceState,
    EnrollmentCode,
    JournalEntry,
    OutboxMessage,
    Replacement,
    Revocation,
    Standing,
)
from ..errors import StoreBroken

T = TypeVar("T")


class Devices(Protocol):
    def get(self, device_id: str) -> Device | None: ...
    def all(self) -> list[Device]: ...
    def overview(self, device_id: str) -> Overview | None: ...
    def overviews(self, wanted: Wanted, now: datetime) -> Iterator[Overview]:
        """Narrowed down by id, kind and expiry; by id, the gateway first. Thousands, perhaps, so one by one: to list
        them and for nothing else."""

    def void_hardware(self) -> list[Binding]:
        """What a revocation has unbound and nobody has bound again."""

    def is_void(self, binding: Binding) -> bool:
        """Whether this hardware is among them."""

    def unbind(self, binding: Binding) -> None:
        """Put it among them."""

    def of_hardware(self, binding: Binding) -> Device | None:
        """The device that is bound to this hardware, or was: one whose binding is void only if there is no other."""

    def of_kind(self, kind: DeviceKind) -> list[Device]: ...
    def count_leaves(self) -> dict[DeviceState, int]:
        """How many leaves are in which state, each of them named."""

    def census(self, now: datetime) -> list[tuple[Standing, int]]:
        """How many leaves stand how."""

    def expired(self, now: datetime, limit: int) -> list[tuple[str, datetime, bool]]:
        """The active leaves whose current certificate is over, since when, and whether they are bound to hardware; by
        device id."""

    def add(self, device: Device) -> None:
        """Raises DeviceExists."""

    def put(self, device: Device) -> None: ...


class Alive(NamedTuple):
    """A certificate that has not expired."""

    not_after: datetime
    device_id: str = "\U0010ffff"
    generation: int = 0
    thumbprint: str = ""


class Credentials(Protocol):
    """At most one credential of a device is CURRENT at any moment: a switch supersedes the old one first."""

    def get(self, device_id: str, generation: int) -> Credential | None: ...
    def all(self, device_id: str, states: Iterable[CredentialState] | None = None) -> list[Credential]:
        """Of one device, oldest generation first; in ten years they become many: name the states where you can."""

    def current(self, device_id: str) -> Credential | None:
        """The one that Device.current points at."""

    def next_generation(self, device_id: str) -> int:
        """1 for a new device; never a number used before."""

    def by_thumbprint(self, sha256: str) -> Credential | None: ...
    def by_public_key(self, device_id: str, public_key_sha256: str) -> Credential | None:
        """The newest for this key."""

    def by_key(self, key_id: bytes) -> Credential | None:
        """The one that a key in the token, by its CKA_ID, was made for."""

    def in_states(self, states: Iterable[CredentialState]) -> list[Credential]: ...
    def alive(self, after: Alive, limit: int) -> list[Alive]:
        """The next ones in the order of their end, whatever became of them, read from the index alone. Begin with
        ``Alive(now)``."""

    def refused(self, now: datetime) -> list[tuple[str, str, str, datetime]]:
        """(device_id, serial, thumbprint, not_after) of every REVOKED certificate that has not expired."""

    def in_trouble(self, limit: int = 100) -> list[Credential]:
        """In a state of lifecycle.UNFINISHED, with a last error."""

    def unfinished(self, now: datetime, limit: int = 100) -> list[Credential]:
        """In a state of lifecycle.UNFINISHED, and next_attempt_at absent or not after now; those that have waited
        longest first. Without those that wait for their turn at the CA."""

    def waiting(self, now: datetime, limit: int = 100) -> list[Credential]:
        """With a deadline and before the CA's answer, and next_attempt_at absent or not after now; the most urgent
        first."""

    def deadlines(self, limit: int = 1000) -> list[datetime]:
        """Of all that wait for their turn at the CA, whether or not an attempt is due; the most urgent first."""

    def load(self, now: datetime) -> float:
        """The sum of 1 / lifetime (a second) of the valid CURRENT ones. Reads them all: not for every wake."""

    def due(self, now: datetime, limit: int = 100) -> list[Credential]:
        """CURRENT, with renew_at not after now. Costs the same with 100 and with 100,000 records (partial index)."""

    def fleet(self, now: datetime) -> Fleet:
        """Of the CURRENT ones (covering index)."""

    def count_waiting(self) -> int:
        """How many wait for their turn at the CA."""

    def count_troubled(self) -> int:
        """How many are ``in_trouble``."""

    def next_moment(self, after: datetime) -> datetime | None:
        """The earliest renew_at (of CURRENT) or next_attempt_at (of unfinished) that is yet to come."""

    def put_off(self, after: datetime, limit: int = 1000) -> list[Credential]:
        """In a state of lifecycle.UNFINISHED, and next_attempt_at later than this."""

    def postponed(self, after: datetime) -> list[Credential]:
        """CURRENT, with renew_at later than this and not before the last tenth of the certificate's life."""

    def add(self, credential: Credential) -> None:
        """Raises Internal when this generation exists: it is never overwritten."""

    def put(self, credential: Credential) -> None: ...


class Codes(Protocol):
    def get(self, code_hash: str) -> EnrollmentCode | None: ...
    def add(self, code: EnrollmentCode) -> None: ...
    def put(self, code: EnrollmentCode) -> None: ...
    def withdraw_unused(self, device_id: str) -> None: ...
    def withdraw_all(self, device_id: str) -> None:
        """Also used ones: whoever used them cannot ask again."""

    def open_until(self, device_id: str, now: datetime) -> datetime | None:
        """When the device's unused code expires; None when it has none that still works."""

    def purge(self, expired_before: datetime) -> int: ...


class Revocations(Protocol):
    def get(self, device_id: str, serial: str) -> Revocation | None: ...
    def all(self, device_id: str | None = None) -> list[Revocation]: ...
    def open(self) -> list[Revocation]:
        """Those that are not VERIFIED yet or lack another milestone."""

    def closed(self, limit: int) -> list[Revocation]:
        """The latest of the others, the latest first."""

    def add(self, revocation: Revocation) -> bool:
        """False, and nothing changed, when this (device, serial) is known already."""

    def put(self, revocation: Revocation) -> None: ...


class Replacements(Protocol):
    """At most one of a device is neither lifted, cancelled nor overtaken; an end is for ever."""

    def open_of(self, device_id: str) -> Replacement | None:
        """The one that has not ended."""

    def all(self, device_id: str) -> list[Replacement]:
        """Oldest first."""

    def open(self) -> list[Replacement]:
        """Of all devices, oldest first."""

    def add(self, replacement: Replacement) -> None: ...
    def put(self, replacement: Replacement) -> None: ...


class Outbox(Protocol):
    def add(self, message: OutboxMessage) -> bool:
        """False when a message with this key exists, sent or not."""

    def get(self, key: str) -> OutboxMessage | None: ...
    def unsent(self, now: datetime, limit: int = 50) -> list[OutboxMessage]:
        """Due ones, oldest first."""

    def queue(self) -> Queue:
        """Those that are not sent yet."""

    def put(self, message: OutboxMessage) -> None: ...
    def purge(self, sent_before: datetime, limit: int = 1000) -> int:
        """Forget so many of those that were sent before then; how many it were."""


class Journal(Protocol):
    """A chain of records (core.audit), and its signed heads."""

    def append(self, entry: JournalEntry) -> None: ...
    def recent(self, device_id: str | None = None, limit: int = 100) -> list[JournalEntry]:
        """Newest first."""

    def written(self) -> int:
        """The highest number ever given out, whether or not that record is still there."""

    def records(self, first: int, limit: int) -> list[Record]:
        """From this number on, in order."""

    def heads(self) -> list[Head]:
        """Oldest first."""

    def last_head(self) -> Head | None: ...
    def add_head(self, head: Head) -> None: ...


class Settings(Protocol):
    """Small facts of the daemon's own, such as the registrar key's id."""

    def get(self, name: str) -> str | None: ...
    def set(self, name: str, value: str) -> None: ...
    def beginning_with(self, prefix: str) -> dict[str, str]: ...
    def remove(self, name: str) -> None: ...


class Tx(Protocol):
    @property
    def devices(self) -> Devices: ...
    @property
    def credentials(self) -> Credentials: ...
    @property
    def codes(self) -> Codes: ...
    @property
    def revocations(self) -> Revocations: ...
    @property
    def replacements(self) -> Replacements: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def settings(self) -> Settings: ...


class Store(Protocol):
    trouble: StoreBroken | None
    """Why nothing could be written the last time; None when it could."""

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run in a transaction; concurrent writers are committed as a group. An exception of ``work`` undoes its own
        changes only and is raised here. Raises StoreBroken when the disk fails; nothing of the group is written then,
        and a later write may succeed. When the caller is cancelled, the work is left out or carried out, whole."""

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run on a reader's connection, beside writers."""

    async def close(self) -> None: ...
