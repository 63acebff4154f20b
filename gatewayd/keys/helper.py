"""The token's own process: ``python -m gatewayd.keys.helper FD MODULE URI``, started by process.py.

The PKCS#11 module is somebody else's native code. Here its crash, its memory and its hanging stay away from the daemon,
which asks over a socket pair, is answered in the same order, and starts another process when this one is gone. The PIN
comes over the socket and is forgotten after the login. There is no thread, no asyncio and no cryptography in here.

A request is ``[number, what, {arguments}]``. The answer is ``[number, "done", result, status]`` or
``[number, "failed", {error, message, reload, open}, status]``, with the token's status when it has changed, else
null; before the PIN is tried, ``[number, "login"]`` comes first. A signature has a short form (channel.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pkcs11
from pkcs11 import Mechanism

from ..core.model import KeyAlgorithm
from ..errors import GatewayError, Internal, TokenFull, TokenModuleBroken, TokenNotFound, TokenUnusable
from . import faults, objects, provision, room, uri
from .base import Scheme
from .channel import SIGN, SIGN_ANSWER, SIGN_REQUEST, Channel, ChannelClosed, read_json
from .connection import TokenConnection
from .pin import Pin

_MECHANISMS: Final = {
    Scheme.ECDSA: Mechanism.ECDSA,
    Scheme.RSA_PKCS1: Mechanism.RSA_PKCS,
    Scheme.RSA_RAW: Mechanism.RSA_X_509,
}
_BY_PLACE: Final = tuple(_MECHANISMS[scheme] for scheme in Scheme)

_CURED_BY_RELOAD: Final = (TokenNotFound, TokenModuleBroken, TokenUnusable)
"""Some modules learn of a token that came later only when they are loaded afresh."""


class Server:
    """Answers until the daemon closes its end."""

    def __init__(self, channel: Channel, module: Path, wanted: uri.Pkcs11Uri) -> None:
        self._channel = channel
        self._module = module
        self._token = TokenConnection(module, wanted)
        self._number = 0
        self._told: Any = None
        self._handlers: dict[str, Callable[..., Any]] = {
            "open": self._open,
            "initialize": self._initialize,
            "generate": self._generate,
            "find": self._find,
            "destroy": self._destroy,
            "objects": self._objects,
            "probe": self._probe,
        }

    def serve(self) -> None:
        try:
            while True:
                kind, body = self._channel.receive()
                if kind == SIGN:
                    self._sign(body)
                else:
                    self._number, what, arguments = read_json(body)
                    self._reply(*self._attempt(what, partial(self._handle, what, arguments)))
        except ChannelClosed:
            pass
        finally:
            with contextlib.suppress(pkcs11.PKCS11Error):
                self._token.close()

    def _attempt(self, what: str, work: Callable[[], Any]) -> tuple[str, Any]:
        try:
            return "done", work()
        except pkcs11.PKCS11Error as error:
            return self._failure(self._token.failed(error), faults.cured_by_reload(error))
        except GatewayError as error:
            return self._failure(error, isinstance(error, _CURED_BY_RELOAD))
        except ChannelClosed:
            raise
        except Exception as error:
            return self._failure(Internal(f"{what} failed in the token's process: {type(error).__name__}."), False)

    def _failure(self, error: GatewayError, reload: bool) -> tuple[str, Any]:
        content = {"error": error.name(), "message": error.message, "reload": reload, "open": self._token.is_open}
        return "failed", content

    def _handle(self, what: str, arguments: dict[str, Any]) -> Any:
        return self._handlers[what](**arguments)

    def _reply(self, outcome: str, content: Any) -> None:
        self._channel.send_json([self._number, outcome, content, self._news()])

    def _news(self) -> dict[str, Any] | None:
        status = self._token.status
        if status is self._told:
            return None
        self._told = status
        until = status.locked_until
        times = {"since": status.since.isoformat(), "locked_until": until.isoformat() if until else None}
        return dataclasses.asdict(status) | times

    # --- the requests ----------------------------------------------------------------------------

    def _open(self, pin: str, final_try: bool) -> None:
        self._token.open(Pin(pin), lambda: self._channel.send_json([self._number, "login"]), final_try=final_try)

    def _initialize(self, label: str, pin: str) -> dict[str, Any]:
        """Only before ``open``: the module is finalised."""
        made = provision.init_token(self._module, label, None, Pin(pin))
        return dataclasses.asdict(made)

    def _sign(self, body: bytes) -> None:
        self._number, place, length = SIGN_REQUEST.unpack_from(body)
        data = SIGN_REQUEST.size + length
        key_id, block, mechanism = body[SIGN_REQUEST.size : data], body[data:], _BY_PLACE[place]
        token = self._token
        outcome, made = self._attempt(
            "sign", lambda: token.run(lambda _: token.private_key(key_id).sign(block, mechanism=mechanism))
        )
        if outcome == "done" and token.status is self._told:
            self._channel.send(SIGN, SIGN_ANSWER.pack(self._number) + made)
        else:
            self._reply(outcome, made.hex() if outcome == "done" else made)

    def _generate(self, id: str, label: str, algorithm: str) -> objects.PublicNumbers:
        key_id = bytes.fromhex(id)
        try:
            return self._token.run(
                lambda session: objects.generate(session, key_id, label, KeyAlgorithm(algorithm)), makes_key=True
            )
        except faults.BROKEN as error:
            if (place := room.full_place(self._token.library)) is not None:
                self._token.close()  # tpm2-pkcs11 leaves the key that it could not store in one of the TPM's few slots
                raise TokenFull(f"The token has no room for key {id}: the disk is full under {place}.") from error
            raise

    def _find(self, public: objects.PublicNumbers) -> tuple[str, KeyAlgorithm] | None:
        found = self._token.run(lambda session: objects.find(session, public))
        return (found[0].hex(), found[1]) if found else None

    def _destroy(self, id: str) -> None:
        key_id = bytes.fromhex(id)
        self._token.forget(key_id)
        self._token.run(lambda session: objects.destroy(session, key_id))

    def _objects(self) -> list[dict[str, Any]]:
        found = self._token.run(objects.inventory)
        return [{**dataclasses.asdict(each), "id": each.id.hex()} for each in found]

    def _probe(self) -> None:
        self._token.run(lambda session: session.token.slot.get_token())


def main() -> None:
    # The daemon ends this process by closing the socket, after its own orderly stop: also when systemd signals all.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no PIN in a core file
    fd, module, wanted = sys.argv[1:]
    Server(Channel(socket.socket(fileno=int(fd))), Path(module), uri.parse(wanted)).serve()
