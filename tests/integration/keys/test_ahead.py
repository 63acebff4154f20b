"""A signature is asked for while the one before is made: who gets which answer, and what becomes of both."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from gatewayd.errors import TokenFault, TokenTimeout
from gatewayd.keys.base import Priority, Scheme
from gatewayd.keys.channel import JSON, SIGN, SIGN_ANSWER, SIGN_REQUEST, Channel, ChannelClosed, read_json
from gatewayd.keys.pin import Pin
from gatewayd.keys.token import Pkcs11KeyStore
from gatewayd.keys.uri import Pkcs11Uri

WITHIN = 5.0


class Scripted:
    """The token's process, which logs in by itself and answers signatures when it is told to."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self._channel = Channel(theirs)
        self._arrived = threading.Condition()
        self.asked: list[tuple[int, bytes]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                kind, body = self._channel.receive()
                if kind == JSON:
                    self._channel.send_json([read_json(body)[0], "done", None, None])
                    continue
                number, _, length = SIGN_REQUEST.unpack_from(body)
                with self._arrived:
                    self.asked.append((number, body[SIGN_REQUEST.size + length :]))
                    self._arrived.notify_all()
        except ChannelClosed:
            pass

    def wait(self, *data: bytes) -> None:
        """Until it has been asked to sign these."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: [each for _, each in self.asked] == list(data), WITHIN), self.asked

    def sign(self) -> None:
        """The first that is not signed yet."""
        number, data = self.asked.pop(0)
        self._channel.send(SIGN, SIGN_ANSWER.pack(number) + b"signed " + data)

    def refuse(self, *, reload: bool, still_open: bool) -> None:
        failure = {"error": TokenFault.name(), "message": "No.", "reload": reload, "open": still_open}
        self._channel.send_json([self.asked.pop(0)[0], "failed", failure, None])

    def end(self) -> str:
        self.channel.close()
        return "ended"

    def kill(self) -> None:
        self._channel.close()


class Desk:
    def __init__(self, timeout: float) -> None:
        self.processes: list[Scripted] = []
        self._store = Pkcs11KeyStore(Path("m"), "pkcs11:token=t", Pin("1"), timeout=timeout, spawn=self._spawn)
        self._pool = ThreadPoolExecutor(8)

    def _spawn(self, _: Path, __: Pkcs11Uri) -> Scripted:
        self.processes.append(Scripted())
        return self.processes[-1]

    def ask(self, data: bytes, priority: Priority = Priority.HANDSHAKE) -> Future[bytes]:
        return self._pool.submit(self._store._sign, b"key", Scheme.ECDSA, data, priority)

    def two(self) -> tuple[Scripted, Future[bytes], Future[bytes]]:
        """One that is being made, and one that was sent ahead."""
        first = self.ask(b"1")
        while not self.processes:
            time.sleep(0.001)
        process = self.processes[0]
        process.wait(b"1")
        second = self.ask(b"2")
        process.wait(b"1", b"2")
        return process, first, second

    def close(self) -> None:
        for each in self.processes:
            each.end()
        self._pool.shutdown()


@pytest.fixture
def new_desk() -> Iterator[Callable[[float], Desk]]:
    desks: list[Desk] = []

    def make(timeout: float) -> Desk:
        desks.append(Desk(timeout))
        return desks[-1]

    yield make
    for each in desks:
        each.close()


NewDesk = Callable[[float], Desk]


def test_the_next_is_there_before_the_first_is_signed_and_each_gets_its_own(new_desk: NewDesk) -> None:
    desk = new_desk(WITHIN)
    process, first, second = desk.two()
    third = desk.ask(b"3")
    process.sign()
    assert first.result(WITHIN) == b"signed 1"
    process.wait(b"2", b"3")
    process.sign()
    process.sign()
    assert (second.result(WITHIN), third.result(WITHIN)) == (b"signed 2", b"signed 3")


def test_what_was_sent_ahead_is_asked_for_again_when_the_process_dies(new_desk: NewDesk) -> None:
    desk = new_desk(WITHIN)
    process, first, second = desk.two()
    process.kill()
    _sign_with_a_fresh_one(desk, first, second)


def test_what_was_sent_ahead_is_asked_for_again_when_the_module_is_loaded_afresh(new_desk: NewDesk) -> None:
    desk = new_desk(WITHIN)
    process, first, second = desk.two()
    process.refuse(reload=True, still_open=True)
    _sign_with_a_fresh_one(desk, first, second)


def _sign_with_a_fresh_one(desk: Desk, first: Future[bytes], second: Future[bytes]) -> None:
    while len(desk.processes) < 2:
        time.sleep(0.001)
    process = desk.processes[1]
    process.wait(b"1")
    process.sign()
    assert first.result(WITHIN) == b"signed 1"
    process.wait(b"2")
    process.sign()
    assert second.result(WITHIN) == b"signed 2"
    assert len(desk.processes) == 2


def test_a_refusal_that_closes_the_token_has_the_next_log_in_again(new_desk: NewDesk) -> None:
    desk = new_desk(WITHIN)
    process, first, second = desk.two()
    process.refuse(reload=False, still_open=False)
    with pytest.raises(TokenFault, match=r"No\."):
        first.result(WITHIN)
    process.refuse(reload=False, still_open=False)  # the token is not open
    process.wait(b"2")
    process.sign()
    assert second.result(WITHIN) == b"signed 2"


def test_who_gives_up_leaves_the_others_their_answers(new_desk: NewDesk) -> None:
    desk = new_desk(0.3)
    process, first, second = desk.two()
    for each in (first, second):
        with pytest.raises(TokenTimeout):
            each.result(WITHIN)
    third = desk.ask(b"3")
    process.sign()
    process.sign()
    process.wait(b"3")
    process.sign()
    assert third.result(WITHIN) == b"signed 3"
    assert len(desk.processes) == 1
