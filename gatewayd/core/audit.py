"""The audit trail as a chain: which record was changed, is missing, or stands where it does not belong.

Each record carries the SHA-256 of (the hash of the record before it, and its own contents with its number), so that
nothing behind a record can be touched without its hash, and every later one, coming out different. Somebody who can
write to the database can work all of them out anew; therefore the newest hash is signed in the token from time to time
(a *head*). What lies before a head is then proved as it was when it was signed. What has come since the last one is
only as safe as the file; that is why heads are close together (services.audit).

Pure: records, heads and a judgement of their signatures in, findings out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from .model import JournalEntry

FIRST: Final = bytes(32)
"""What stands for the hash before the first record."""

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MOST_SORTED_OUT: Final = 12
"""Out-of-place records that are compared with each other; among more, each is called changed."""


@dataclass(frozen=True, slots=True)
class Record:
    """A journal entry as it was found, with its hash."""

    entry: JournalEntry
    hash: bytes

    @property
    def seq(self) -> int:
        return self.entry.seq or 0


@dataclass(frozen=True, slots=True)
class Head:
    """The chain up to a record, signed."""

    device_id: str
    """The gateway that signed: a head of another one proves nothing here."""
    seq: int
    hash: bytes
    at: datetime
    certificate: bytes
    """DER: whose key signed."""
    signature: bytes

    def signed_bytes(self) -> bytes:
        return b"gatewayd audit head\n" + _canonical(self.device_id, self.seq, self.hash.hex(), _micros(self.at))


def link(previous: bytes, entry: JournalEntry, seq: int) -> bytes:
    """The hash of ``entry`` as number ``seq`` behind the record whose hash is ``previous``."""
    contents = _canonical(seq, _micros(entry.at), entry.device_id, entry.who, entry.what, entry.outcome, entry.detail)
    return hashlib.sha256(previous + contents).digest()


def _canonical(*values: str | int | None) -> bytes:
    """One JSON list in ASCII without blanks: the same bytes for the same values, and for no others."""
    return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


class Fault(StrEnum):
    CHANGED = "changed"
    """The record's contents, or its hash, are not what was written; or the record before it was written anew."""
    MISSING = "missing"
    REORDERED = "reordered"
    """The record was written under another number."""
    REWRITTEN = "rewritten"
    """The chain holds, but it is not the one that was signed: something up to this record was written anew."""
    HEAD_INVALID = "head-invalid"
    """A signed head is not signed by a key that is trusted, and none that is stands behind it."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    first: int
    last: int
    """The numbers of the records concerned, both included."""
    fault: Fault
    detail: str


class Verification:
    """Takes the records in the order of their numbers, in as many pieces as one likes; then ``findings``."""

    def __init__(self, heads: Iterable[Head], trusted: Callable[[Head], bool], after: Head | None = None) -> None:
        """``trusted``: whether a head's signature is good, and by a key that may sign. ``after``: what lies up to that
        head is taken as proved; the first record to come is the head's own."""
        known = [each for each in heads if after is None or each.seq >= after.seq]
        good = [each for each in known if trusted(each)]
        proved = max((each.seq for each in good), default=0)
        self._heads = {each.seq: each for each in good}
        self._unproved = [each for each in known if each.seq > proved]
        self.begins_at = self._next = 1 if after is None else after.seq
        self._previous: bytes | None = FIRST if after is None else None
        self._signed_up_to = 0 if after is None else after.seq - 1
        self._odd: list[tuple[Record, bytes]] = []
        self._findings: list[Finding] = []
        self.records = 0
        self.last_hash = FIRST

    @property
    def signed_up_to(self) -> int:
        """The last record taken so far that a trusted head covers."""
        return self._signed_up_to

    def take(self, records: Iterable[Record]) -> None:
        for record in records:
            self._take(record)

    def _take(self, record: Record) -> None:
        seq = record.seq
        if seq > self._next:
            self._findings.append(self._missing(self._next, seq - 1))
            self._previous = None  # what it followed is gone: its own link cannot be checked
        if self._previous is not None and link(self._previous, record.entry, seq) != record.hash:
            self._odd.append((record, self._previous))
        head = self._heads.get(seq)
        if head is not None:
            if head.hash != record.hash:
                first = self._signed_up_to + 1
                words = f"not the chain that was signed at {head.at:%Y-%m-%dT%H:%M:%SZ}"
                self._findings.append(Finding(first, seq, Fault.REWRITTEN, words))
            self._signed_up_to = seq
        self._previous = self.last_hash = record.hash
        self._next = seq + 1
        self.records += 1

    def _missing(self, first: int, last: int) -> Finding:
        signed = any(first <= seq <= last for seq in self._heads)
        words = "no longer there, though signed" if signed else "no longer there"
        return Finding(first, last, Fault.MISSING, words)

    def findings(self, written: int = 0) -> list[Finding]:
        """All, by record. ``written``: the highest number that the database says it ever gave out."""
        found = self._findings + self._sorted_out()
        end = max([written, *self._heads])
        if end >= self._next:
            found.append(self._missing(self._next, end))
        found += [
            Finding(each.seq, each.seq, Fault.HEAD_INVALID, f"signed at {each.at:%Y-%m-%dT%H:%M:%SZ} by an unknown key")
            for each in self._unproved
        ]
        return sorted(found)

    def _sorted_out(self) -> list[Finding]:
        """What became of the records that do not fit where they stand. One fits elsewhere when it was moved; one fits
        here behind another record when that one was moved away or altered, and is then itself unharmed."""
        odd = self._odd
        if not odd:
            return []
        changed = [Finding(each.seq, each.seq, Fault.CHANGED, _words(each)) for each, _ in odd]
        if len(odd) > _MOST_SORTED_OUT:
            return changed
        before = {previous for _, previous in odd} | {record.hash for record, _ in odd}
        before |= {link(previous, record.entry, record.seq) for record, previous in odd}
        numbers = [record.seq for record, _ in odd]
        found: list[Finding] = []
        for (record, _), as_changed in zip(odd, changed, strict=True):
            was = {seq for seq in numbers for each in before if link(each, record.entry, seq) == record.hash}
            if record.seq in was:
                continue
            if was:
                words = f"written as record {min(was)}: {_words(record)}"
                found.append(Finding(record.seq, record.seq, Fault.REORDERED, words))
            else:
                found.append(as_changed)
        return found or changed


def report(verification: Verification, heads: Iterable[Head], written: int) -> dict[str, object]:
    """What was found, as ``gatewayctl audit verify --json`` prints it (docs/json.md)."""
    findings = verification.findings(written)
    data: dict[str, object] = {
        "intact": not findings,
        "records": verification.records,
        "signed_up_to": verification.signed_up_to,
        "findings": [
            {"fault": str(each.fault), "first": each.first, "last": each.last, "detail": each.detail}
            for each in findings
        ],
    }
    signed_at = {each.seq: each.at for each in heads}.get(verification.signed_up_to)
    if signed_at is not None:
        data["signed_at"] = f"{signed_at:%Y-%m-%dT%H:%M:%SZ}"
    if verification.records:
        data["last_hash"] = verification.last_hash.hex()
    return data


def _words(record: Record) -> str:
    entry = record.entry
    return f"{entry.at:%Y-%m-%dT%H:%M:%SZ} {entry.who} {entry.what} {entry.outcome}"
