"""How times become integers, how sqlite3's errors become sentences, how migrations are numbered."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.lifecycle import UNFINISHED
from gatewayd.errors import Internal, StoreBroken
from gatewayd.store import credentials
from gatewayd.store.faults import broken, translated
from gatewayd.store.migrations import scripts
from gatewayd.store.rows import moment, stamp

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(
    min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=st.one_of(st.just(UTC), ZONES)
)
PATH = Path("/var/lib/gatewayd/gatewayd.db")


@given(TIMES)
def test_a_time_comes_back_to_the_microsecond_and_in_utc(at: datetime) -> None:
    back = moment(stamp(at))
    assert back == at
    assert back.utcoffset() == timedelta(0)


@given(TIMES, TIMES)
def test_stamps_sort_as_the_times_do(one: datetime, other: datetime) -> None:
    assert (stamp(one) < stamp(other)) == (one < other)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(TypeError):
        stamp(datetime(2030, 1, 1))


def test_absent_stays_absent() -> None:
    assert moment(stamp(None)) is None


def _error(code: int, name: str, text: str = "text") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("code", "name", "says"),
    [
        (sqlite3.SQLITE_FULL, "SQLITE_FULL", "is full"),
        (sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_FSYNC"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, "SQLITE_READONLY_DIRECTORY", "read-only"),
        (sqlite3.SQLITE_CORRUPT_INDEX, "SQLITE_CORRUPT_INDEX", "damaged"),
        (sqlite3.SQLITE_NOMEM, "SQLITE_NOMEM", "SQLITE_NOMEM"),
    ],
)
def test_what_the_disk_does_is_a_sentence_that_names_the_file(code: int, name: str, says: str) -> None:
    error = translated(_error(code, name), PATH)
    assert isinstance(error, StoreBroken)
    assert says in error.message
    assert str(PATH) in error.message
    assert error.message.endswith(".")


def test_a_broken_rule_is_our_defect_and_not_the_disks() -> None:
    assert isinstance(translated(_error(sqlite3.SQLITE_CONSTRAINT_UNIQUE, "SQLITE_CONSTRAINT_UNIQUE"), PATH), Internal)
    assert isinstance(translated(sqlite3.ProgrammingError("used in another thread"), PATH), Internal)
    assert isinstance(broken(sqlite3.OperationalError("no such savepoint"), PATH), StoreBroken)


def test_migrations_are_numbered_without_a_gap() -> None:
    assert list(scripts()) == list(range(1, len(scripts()) + 1))


def test_the_index_of_unfinished_credentials_holds_just_those() -> None:
    listed = ", ".join(f"'{state}'" for state in credentials.UNFINISHED_STATES)
    assert frozenset(credentials.UNFINISHED_STATES) == UNFINISHED
    assert any(f"WHERE state IN ({listed})" in script for script in scripts().values())
