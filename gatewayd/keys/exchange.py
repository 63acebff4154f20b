"""The daemon's end of the talk with the token's process, and what can become of a request.

The process works off one request after the other. One signature may be asked for while the request before it is not
answered yet, so that the process finds it as soon as it is done with that.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ..core.model import KeyAlgorithm
from ..errors import GatewayError, TokenFault, all_errors
from .base import PinTries, TokenObject, TokenState, TokenStatus
from .channel import JSON, SIGN, SIGN_ANSWER, ChannelClosed, read_json
from .process import Process

_DEPTH: Final = 2
ALONE: Final = nullcontext()
"""For whom nothing is sent ahead."""

Arguments = dict[str, Any] | bytes | None
"""Of a request; bytes are a signature's short form (channel.py), less its number."""


class Lost(Exception):
    """The process is gone in the middle of a request, or makes no sense any more."""

    def __init__(self, how: str, trying_pin: bool) -> None:
        """``how`` is the rest of a sentence; ``trying_pin``: it had said that it was about to log in."""
        super().__init__(how)
        self.how = how
        self.trying_pin = trying_pin


@dataclass(frozen=True, slots=True)
class Failure:
    error: GatewayError
    reload: bool
    """Whether a fresh start of the module may cure it."""
    still_open: bool


@dataclass(frozen=True, slots=True)
class Answer:
    what: str
    """The request."""
    result: Any = None
    failure: Failure | None = None
    status: TokenStatus | None = None
    """The token's, when it has changed."""


@dataclass(slots=True)
class _Owed:
    """A request that was sent and not answered yet."""

    number: int
    what: str
    since: float
    """When the process could begin with it."""
    trying_pin: bool = False


Called = Callable[[str, float, bool], None]
"""``called(what, seconds, failed)``, from the thread of whoever calls the token."""


class Exchange:
    """Not for several threads at once: its callers take turns. Only ``send_ahead`` may be called during ``receive``,
    while that is in the context that it was given."""

    def __init__(self, spawn: Callable[[], Process], called: Called = lambda *_: None) -> None:
        """``called`` is told of each request that has come to its end, whether or not somebody waits for it still."""
        self._spawn = spawn
        self._called = called
        self.process: Process | None = None
        self._number = 0
        self._owed: deque[_Owed] = deque()

    @property
    def owes_answer(self) -> int:
        """The number of the request that will be answered next; 0: none is."""
        return self._owed[0].number if self._owed else 0

    @property
    def silent_for(self) -> float:
        """Seconds since the request that is not answered yet."""
        return time.monotonic() - self._owed[0].since if self._owed else 0.0

    def start(self) -> None:
        self.process = self._spawn()

    def send(self, what: str, arguments: Arguments) -> None:
        """Raises Lost. The process must run, and owe no answer."""
        assert not self._owed
        try:
            self._send(what, arguments)
        except ChannelClosed:
            raise self._lost() from None

    def send_ahead(self, arguments: bytes) -> int:
        """Ask for a signature behind what is owed; the request's number, or 0 where that cannot be: then nothing has
        changed. It is lost with the process, or when whoever has the turn ends it."""
        if self.process is None or len(self._owed) >= _DEPTH:
            return 0
        try:
            return self._send("sign", arguments)
        except ChannelClosed:  # whoever has the turn finds out, too
            self._owed.pop()
            return 0

    def _send(self, what: str, arguments: Arguments) -> int:
        assert self.process is not None
        self._number = number = self._number % 0xFFFFFFFF + 1
        self._owed.append(_Owed(number, what, time.monotonic()))
        if isinstance(arguments, bytes):
            self.process.channel.send(SIGN, SIGN_ANSWER.pack(number) + arguments)
        else:
            self.process.channel.send_json([number, what, arguments or {}])
        return number

    def receive(self, deadline: float, waiting: AbstractContextManager[None] = ALONE) -> Answer:
        """The next answer; ``waiting`` is entered while it is waited for. Raises Lost, and TimeoutError: then it is
        owed still."""
        process, owed = self.process, self._owed[0]
        assert process is not None
        try:
            with waiting:
                kind, body = process.channel.receive(deadline)
                while kind == JSON and (answer := read_json(body))[1] == "login":
                    owed.trying_pin = True
                    kind, body = process.channel.receive(deadline)
            number = SIGN_ANSWER.unpack_from(body)[0] if kind == SIGN else answer[0]
            if number != owed.number:
                raise ValueError
            if kind == SIGN:
                read = Answer(owed.what, body[SIGN_ANSWER.size :])
            else:
                _, _, content, news = answer
                status = _status(news) if news is not None else None
                failure = None if answer[1] == "done" else _failure(content)
                read = Answer(owed.what, None if failure else content, failure, status)
        except (ChannelClosed, LookupError, TypeError, ValueError, struct.error):
            raise self._lost() from None
        now = time.monotonic()
        self._owed.popleft()
        if self._owed:
            self._owed[0].since = now
        self._called(owed.what, now - owed.since, read.failure is not None)
        return read

    def _lost(self) -> Lost:
        trying_pin = bool(self._owed) and self._owed[0].trying_pin
        return Lost(self.end(), trying_pin)

    def kill(self) -> None:
        """What is owed is then found to be lost."""
        if self.process is not None:
            self.process.kill()

    def end(self) -> str:
        """How it ended, as the rest of a sentence about the module."""
        process, self.process = self.process, None
        if self._owed:  # what was sent ahead of its turn is asked for again
            self._called(self._owed[0].what, self.silent_for, True)
            self._owed.clear()
        return process.end() if process is not None else "was not running"


def _status(news: dict[str, Any]) -> TokenStatus:
    return TokenStatus(
        **{
            **news,
            "state": TokenState(news["state"]),
            "since": datetime.fromisoformat(news["since"]),
            "pin_tries": PinTries(news["pin_tries"]),
            "locked_until": datetime.fromisoformat(news["locked_until"]) if news["locked_until"] else None,
            "algorithms": tuple(map(KeyAlgorithm, news["algorithms"])),
        }
    )


def token_object(content: dict[str, Any]) -> TokenObject:
    """One of those that a request for ``objects`` is answered with. Raises LookupError, TypeError, ValueError."""
    algorithm = content["algorithm"]
    return TokenObject(
        **{
            **content,
            "id": bytes.fromhex(content["id"]),
            "algorithm": KeyAlgorithm(algorithm) if algorithm else None,
        }
    )


def _failure(content: dict[str, Any]) -> Failure:
    error = all_errors().get(content["error"], TokenFault)(content["message"])
    return Failure(error, content["reload"], content["open"])
