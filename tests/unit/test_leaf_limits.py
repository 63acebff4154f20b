"""Wrong codes are counted, right ones are not, and nothing grows without bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.leaf.limits import CodeGuard, FailureLimit, network


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_so_many_failures_and_then_one_each_minute(clock: Clock) -> None:
    limit = FailureLimit(10, 600.0, clock)
    for _ in range(10):
        assert limit.wait("a") == 0
        limit.failed("a")
    assert limit.wait("a") == pytest.approx(60)
    clock.now += 59
    assert limit.wait("a") == pytest.approx(1)
    clock.now += 2
    assert limit.wait("a") == 0
    limit.failed("a")
    assert limit.wait("a") > 0
    assert limit.wait("b") == 0


def test_all_is_forgiven_after_a_period(clock: Clock) -> None:
    limit = FailureLimit(3, 60.0, clock)
    for _ in range(3):
        limit.failed("a")
    clock.now += 60
    assert limit.wait("a") == 0
    assert len(limit) == 0


def test_memory_is_bounded_and_the_stalest_goes_first(clock: Clock) -> None:
    limit = FailureLimit(1, 60.0, clock, max_keys=3)
    for key in ("a", "b", "c", "a", "d"):
        limit.failed(key)
    assert len(limit) == 3
    assert [key for key in "abcd" if limit.wait(key)] == ["a", "c", "d"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1e4)), max_size=40))
def test_whoever_has_waited_as_told_may_try(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    limit = FailureLimit(5, 300.0, clock)
    for key, pause in steps:
        clock.now += pause
        wait = limit.wait(key)
        assert 0 <= wait <= 60.0 + 1e-6
        clock.now += wait + 1e-6
        assert limit.wait(key) == 0
        limit.failed(key)


def test_one_host_alone_cannot_shut_a_device_out(clock: Clock) -> None:
    guard = CodeGuard(clock)
    while not guard.wait("192.0.2.1", "leaf-1"):
        guard.failed("192.0.2.1", "leaf-1")
    assert guard.wait("192.0.2.2", "leaf-1") == 0
    for host in range(2, 5):
        while not guard.wait(f"192.0.2.{host}", "leaf-1"):
            guard.failed(f"192.0.2.{host}", "leaf-1")
    assert guard.wait("192.0.2.99", "leaf-1") > 0
    assert guard.wait("192.0.2.99", "leaf-2") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) is same
