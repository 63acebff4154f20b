"""The token's process as a thread of the test's: the same server over a real socket pair, where a test can reach it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from gatewayd.keys.channel import Channel
from gatewayd.keys.connection import TokenConnection
from gatewayd.keys.helper import Server
from gatewayd.keys.uri import Pkcs11Uri


class TokenThreads:
    """Give ``spawn`` to a key store."""

    def __init__(self) -> None:
        self.started: list[TokenThread] = []

    def spawn(self, module: Path, wanted: Pkcs11Uri) -> TokenThread:
        self.started.append(TokenThread(module, wanted))
        return self.started[-1]

    @property
    def connection(self) -> TokenConnection:
        """Of the one that was started last."""
        return self.started[-1].server._token


class TokenThread:
    def __init__(self, module: Path, wanted: Pkcs11Uri) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self._theirs = theirs
        self.server = Server(Channel(theirs), module, wanted)
        self.killed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._theirs:
            self.server.serve()

    def end(self) -> str:
        self.channel.close()
        self._thread.join(5)
        return "ended"

    def kill(self) -> None:
        """What is seen of it from outside. The module is shared here: it must not be finalised a second time, when
        the thread comes to its own end."""
        self.killed = True
        self.server._token.close()
        self.server._token.close = lambda: None  # type: ignore[method-assign]
        self._theirs.shutdown(socket.SHUT_RDWR)
