"""TLS handshakes beside the event loop, because the token signs inside them.

A signature takes 0.1 ms with SoftHSM and up to 200 ms with a TPM, and it blocks the thread in which it is asked for.
So each step of a handshake is made in one of a few threads, on the connection's own memory buffers. asyncio's TLS takes
over once the handshake is done: what it gets for a context is one ready connection (``Ready``), and all that it does
from then on is quick.

The threads are few on purpose: the token signs one after another anyway, and what waits here leaves the token's queue
to others, such as the gateway's own connection to the hub.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

THREADS: Final = 4
_CHUNK: Final = 16384


class Handshakes:
    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix=f"{name}-tls")

    def close(self) -> None:
        """Does not wait for the signatures under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def accept(self, context: ssl.SSLContext, connection: socket.socket) -> Ready:
        """Shake hands as the server. Raises ssl.SSLError and OSError; ``connection`` stays the caller's to close."""
        loop = asyncio.get_running_loop()
        ready = Ready(context)
        while True:
            received = await loop.sock_recv(connection, _CHUNK)
            if not received:
                raise ConnectionResetError("the peer went away")
            ready.received(received)
            try:
                done = await loop.run_in_executor(self._threads, ready.step)
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(connection, ready.to_send())  # the alert that says why
                raise
            await loop.sock_sendall(connection, ready.to_send())
            if done:
                return ready


class Ready:
    """One connection whose TLS is up, for ``loop.connect_accepted_socket`` to take as its ``ssl`` argument.

    asyncio asks that for nothing but ``wrap_bio``, with two buffers of its own. The connection keeps those that it was
    made with, since they hold what the peer has sent already, and what passes is carried from the ones to the others.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._from_peer, self._to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_peer, self._to_peer, server_side=True)
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None

    # --- while the handshake is under way: one step at a time, in any thread ----------------------

    def step(self) -> bool:
        """Go as far as what was received allows; whether the handshake is done. Raises ssl.SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def to_send(self) -> bytes:
        return self._to_peer.read()

    def received(self, data: bytes) -> None:
        self._from_peer.write(data)

    # --- what asyncio sees of it: first an SSLContext, then an SSLObject --------------------------

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **_: object) -> Ready:
        self._incoming, self._outgoing = incoming, outgoing
        return self

    def do_handshake(self) -> None:
        pass

    def read(self, *arguments: Any) -> Any:
        self._take_in()
        try:
            return self._tls.read(*arguments)
        finally:
            self._give_out()

    def write(self, data: bytes) -> int:
        try:
            return self._tls.write(data)
        finally:
            self._give_out()

    def unwrap(self) -> None:
        self._take_in()
        try:
            self._tls.unwrap()
        finally:
            self._give_out()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls, name)

    def _take_in(self) -> None:
        assert self._incoming is not None
        if self._incoming.pending:
            self._from_peer.write(self._incoming.read())
        if self._incoming.eof and not self._from_peer.eof:
            self._from_peer.write_eof()

    def _give_out(self) -> None:
        assert self._outgoing is not None
        if self._to_peer.pending:
            self._outgoing.write(self._to_peer.read())
