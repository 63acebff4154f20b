"""Turns at the token: order, bounds, time limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from gatewayd.errors import TokenBusy, TokenFault, TokenTimeout
from gatewayd.keys.base import Priority
from gatewayd.keys.turns import Turns


class Crowd:
    """Callers in threads of their own, who note when their turn has come."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self._pool = ThreadPoolExecutor(max_workers=16)
        self._count = 0

    def join(
        self, name: str, priority: Priority, timeout: float = 10, ahead: Callable[[], None] | None = None
    ) -> Future[None]:
        """Returns when that caller waits."""

        def call() -> None:
            with self.turns.take(priority, timeout, ahead):
                self.order.append(name)

        self._count += 1
        outcome = self._pool.submit(call)
        deadline = time.monotonic() + 5
        while len(self.turns._waiting) + (self.turns._next is not None) < self._count:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return outcome

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def turns() -> Turns:
    return Turns(queue_size=4)


@pytest.fixture
def crowd(turns: Turns) -> Iterator[Crowd]:
    crowd = Crowd(turns)
    yield crowd
    crowd.close()


def test_handshakes_go_before_requests_and_requests_before_housekeeping(turns: Turns, crowd: Crowd) -> None:
    with turns.take(Priority.HOUSEKEEPING, 1):
        waiting = [
            crowd.join("inventory", Priority.HOUSEKEEPING),
            crowd.join("csr", Priority.REQUEST),
            crowd.join("first handshake", Priority.HANDSHAKE),
            crowd.join("second handshake", Priority.HANDSHAKE),
        ]
    for each in waiting:
        each.result(5)
    assert crowd.order == ["first handshake", "second handshake", "csr", "inventory"]


def test_a_full_queue_refuses_at_once(turns: Turns, crowd: Crowd) -> None:
    with turns.take(Priority.HANDSHAKE, 1):
        waiting = [crowd.join("waits", Priority.REQUEST) for _ in range(4)]
        with pytest.raises(TokenBusy), turns.take(Priority.HANDSHAKE, 10):
            pass
    for each in waiting:
        each.result(5)
    with turns.take(Priority.HOUSEKEEPING, 1):
        pass


def test_a_caller_waits_no_longer_than_its_time_and_who_gave_up_is_passed_over(turns: Turns, crowd: Crowd) -> None:
    with turns.take(Priority.REQUEST, 1):
        impatient = crowd.join("impatient", Priority.HANDSHAKE, timeout=0.05)
        patient = crowd.join("patient", Priority.HOUSEKEEPING)
        with pytest.raises(TokenTimeout):
            impatient.result(5)
    patient.result(5)
    assert crowd.order == ["patient"]


def test_an_exception_ends_the_turn(turns: Turns) -> None:
    with pytest.raises(ZeroDivisionError), turns.take(Priority.REQUEST, 1):
        raise ZeroDivisionError
    with turns.take(Priority.REQUEST, 0.1):
        pass


def test_the_last_turn_comes_after_all_others_and_nobody_comes_in_after_it(turns: Turns, crowd: Crowd) -> None:
    with turns.take(Priority.REQUEST, 1):
        queued = crowd.join("queued", Priority.HOUSEKEEPING)
        closing = threading.Thread(target=lambda: _close(turns, crowd))
        closing.start()
        while not turns._closed:
            time.sleep(0.001)
        with pytest.raises(TokenFault, match="closed"), turns.take(Priority.HANDSHAKE, 1):
            pass
    queued.result(5)
    closing.join(5)
    assert crowd.order == ["queued", "closed"]


def _close(turns: Turns, crowd: Crowd) -> None:
    with turns.last(5):
        crowd.order.append("closed")


def test_many_threads_are_never_in_at_once() -> None:
    turns = Turns(queue_size=64)
    inside: list[int] = []

    def call(number: int) -> None:
        with turns.take(Priority(number % 3), 10):
            inside.append(number)
            assert inside == [number]
            inside.pop()

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(call, range(4000)))


def test_what_belongs_to_a_turn_is_begun_by_whoever_had_the_turn_before(turns: Turns, crowd: Crowd) -> None:
    begun_by: list[str] = []

    def ahead() -> None:
        begun_by.append(threading.current_thread().name)

    with turns.take(Priority.HANDSHAKE, 1, ahead):
        assert begun_by == []  # nobody had it
        gone = crowd.join("gone", Priority.HANDSHAKE, 0.05, ahead)
        with pytest.raises(TokenTimeout):
            gone.result(5)
        waiting = crowd.join("waiting", Priority.HANDSHAKE, ahead=ahead)
    waiting.result(5)
    assert begun_by == [threading.current_thread().name]


def test_while_a_turn_only_waits_the_next_handshake_is_begun_and_no_more(turns: Turns, crowd: Crowd) -> None:
    begun: list[str] = []

    def ahead(name: str) -> Callable[[], None]:
        return lambda: begun.append(name)

    with turns.take(Priority.HANDSHAKE, 1):
        waiting = [crowd.join("csr", Priority.REQUEST, ahead=ahead("csr"))]
        with turns.overlapped():
            assert begun == []  # a handshake may come yet, and goes before it
            for name in ("first", "second"):
                waiting.append(crowd.join(name, Priority.HANDSHAKE, ahead=ahead(name)))
            assert begun == ["first"]
            assert turns.waiting() == 3
        waiting.append(crowd.join("third", Priority.HANDSHAKE, ahead=ahead("third")))
        assert begun == ["first"]
    for each in waiting:
        each.result(5)
    assert begun == crowd.order == ["first", "second", "third", "csr"]


def test_who_gives_up_after_it_was_begun_is_passed_over(turns: Turns, crowd: Crowd) -> None:
    begun: list[str] = []
    with turns.take(Priority.HANDSHAKE, 1):
        with turns.overlapped():
            gone = crowd.join("gone", Priority.HANDSHAKE, 0.05, lambda: begun.append("gone"))
            with pytest.raises(TokenTimeout):
                gone.result(5)
            assert turns.waiting() == 0
        patient = crowd.join("patient", Priority.HANDSHAKE, ahead=lambda: begun.append("patient"))
    patient.result(5)
    assert (begun, crowd.order) == (["gone", "patient"], ["patient"])
