"""Taking turns at the token: one caller at a time, the most urgent first.

A token has one queue, and small ones have few sessions and object slots: one caller at a time is the safe way and the
fast one. The queue is bounded: a caller that cannot be served is told at once. There is no thread of its own, so that
a caller who finds the token free pays for a lock and nothing else.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ..errors import TokenBusy, TokenFault, TokenTimeout

_MOST_URGENT: Final = 0


@dataclass(order=True, slots=True)
class _Waiter:
    priority: int
    sequence: int
    turn: threading.Lock = field(compare=False)
    """Held until it is this waiter's turn."""
    ahead: Callable[[], None] | None = field(compare=False)
    """None also once it was called."""
    chosen: bool = field(default=False, compare=False)
    gone: bool = field(default=False, compare=False)

    def call_ahead(self) -> None:
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            ahead()


class Turns:
    """Not to be used after a fork."""

    def __init__(self, queue_size: int) -> None:
        self._queue_size = queue_size
        self._lock = threading.Lock()
        self._taken = False
        self._closed = False
        self._waiting: list[_Waiter] = []
        self._next: _Waiter | None = None
        """The one who has the next turn for sure, since its ``ahead`` was called; it may go before that."""
        self._overlapped = False
        self._sequence = itertools.count()

    def waiting(self) -> int:
        """How many wait now."""
        with self._lock:
            return self._count()

    def _count(self) -> int:
        return sum(not each.gone for each in self._waiting) + (self._next is not None and not self._next.gone)

    @contextmanager
    def take(self, priority: int, timeout: float, ahead: Callable[[], None] | None = None) -> Iterator[None]:
        """The block runs when it is this caller's turn; blocks the thread until then, for ``timeout`` seconds at
        most. Raises TokenBusy, TokenTimeout.

        ``ahead`` belongs to the turn, and is called once before it begins, if somebody has the turn before: when that
        one's is over, or within its ``overlapped``. So the token has the next work while the thread that it is for
        wakes up. It must neither raise nor block.
        """
        self._enter(priority, timeout, ahead)
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def overlapped(self) -> Iterator[None]:
        """For the one whose turn it is, around nothing but the wait for the token's answer: meanwhile the ``ahead`` of
        one more caller may be called, in any thread, if nobody who comes later could go before that one."""
        with self._lock:
            self._overlapped = True
            self._call_ahead()
        try:
            yield
        finally:
            with self._lock:
                self._overlapped = False

    def _call_ahead(self) -> None:
        if not self._overlapped or self._next is not None:
            return
        while self._waiting and self._waiting[0].gone:
            heapq.heappop(self._waiting)
        if self._waiting and self._waiting[0].priority == _MOST_URGENT:
            self._next = heapq.heappop(self._waiting)
            self._next.call_ahead()

    @contextmanager
    def last(self, timeout: float) -> Iterator[None]:
        """The turn after all that wait already; nobody comes in from now on."""
        with self._lock:
            self._closed = True
        self._enter(1000, timeout, None, closing=True)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, priority: int, timeout: float, ahead: Callable[[], None] | None, *, closing: bool = False) -> None:
        with self._lock:
            if self._closed and not closing:
                raise TokenFault("The token has been closed.")
            if not self._taken:
                self._taken = True
                return
            if self._count() >= self._queue_size and not closing:
                raise TokenBusy(f"{self._queue_size} calls wait for the token already.")
            me = _Waiter(priority, next(self._sequence), threading.Lock(), ahead)
            me.turn.acquire()
            heapq.heappush(self._waiting, me)
            self._call_ahead()
        if me.turn.acquire(timeout=max(timeout, 0)):
            return
        with self._lock:
            me.gone = not me.chosen
        if me.gone:
            raise TokenTimeout("The token was busy with others for too long.")
        me.turn.acquire()  # it comes in this very moment

    def _leave(self) -> None:
        with self._lock:
            next_one = self._choose()
            self._taken = next_one is not None
        if next_one is not None:
            next_one.call_ahead()
            next_one.turn.release()

    def _choose(self) -> _Waiter | None:
        while self._next is not None or self._waiting:
            next_one, self._next = self._next or heapq.heappop(self._waiting), None
            if not next_one.gone:
                next_one.chosen = True
                return next_one
        return None
