"""The token's one thread: order, bounds, time limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gatewayd.errors import TokenBusy, TokenFault, TokenTimeout
from gatewayd.keys.worker import Priority, Worker


class Plug:
    """Occupies a worker until it is pulled."""

    def __init__(self, worker: Worker) -> None:
        self._pulled = threading.Event()
        self._running = threading.Event()
        self._pool = ThreadPoolExecutor()
        self.outcome = self._pool.submit(worker.call, Priority.HANDSHAKE, self._occupy)
        assert self._running.wait(5)

    def _occupy(self) -> str:
        self._running.set()
        self._pulled.wait(10)
        return "pulled"

    def pull(self) -> None:
        self._pulled.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield pool


def queued(worker: Worker, count: int) -> None:
    deadline = time.monotonic() + 5
    while worker._queue.qsize() < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_handshakes_go_before_requests_and_requests_before_housekeeping(pool: ThreadPoolExecutor) -> None:
    worker = Worker(timeout=10, queue_size=16)
    plug = Plug(worker)
    order: list[str] = []

    def note(text: str) -> Callable[[], None]:
        return lambda: order.append(text)

    waiting = []
    for text, priority in (
        ("inventory", Priority.HOUSEKEEPING),
        ("csr", Priority.REQUEST),
        ("first handshake", Priority.HANDSHAKE),
        ("second handshake", Priority.HANDSHAKE),
    ):
        waiting.append(pool.submit(worker.call, priority, note(text)))
        queued(worker, len(waiting))
    plug.pull()
    for each in waiting:
        each.result(5)
    assert order == ["first handshake", "second handshake", "csr", "inventory"]


def test_a_full_queue_refuses_at_once(pool: ThreadPoolExecutor) -> None:
    worker = Worker(timeout=10, queue_size=2)
    plug = Plug(worker)
    waiting = [pool.submit(worker.call, Priority.REQUEST, lambda: 1) for _ in range(2)]
    queued(worker, 2)
    with pytest.raises(TokenBusy):
        worker.call(Priority.HANDSHAKE, lambda: 1)
    plug.pull()
    assert [each.result(5) for each in waiting] == [1, 1]


def test_a_caller_waits_no_longer_than_its_time_and_what_it_gave_up_is_not_done() -> None:
    worker = Worker(timeout=0.1, queue_size=4)
    plug = Plug(worker)
    done: list[int] = []
    with pytest.raises(TokenTimeout):
        worker.call(Priority.REQUEST, lambda: done.append(1))
    with pytest.raises(TokenTimeout):
        plug.outcome.result(5)
    plug.pull()
    assert worker.call(Priority.HOUSEKEEPING, lambda: "alive") == "alive"
    assert done == []


async def test_a_coroutine_waits_no_longer_either_and_an_exception_comes_back() -> None:
    worker = Worker(timeout=0.1, queue_size=4)
    with pytest.raises(ZeroDivisionError):
        await worker.acall(Priority.REQUEST, lambda: 1 // 0)
    plug = Plug(worker)
    with pytest.raises(TokenTimeout):
        await worker.acall(Priority.REQUEST, lambda: 1)
    plug.pull()


async def test_stopping_finishes_what_was_queued_and_refuses_the_rest(pool: ThreadPoolExecutor) -> None:
    worker = Worker(timeout=10, queue_size=4)
    plug = Plug(worker)
    order: list[str] = []
    waiting = pool.submit(worker.call, Priority.HOUSEKEEPING, lambda: order.append("queued"))
    queued(worker, 1)
    threading.Timer(0.05, plug.pull).start()
    await worker.stop(lambda: order.append("closed"))
    waiting.result(5)
    assert order == ["queued", "closed"]
    with pytest.raises(TokenFault):
        worker.call(Priority.HANDSHAKE, lambda: 1)
    await worker.stop(lambda: order.append("again"))
    assert order == ["queued", "closed"]


def test_after_a_fork_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(timeout=1, queue_size=4)
    assert worker.call(Priority.REQUEST, lambda: 1) == 1
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(TokenFault, match="fork"):
        worker.call(Priority.REQUEST, lambda: 1)
