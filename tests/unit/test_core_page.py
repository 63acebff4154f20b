"""One-time links and the sessions that they open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gatewayd.core import page
from gatewayd.core.page import PageSession

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)


def made(number: int = 1, link: str = "link", lifetime: int = 3600) -> PageSession:
    return PageSession(number, page.digest(link), False, NOW + timedelta(seconds=lifetime))


def test_a_link_works_once_and_gives_way_to_the_cookie() -> None:
    sessions, entered = page.enter([made()], "link", "cookie", NOW)
    assert entered is not None
    assert page.session_of(sessions, "cookie", NOW) == entered
    assert page.enter(sessions, "link", "another", NOW) == (sessions, None)
    assert page.session_of(sessions, "link", NOW) is None


def test_the_cookie_is_no_link_and_a_link_no_cookie() -> None:
    sessions, _ = page.enter([made()], "link", "cookie", NOW)
    assert page.enter(sessions, "cookie", "more", NOW)[1] is None
    assert page.session_of([made()], "link", NOW) is None


def test_link_and_session_end_together() -> None:
    end = NOW + timedelta(seconds=3600)
    assert page.enter([made()], "link", "cookie", end)[1] is None
    sessions, _ = page.enter([made()], "link", "cookie", end - timedelta(seconds=1))
    assert page.session_of(sessions, "cookie", end - timedelta(seconds=1))
    assert page.session_of(sessions, "cookie", end) is None


def test_what_has_expired_and_what_is_too_many_goes() -> None:
    sessions: list[PageSession] = [made(0, lifetime=-1)]
    for number in range(1, page.MOST + 3):
        sessions = page.admit(sessions, made(number), NOW)
    assert [each.number for each in sessions] == list(range(3, page.MOST + 3))


def test_secrets_are_kept_as_hashes_and_differ() -> None:
    secrets = {page.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(each) >= 22 and each not in page.digest(each) for each in secrets)
