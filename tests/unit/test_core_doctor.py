"""Each verdict of the doctor: what is fine, what is wrong, and that what is wrong says what to do."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta

import pytest

from gatewayd.core import doctor
from gatewayd.core.clock import Verdict as Clock
from gatewayd.core.doctor import Area, Contact, Endpoint, FileFacts, Finding, Reached, Verdict

NOW = datetime(2031, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MB = 1024 * 1024
FINE, WARNING, PROBLEM = Verdict.FINE, Verdict.WARNING, Verdict.PROBLEM
HUB = Endpoint(Area.HUB, "the hub", "[hub] host", "hub.example", 8883)


def directory(mode: int, uid: int = 7, writable: bool = True) -> FileFacts:
    return FileFacts(stat.S_IFDIR | mode, uid, writable)


def own(left: int, last_error: str | None = None) -> Finding:
    """Of a certificate of 100 days."""
    return doctor.own_certificate(NOW - (100 - left) * DAY, NOW + left * DAY, NOW, last_error)


def place(facts: FileFacts | None) -> Finding:
    return doctor.private_directory("/state", facts, "gatewayd", 7)


def secret(facts: FileFacts | None) -> Finding:
    return doctor.secret_file("PIN", "/pin", facts, 7)


@pytest.mark.parametrize(
    ("finding", "verdict", "says"),
    [
        (doctor.disk("/state", 900 * MB, 10**6), FINE, "900 MB"),
        (doctor.disk("/state", 200 * MB, 10**6), WARNING, "200 MB"),
        (doctor.disk("/state", 3 * MB, None), PROBLEM, "3 MB"),
        (doctor.disk("/state", 900 * MB, 9), PROBLEM, "9 files"),
        (place(directory(0o700)), FINE, "alone"),
        (place(None), PROBLEM, "install -d"),
        (place(FileFacts(stat.S_IFREG | 0o600, 7)), PROBLEM, "no directory"),
        (place(directory(0o770)), PROBLEM, "written by others"),
        (place(directory(0o755)), WARNING, "read by others"),
        (place(directory(0o700, uid=0)), PROBLEM, "uid 0"),
        (place(directory(0o700, writable=False)), PROBLEM, "read-only"),
        (secret(FileFacts(stat.S_IFREG | 0o400, 0)), FINE, "owner"),
        (secret(FileFacts(stat.S_IFREG | 0o440, 7)), PROBLEM, "chmod 0400"),
        (secret(FileFacts(stat.S_IFREG | 0o400, 8)), PROBLEM, "uid 8"),
        (secret(FileFacts(stat.S_IFLNK | 0o400, 7)), PROBLEM, "regular"),
        (secret(None), PROBLEM, "does not exist"),
        (doctor.credential("PIN", "token-pin", True), FINE, "token-pin"),
        (doctor.credential("PIN", "token-pin", False), WARNING, "LoadCredentialEncrypted=token-pin"),
        (doctor.time_of_day(Clock.SANE, True, NOW), FINE, "synchronised"),
        (doctor.time_of_day(Clock.SANE, False, NOW), WARNING, "set-ntp"),
        (doctor.time_of_day(Clock.BEHIND, False, NOW), PROBLEM, "clock trust"),
        (own(50), FINE, "2031-06-20"),
        (own(50, "IssuerUnreachable: away"), WARNING, "IssuerUnreachable"),
        (own(20), WARNING, "late"),
        (own(9), PROBLEM, "tenth"),
        (own(0), PROBLEM, "bootstrap"),
        (doctor.anchor("CA", "CN=Root", NOW + 400 * DAY, NOW, "ask"), FINE, "2032"),
        (doctor.anchor("CA", "CN=Root", NOW + 89 * DAY, NOW, "ask"), WARNING, "89 days"),
        (doctor.anchor("CA", "CN=Root", NOW, NOW, "ask"), PROBLEM, "over"),
        (doctor.leaves(0, 0), FINE, "No leaf"),
        (doctor.leaves(1, 2), WARNING, "device list"),
        (doctor.leaves(1, 2), WARNING, "over 1, in the last tenth of their lives 2."),
    ],
)
def test_verdicts(finding: Finding, verdict: Verdict, says: str) -> None:
    assert finding.verdict is verdict
    assert says in f"{finding.what} {finding.remedy}"
    assert bool(finding.remedy) == (verdict is not FINE)


@pytest.mark.parametrize(
    ("how", "area", "says"),
    [
        (Reached.UNRESOLVED, Area.NAMES, "getent hosts hub.example"),
        (Reached.TIMEOUT, Area.HUB, "firewall: outgoing TCP to port 8883"),
        (Reached.REFUSED, Area.HUB, "[hub] host"),
        (Reached.UNTRUSTED, Area.HUB, "[trust] bundle"),
        (Reached.NO_TLS, Area.HUB, "captive portal"),
    ],
)
def test_a_peer_that_cannot_be_reached(how: Reached, area: Area, says: str) -> None:
    wrong = doctor.peer(HUB, Contact(how, "detail", 5), has_bundle=True)[-1]
    assert (wrong.area, wrong.verdict) == (area, PROBLEM)
    assert says in wrong.remedy


def test_a_peer_that_answers_is_fine_by_name_and_by_trust() -> None:
    found = doctor.peer(HUB, Contact(Reached.TRUSTED), has_bundle=False)
    assert [(each.area, each.verdict) for each in found] == [(Area.NAMES, FINE), (Area.HUB, FINE)]


def test_the_exit_status_is_that_of_the_most_basic_problem() -> None:
    def finding(area: Area, verdict: Verdict) -> Finding:
        return Finding(area, "", verdict, "")

    assert doctor.exit_code([]) == 0
    assert doctor.exit_code([finding(Area.CA, WARNING), finding(Area.HUB, Verdict.UNKNOWN)]) == 0
    assert doctor.exit_code([finding(Area.CA, PROBLEM), finding(Area.CLOCK, PROBLEM)]) == Area.CLOCK.exit_code
    assert len({area.exit_code for area in Area} | {64, 65, 66, 69, 70, 73, 74, 75, 76, 77, 78}) == len(Area) + 11
