"""One connection through azure-iot-device: its client bent to a key that is no file, and held to our time limits.

Imported on the first connect only: the SDK takes 33 MB. What it forces on us, as read in the source of 2.14.0:

- It loads a client certificate from files and offers no other way; so one wrapper sits on the two private methods
  that build its TLS contexts (``tests/unit/test_upstream_sdk.py`` fails when they change).
- All its clients share one thread, in which also TCP and TLS handshakes run; a connect waits up to 60 s there and
  everything behind it queues. It cannot be cancelled, but its socket can be shut down, upon which it unwinds by its
  own ordinary ways: that is what ``Wire`` is for.
- A twin request whose answer is lost with the connection never ends; so each call also ends with the connection.
- A call that is cancelled is completed later all the same, with a traceback; so calls are left to end by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from azure.iot.device import Message, MethodRequest, MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.device.common.http_transport import HTTPTransport
from azure.iot.device.common.models.x509 import X509
from azure.iot.device.common.mqtt_transport import MQTTTransport
from azure.iot.device.constant import TELEMETRY_MESSAGE_SIZE_LIMIT
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..errors import GatewayError, HubRejected, HubUnreachable, Internal
from .base import LinkCredential, OnDesired, OnMethod
from .sdk_errors import SDK_ERRORS, translated

Bind = Callable[
    [ssl.SSLContext, x509.Certificate, tuple[x509.Certificate, ...], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey],
    None,
]
"""``bind(context, certificate, chain, private_key)``: make the context authenticate with that key."""

_LISTEN_AGAIN = 10.0
"""Seconds."""

logger = logging.getLogger(__name__)

# The SDK and paho report everything twice: to the caller, which is us, and to the log, there with tracebacks.
if not logger.isEnabledFor(logging.DEBUG):
    for _name in ("azure.iot.device", "paho"):
        logging.getLogger(_name).setLevel(logging.CRITICAL)


class Wire:
    """The sockets of one client, so that they can be shut down under it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[ssl.SSLSocket] = weakref.WeakSet()
        self.is_cut = False

    def watch(self, context: ssl.SSLContext) -> None:
        """Know each socket that ``context`` wraps from now on, before its handshake begins."""
        opened = self._opened

        class Watched(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                opened(self)
                super().do_handshake(block)

        context.sslsocket_class = Watched

    def _opened(self, sock: ssl.SSLSocket) -> None:
        with self._lock:
            if self.is_cut:
                raise ConnectionAbortedError("cut before the handshake")
            self._sockets.add(sock)

    def cut(self) -> None:
        """Shut down what is open and let nothing open any more."""
        with self._lock:
            self.is_cut = True
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown: it would pull the TLS state from under the thread that is using it.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class BoundX509(X509):  # type: ignore[misc] # the SDK is not typed
    """Stands where the SDK expects two file names, and carries a key that it never sees."""

    def __init__(self, credential: LinkCredential, bind: Bind, wire: Wire) -> None:
        super().__init__(cert_file=None, key_file=None)
        self._credential = credential
        self._bind = bind
        self._wire = wire

    def prepare(self, context: ssl.SSLContext) -> None:
        self._bind(context, self._credential.certificate, self._credential.chain, self._credential.private_key)
        self._wire.watch(context)


def _with_bound_key(build: Callable[[Any], ssl.SSLContext]) -> Callable[[Any], ssl.SSLContext]:
    """``_create_ssl_context`` for a BoundX509: let the SDK build the context as for no certificate, then bind ours."""

    @functools.wraps(build)
    def build_and_bind(transport: Any) -> ssl.SSLContext:
        held = transport._x509_cert
        if not isinstance(held, BoundX509):
            return build(transport)
        transport._x509_cert = None
        try:
            context = build(transport)
        finally:
            transport._x509_cert = held
        held.prepare(context)
        return context

    return build_and_bind


for _transport in (MQTTTransport, HTTPTransport):
    _transport._create_ssl_context = _with_bound_key(_transport._create_ssl_context)


class Session:
    """One client with one credential, from ``open`` to the end of its threads. For use on one event loop."""

    def __init__(
        self,
        host: str,
        device_id: str,
        credential: LinkCredential,
        *,
        bind: Bind,
        trust_pem: str | None,
        timeout: float,
        on_down: Callable[[Session], None],
        on_desired: OnDesired,
        on_method: OnMethod,
    ) -> None:
        """``on_down`` is called on the loop, once, when a connection that was up is lost; not after ``end``. For the
        other two see ``Link.listen``."""
        self._host = host
        self._device_id = device_id
        self._trust_pem = trust_pem
        self._timeout = timeout
        self._on_down = on_down
        self._on_desired = on_desired
        self._on_method = on_method
        self._listening: asyncio.Task[None] | None = None
        self._wire = Wire()
        self._x509 = BoundX509(credential, bind, self._wire)
        self._loop = asyncio.get_running_loop()
        self._client: Any = None
        self._opening: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Future[None]] = set()
        self._methods: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._up = False
        self.down = asyncio.Event()
        """Set when the connection is gone, for whatever reason."""

    async def open(self) -> None:
        """Returns at CONNACK 0. Raises HubRefused, HubUnreachable, and what ``bind`` raises; then ``end`` it."""
        self._opening = asyncio.create_task(self._open())
        await self._bounded(self._opening, "accept the connection", ends_with_connection=False)
        self._up = True
        self._state_changed()
        if self.down.is_set():
            raise self._lost()
        self._listening = asyncio.create_task(self._listen())

    async def report(self, properties: Mapping[str, Any]) -> None:
        await self._bounded(self._client.patch_twin_reported_properties(dict(properties)), "take the reported state")

    async def send(self, payload: str, message_id: str, kind: str) -> None:
        message = Message(payload, message_id, content_encoding="utf-8", content_type="application/json")
        message.custom_properties["type"] = kind
        if message.get_size() > TELEMETRY_MESSAGE_SIZE_LIMIT:  # as the SDK counts it
            raise HubRejected(
                f"The {kind} message of {self._device_id} is over the {TELEMETRY_MESSAGE_SIZE_LIMIT // 1024} KB that "
                "the hub takes.",
                device=self._device_id,
            )
        await self._bounded(self._client.send_message(message), "take the message")

    async def _listen(self) -> None:
        """Subscribe, then read what was said before; again until it has worked or the connection is gone."""
        while self._up:
            try:
                await self._bounded(asyncio.to_thread(self._subscribe), "take the subscriptions")
                await self._bounded(self._read_twin(), "answer with the twin")
                return
            except GatewayError as error:
                await asyncio.sleep(_LISTEN_AGAIN)
                if self._up:  # a lost connection has been told by then
                    logger.warning("Desired properties of %s: %s", self._device_id, error)

    def _subscribe(self) -> None:
        # Blocks until the hub has acknowledged. Coroutines, because the SDK runs plain functions in a pool of threads,
        # where two patches may overtake each other.
        async def desired(patch: Mapping[str, Any]) -> None:
            self._on_loop(self._tell_desired, patch)

        async def method(request: MethodRequest) -> None:
            self._on_loop(self._begin_method, request)

        self._client.on_twin_desired_properties_patch_received = desired
        self._client.on_method_request_received = method

    async def _read_twin(self) -> None:
        twin = await self._client.get_twin()
        self._tell_desired(twin.get("desired", {}))

    def _on_loop(self, call: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, argument)

    def _tell_desired(self, section: Mapping[str, Any]) -> None:
        try:
            self._on_desired(section)
        except Exception:
            logger.exception("desired properties of %s could not be taken", self._device_id)

    def _begin_method(self, request: MethodRequest) -> None:
        task = asyncio.create_task(self._answer_method(request))
        self._methods.add(task)
        task.add_done_callback(self._methods.discard)

    async def _answer_method(self, request: MethodRequest) -> None:
        answer = await self._on_method(request.name, request.payload)
        response = MethodResponse.create_from_method_request(request, answer.status, answer.payload)
        try:
            await self._bounded(self._client.send_method_response(response), "take the answer to a direct method")
        except GatewayError as error:
            logger.warning("The answer to %s: %s", request.name, error)

    def end(self) -> asyncio.Task[None]:
        """Disconnect, and end the client's threads; the task is done when they have ended. It never fails, but where
        the SDK hangs in what nobody can interrupt (a name look-up) it takes as long as that."""
        self._up = False
        self.down.set()
        if self._listening is not None:
            self._listening.cancel()
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        return self._ending

    def cut(self) -> None:
        """Make whatever is under way fail now."""
        self._wire.cut()

    async def _open(self) -> None:
        self._client = await asyncio.to_thread(self._create)
        self._client.on_connection_state_change = self._signal
        if not self._wire.is_cut:
            await self._client.connect()

    def _create(self) -> Any:
        # Blocks: it waits for the SDK's one thread.
        return IoTHubDeviceClient.create_from_x509_certificate(
            self._x509,
            self._host,
            self._device_id,
            server_verification_cert=self._trust_pem,
            auto_connect=False,
            connection_retry=False,
            ensure_desired_properties=False,
        )

    def _signal(self) -> None:
        # In a thread of the SDK's, possibly when the loop has ended.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._state_changed)

    def _state_changed(self) -> None:
        if self._up and not self._client.connected:
            self._go_down()

    def _go_down(self) -> None:
        self._up = False
        self.down.set()
        self._on_down(self)

    async def _bounded(self, work: Awaitable[None], what: str, *, ends_with_connection: bool = True) -> None:
        call = asyncio.ensure_future(work)
        self._calls.add(call)
        call.add_done_callback(self._forget)
        waiting: set[asyncio.Future[Any]] = {call}
        if ends_with_connection:
            waiting.add(asyncio.create_task(self.down.wait()))
        try:
            await asyncio.wait(waiting, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for other in waiting - {call}:
                other.cancel()
        if call.done():
            try:
                call.result()
            except Exception as error:
                self._state_changed()  # the SDK's own notice may come later than its error
                problem = translated(error, self._device_id)
                if isinstance(problem, Internal):
                    logger.error("%s", problem, exc_info=error)
                raise problem from None
        elif ends_with_connection and self.down.is_set():
            raise self._lost()
        else:
            self.cut()
            if self._up:
                self._go_down()
            raise HubUnreachable(
                f"The hub did not {what} of {self._device_id} within {self._timeout:g} seconds.", device=self._device_id
            )

    def _forget(self, call: asyncio.Future[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # has been seen, even if nobody waits for it any more

    def _lost(self) -> HubUnreachable:
        return HubUnreachable(f"The hub connection of {self._device_id} was lost.", device=self._device_id)

    async def _end(self) -> None:
        if self._client is None or not self._client.connected:
            self.cut()  # there is nothing to take leave of, and a connect under way fails now
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._client is None:
            return
        # The first attempt fails when the connection breaks at this very moment; the second finds it broken.
        for _ in range(2):
            cutter = self._loop.call_later(self._timeout / 2, self.cut)
            try:
                await self._client.shutdown()
                break
            except SDK_ERRORS:
                continue
            finally:
                cutter.cancel()
        for call in self._calls:
            call.cancel()  # twin requests: nothing will complete them any more
