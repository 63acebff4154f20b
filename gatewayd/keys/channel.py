"""Messages over a socket pair between the daemon and the token's process.

A message is a kind (one byte) and a body, with their length in front. Requests and answers are JSON, in which bytes
are hex; only a signature, on which handshakes wait, has a form of its own, because JSON would cost a fifth of it. What
comes from the other side is data and nothing else, whatever a module has done to the process that it runs in.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any, Final

JSON: Final = b"J"
SIGN: Final = b"S"
"""Request: number, scheme's place in Scheme, length of the key's id, the id, the data. Answer: number, signature."""

SIGN_REQUEST: Final = struct.Struct(">IBB")
SIGN_ANSWER: Final = struct.Struct(">I")

_HEAD: Final = struct.Struct(">Ic")
_LONGEST: Final = 16 * 1024 * 1024
_TICK: Final = struct.pack("ll", 0, 100_000)
"""struct timeval: how often a waiting receiver looks at its deadline. Set once, where a time limit by select or
settimeout would cost a system call or two for each message."""


class ChannelClosed(Exception):
    """The other side is gone, or does not speak our language."""


class Channel:
    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)
        self._socket = sock
        self._received = b""

    def send(self, kind: bytes, body: bytes) -> None:
        """Raises ChannelClosed."""
        try:
            self._socket.sendall(_HEAD.pack(len(body), kind) + body)
        except OSError as error:
            raise ChannelClosed from error

    def send_json(self, message: Any) -> None:
        """Raises ChannelClosed."""
        self.send(JSON, json.dumps(message, separators=(",", ":")).encode())

    def receive(self, deadline: float | None = None) -> tuple[bytes, bytes]:
        """The next message: kind and body. Raises TimeoutError when ``deadline`` (on time.monotonic) has passed; what
        has come of the message by then is kept. Raises ChannelClosed."""
        received = self._received
        while len(received) < _HEAD.size or len(received) < _HEAD.size + _length(received):
            try:
                more = self._socket.recv(65536)
            except BlockingIOError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError from None
                continue
            except OSError as error:
                raise ChannelClosed from error
            if not more:
                raise ChannelClosed
            received = self._received = received + more
        end = _HEAD.size + _length(received)
        self._received = received[end:]
        return received[_HEAD.size - 1 : _HEAD.size], received[_HEAD.size : end]

    def close(self) -> None:
        self._socket.close()


def _length(received: bytes) -> int:
    length: int = _HEAD.unpack_from(received)[0]
    if length > _LONGEST:
        raise ChannelClosed
    return length


def read_json(body: bytes) -> Any:
    """A JSON body. Raises ChannelClosed."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise ChannelClosed from error
