"""Connections: accepted, bounded, and let go in order.

asyncio's own server would do but for three things: it binds one SSLContext for good, it does not count handshakes
that never end, and it knows no upper limit. So accepting is done here, with the loop's public parts.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from typing import Final, cast

from aiohttp import web

from ..errors import ConfigInvalid
from .handshake import Handshakes
from .http import HttpServer
from .limits import network
from .tls import ServerTls

MAX_CONNECTIONS: Final = 512
"""Beyond it, connections wait in the kernel's queue."""
MAX_PER_ADDRESS: Final = 256
"""Beyond it, connections from one address are dropped, so that one host alone cannot take all of them."""
HANDSHAKE_SECONDS: Final = 10.0
_SHUTDOWN_SECONDS: Final = 2.0
"""For the peer to close TLS as TLS wants it; strongSwan never does."""
_PAUSE_SECONDS: Final = 0.5

log = logging.getLogger(__name__)


class Listener:
    """Hands each connection, its TLS handshake done with the context of that moment, to an HttpServer."""

    def __init__(self, name: str, http: HttpServer, tls: ServerTls, address: str, port: int) -> None:
        """Binds and listens; ``name``: the table of its settings. Raises ConfigInvalid when it cannot."""
        self._http = http
        self._tls = tls
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        self._by_network: Counter[str] = Counter()
        self._shaking_hands = Handshakes(name)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._established: set[asyncio.Task[None]] = set()
        self._socket = _listen(name, address, port)
        self.port = int(self._socket.getsockname()[1])
        self._accepting = asyncio.create_task(self._accept(), name=f"{name}-accept")

    async def close(self) -> None:
        """Accept nothing more and drop the handshakes under way; established connections go on."""
        self._accepting.cancel()
        await asyncio.wait({self._accepting})
        self._socket.close()
        await asyncio.sleep(0)  # a task made in this very moment takes hold of its socket first
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        self._shaking_hands.close()

    async def drained(self) -> None:
        """Return when the last established connection is gone."""
        await asyncio.gather(*self._established, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                connection, peer = await loop.sock_accept(self._socket)
            except OSError as error:
                # Out of file descriptors, or a peer that was gone before it was accepted.
                self._free.release()
                log.warning("A connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except asyncio.CancelledError:
                self._free.release()
                raise
            remote = network(peer[0])
            if self._by_network[remote] >= MAX_PER_ADDRESS:
                connection.close()
                self._free.release()
                continue
            self._by_network[remote] += 1
            task = loop.create_task(self._serve(connection, remote))
            self._handshakes.add(task)

    async def _serve(self, connection: socket.socket, remote: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            protocol = await self._establish(connection)
            self._established.add(task)
            self._handshakes.discard(task)
            await self._http.gone(protocol)
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "the connection was closed"
            log.info("TLS with %s failed: %s", remote, reason)
        except TimeoutError:
            log.info("TLS with %s was not up within %.0f s", remote, HANDSHAKE_SECONDS)
        except OSError:
            log.debug("%s was gone before TLS was up", remote)
        finally:
            self._handshakes.discard(task)
            self._established.discard(task)
            self._by_network[remote] -= 1
            if not self._by_network[remote]:
                del self._by_network[remote]
            self._free.release()

    async def _establish(self, connection: socket.socket) -> web.RequestHandler:
        """TLS, and HTTP over it. Raises ssl.SSLError and OSError, with the connection closed."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                ready = await self._shaking_hands.accept(self._tls.context, connection)
            _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
                self._http,
                connection,
                ssl=cast(ssl.SSLContext, ready),
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except BaseException:
            connection.close()
            raise
        return protocol


def _listen(name: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    dual = address == "::"
    try:
        listener = socket.create_server((address, port), family=family, backlog=1024, dualstack_ipv6=dual)
    except OSError as error:
        raise ConfigInvalid(f"{name}: cannot listen on {address} port {port}: {error.strerror or error}") from None
    listener.setblocking(False)
    return listener
