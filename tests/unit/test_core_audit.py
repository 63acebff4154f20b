"""Whatever is done to the trail behind its last signature is found, and named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core import audit
from gatewayd.core.audit import Fault, Finding, Head, Record, Verification, link
from gatewayd.core.model import JournalEntry

NOW = datetime(2030, 6, 1, 12, 0, 0, 5, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ENTRIES = st.lists(
    st.builds(
        JournalEntry,
        at=st.integers(0, 10).map(lambda each: NOW + timedelta(microseconds=each)),
        device_id=st.none() | TEXT,
        who=TEXT,
        what=TEXT,
        outcome=TEXT,
        detail=TEXT,
    ),
    min_size=2,
    max_size=20,
)


def chained(entries: list[JournalEntry]) -> list[Record]:
    records, previous = [], audit.FIRST
    for seq, entry in enumerate(entries, start=1):
        previous = link(previous, entry, seq)
        records.append(Record(replace(entry, seq=seq), previous))
    return records


def rechained(records: list[Record]) -> list[Record]:
    return chained([each.entry for each in records])


def head(record: Record) -> Head:
    unsigned = Head("gw", record.seq, record.hash, NOW, b"ours", b"")
    return replace(unsigned, signature=hashlib.sha256(unsigned.signed_bytes()).digest())


def trusted(each: Head) -> bool:
    return each.certificate == b"ours" and each.signature == hashlib.sha256(each.signed_bytes()).digest()


def verify(records: list[Record], *heads: Head, written: int = 0) -> list[Finding]:
    verification = Verification(heads, trusted)
    for each in records:
        verification.take([each])
    return verification.findings(written)


def faults(found: list[Finding]) -> set[tuple[Fault, int, int]]:
    return {(each.fault, each.first, each.last) for each in found}


@given(ENTRIES, st.data())
def test_what_was_not_touched_is_intact(entries: list[JournalEntry], data: st.DataObject) -> None:
    records = chained(entries)
    signed = data.draw(st.sets(st.sampled_from(records).map(lambda each: each.seq)))
    heads = [head(records[seq - 1]) for seq in signed]
    assert verify(records, *heads, written=len(records)) == []
    for after in heads:
        verification = Verification(heads, trusted, after=after)
        verification.take(records[after.seq - 1 :])
        assert verification.findings(len(records)) == []


@given(ENTRIES, st.data())
def test_a_changed_record_is_named(entries: list[JournalEntry], data: st.DataObject) -> None:
    records = chained(entries)
    index = data.draw(st.integers(0, len(records) - 1))
    field = data.draw(st.sampled_from(["at", "device_id", "who", "what", "outcome", "detail", "hash"]))
    was = records[index]
    if field == "hash":
        changed = replace(was, hash=bytes(each ^ 1 for each in was.hash))
    else:
        values: dict[str, Any] = {field: NOW - timedelta(1) if field == "at" else "something else"}
        changed = replace(was, entry=replace(was.entry, **values))
    records[index] = changed
    assert faults(verify(records)) == {(Fault.CHANGED, was.seq, was.seq)}


@given(ENTRIES, st.data())
def test_missing_records_are_named(entries: list[JournalEntry], data: st.DataObject) -> None:
    records = chained(entries)
    first = data.draw(st.integers(1, len(records)))
    last = data.draw(st.integers(first, len(records)))
    left = records[: first - 1] + records[last:]
    assert faults(verify(left, head(records[-1]))) == {(Fault.MISSING, first, last)}
    assert faults(verify(left, written=len(records))) == {(Fault.MISSING, first, last)}


@given(ENTRIES, st.data())
def test_records_that_changed_places_are_named(entries: list[JournalEntry], data: st.DataObject) -> None:
    records = chained(entries)
    one, other = sorted(data.draw(st.sets(st.integers(0, len(records) - 1), min_size=2, max_size=2)))
    moved = list(records)
    moved[one] = replace(records[other], entry=replace(records[other].entry, seq=one + 1))
    moved[other] = replace(records[one], entry=replace(records[one].entry, seq=other + 1))
    found = verify(moved)
    assert faults(found) == {(Fault.REORDERED, one + 1, one + 1), (Fault.REORDERED, other + 1, other + 1)}
    assert found[0].detail.startswith(f"written as record {other + 1}:")


@given(ENTRIES, st.data())
def test_a_trail_written_anew_is_not_the_signed_one(entries: list[JournalEntry], data: st.DataObject) -> None:
    """Every hash worked out again, so that the chain holds."""
    records = chained(entries)
    index = data.draw(st.integers(0, len(records) - 1))
    signed = data.draw(st.integers(index, len(records) - 1))
    earlier = [head(records[index - 1])] if index else []
    forged = list(records)
    forged[index] = replace(records[index], entry=replace(records[index].entry, who="nobody"))
    found = verify(rechained(forged), *earlier, head(records[signed]))
    if records[index].entry.who == "nobody":
        assert found == []
    else:
        assert faults(found) == {(Fault.REWRITTEN, index + 1, signed + 1)}


def test_removed_and_renumbered_is_found() -> None:
    records = chained([JournalEntry(NOW, None, "uid:0", f"{each}", "done") for each in range(9)])
    shorter = rechained(records[:3] + records[4:])
    assert faults(verify(shorter, head(records[-1]))) == {(Fault.MISSING, 9, 9)}
    assert faults(verify(shorter, head(records[6]), head(records[-1]))) == {
        (Fault.REWRITTEN, 1, 7),
        (Fault.MISSING, 9, 9),
    }


def test_a_head_by_somebody_else_proves_nothing_and_is_shown() -> None:
    records = chained([JournalEntry(NOW, None, "uid:0", f"{each}", "done") for each in range(9)])
    earlier = replace(head(records[3]), certificate=b"another")
    assert faults(verify(records, earlier)) == {(Fault.HEAD_INVALID, 4, 4)}
    assert verify(records, earlier, head(records[6])) == []  # covered by one that is trusted
    moved = replace(head(records[3]), seq=5, hash=records[4].hash)
    assert faults(verify(records, moved)) == {(Fault.HEAD_INVALID, 5, 5)}
