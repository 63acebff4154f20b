"""The daemon's end of the talk with the token's process: one request at a time, and what can become of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.model import KeyAlgorithm
from ..errors import GatewayError, TokenFault, all_errors
from .base import PinTries, TokenObject, TokenState, TokenStatus
from .channel import JSON, SIGN, SIGN_ANSWER, ChannelClosed, read_json
from .process import Process

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
    """A request that was sent and not answered yet; there is one at most."""

    number: int
    what: str
    since: float
    trying_pin: bool = False


Called = Callable[[str, float, bool], None]
"""``called(what, seconds, failed)``, from the thread of whoever calls the token."""


class Exchange:
    """Not for several threads at once: its callers take turns."""

    def __init__(self, spawn: Callable[[], Process], called: Called = lambda *_: None) -> None:
        """``called`` is told of each request that has come to its end, whether or not somebody waits for it still."""
        self._spawn = spawn
        self._called = called
        self.process: Process | None = None
        self._number = 0
        self._owed: _Owed | None = None

    @property
    def owes_answer(self) -> bool:
        """Somebody has asked and did not wait for the answer."""
        return self._owed is not None

    @property
    def silent_for(self) -> float:
        """Seconds since the request that is not answered yet."""
        return time.monotonic() - self._owed.since if self._owed else 0.0

    def start(self) -> None:
        self.process = self._spawn()

    def send(self, what: str, arguments: Arguments) -> None:
        """Raises Lost. The process must run, and owe no answer."""
        assert self.process is not None
        assert self._owed is None
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        self._owed = _Owed(number, what, time.monotonic())
        try:
            if isinstance(arguments, bytes):
                self.process.channel.send(SIGN, SIGN_ANSWER.pack(number) + arguments)
            else:
                self.process.channel.send_json([number, what, arguments or {}])
        except ChannelClosed:
            raise self._lost() from None

    def receive(self, deadline: float) -> Answer:
        """Raises Lost, and TimeoutError: then the answer is owed still."""
        process, owed = self.process, self._owed
        assert process is not None
        assert owed is not None
        try:
            kind, body = process.channel.receive(deadline)
            while kind == JSON and (answer := read_json(body))[1] == "login":
                owed.trying_pin = True
                kind, body = process.channel.receive(deadline)
            self._owed = None
            if kind == SIGN:
                read = Answer(owed.what, body[SIGN_ANSWER.size :])
            else:
                _, outcome, content, news = answer
                status = _status(news) if news is not None else None
                failure = None if outcome == "done" else _failure(content)
                read = Answer(owed.what, None if failure else content, failure, status)
        except (ChannelClosed, LookupError, TypeError, ValueError):
            self._owed = owed
            raise self._lost() from None
        self._called(owed.what, time.monotonic() - owed.since, read.failure is not None)
        return read

    def _lost(self) -> Lost:
        trying_pin = self._owed is not None and self._owed.trying_pin
        return Lost(self.end(), trying_pin)

    def kill(self) -> None:
        """What is owed is then found to be lost."""
        if self.process is not None:
            self.process.kill()

    def end(self) -> str:
        """How it ended, as the rest of a sentence about the module."""
        process, self.process = self.process, None
        if self._owed is not None:
            self._called(self._owed.what, self.silent_for, True)
            self._owed = None
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
