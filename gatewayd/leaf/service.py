"""EST's operations (RFC 7030): facts are collected here, decisions are the Enroller's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web
from cryptography import x509

from ..config import EstSettings
from ..core.enrollment import Enrolled, EnrollmentRequest, Operation, Pending
from ..errors import CodeRefused, GatewayError, IssuerUnreachable, TooManyRequests
from ..pki import csr, pkcs7
from . import linking, wire
from .base import Enroller
from .http import HttpServer, to_response
from .limits import CodeGuard
from .listener import Listener
from .tls import ServerTls, peer_chain
from .wire import Resource

BODY_SECONDS: Final = 15.0
"""For a request's body to come in."""
_GRACE_SECONDS: Final = 30.0
"""Beyond ``answer_within``, for an Enroller that does not answer at all."""
_BUSY_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class EstService:
    """Serves EST over TLS, on the event loop on which it is started; once."""

    def __init__(
        self, enroller: Enroller, settings: EstSettings, tls: ServerTls, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._enroller = enroller
        self._settings = settings
        self._tls = tls
        self._guard = CodeGuard(clock)
        self._enrolling = 0

    async def start(self) -> int:
        """Listens on the port that it returns. Raises ConfigInvalid when the address or port cannot be had."""
        self._http = HttpServer(self._handle)
        self._listener = Listener("est", self._http, self._tls, self._settings.address, self._settings.port)
        return self._listener.port

    async def stop(self, drain: float) -> None:
        """Accept nothing more; answer the requests under way, for at most ``drain`` seconds."""
        await self._listener.close()
        self._http.pre_shutdown()
        await self._http.shutdown(drain)
        await self._listener.drained()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._answer(request)
        except wire.Refused as refused:
            answer = refused.answer
        except GatewayError as error:
            answer = wire.refusal(error)
            log.info("%s %s refused: %s: %s", request.remote, request.path, error.name(), error.message)
        except ConnectionError:
            raise  # there is nobody to answer
        except Exception:
            log.exception("A request for %s failed", request.path)
            answer = wire.failure()
        return to_response(answer)

    async def _answer(self, request: web.BaseRequest) -> wire.Answer:
        resource = wire.route(request.method, request.rel_url.raw_path, self._settings.labels)
        user_agent = request.headers.get(hdrs.USER_AGENT, "")
        match resource:
            case Resource.CACERTS:
                anchors = await self._enroller.anchors()
                return wire.certificates(_certs_only(*anchors), user_agent)
            case Resource.CSRATTRS:
                return wire.csr_attributes(user_agent)
            case Resource.ENROLL | Resource.REENROLL:
                return await self._enroll(Operation(resource), request, user_agent)

    async def _enroll(self, operation: Operation, request: web.BaseRequest, user_agent: str) -> wire.Answer:
        remote = request.remote or ""
        authorization = request.headers.get(hdrs.AUTHORIZATION)
        session = _Session.of(request)
        if authorization is None and session.certificate is None:
            raise CodeRefused("Show a client certificate, or a device id and its one-time code.")
        device_id: str | None = None
        try:
            basic = wire.credentials(authorization)
            if basic is not None:
                device_id = basic[0]
                self._check_failures(remote, device_id)
            elif session.certificate is None:
                raise CodeRefused("Of HTTP's ways to authenticate, only Basic is taken here.")
            facts = csr.read(wire.decode_csr(await _read_body(request)))
            linking.check(facts.der, session.version, session.tls_unique)
            asked = EnrollmentRequest(operation, facts, basic, session.certificate, remote, session.chain)
            outcome = await self._ask(asked)
        except CodeRefused:
            self._guard.failed(remote, device_id)
            raise
        if isinstance(outcome, Pending):
            return wire.pending(outcome.retry_after)
        return wire.certificates(_certs_only(outcome.certificate), user_agent)

    def _check_failures(self, remote: str, device_id: str) -> None:
        if wait := self._guard.wait(remote, device_id):
            raise TooManyRequests("Too many wrong codes were tried.", device=device_id, retry_after=wait)

    async def _ask(self, request: EnrollmentRequest) -> Enrolled | Pending:
        if self._enrolling >= self._settings.max_concurrent:
            raise TooManyRequests("Too many devices are enrolling at this moment.", retry_after=_BUSY_SECONDS)
        self._enrolling += 1
        try:
            async with asyncio.timeout(self._settings.answer_within + _GRACE_SECONDS):
                return await self._enroller.enroll(request)
        except TimeoutError:
            raise IssuerUnreachable("The enrollment was not decided in time.") from None
        finally:
            self._enrolling -= 1


@dataclass(frozen=True, slots=True)
class _Session:
    """What TLS knows of the peer."""

    certificate: bytes | None
    version: str | None
    tls_unique: bytes | None
    chain: tuple[bytes, ...]

    @classmethod
    def of(cls, request: web.BaseRequest) -> _Session:
        tls = request.transport.get_extra_info("ssl_object") if request.transport else None
        if tls is None:
            raise ConnectionResetError("the client is gone")
        certificate = tls.getpeercert(True)
        chain = peer_chain(tls) if certificate is not None else ()
        return cls(certificate, tls.version(), tls.get_channel_binding("tls-unique"), chain)


async def _read_body(request: web.BaseRequest) -> bytes:
    """The whole body, bounded in size and time. Raises wire.Refused."""
    headers = request.headers
    wire.check_headers(headers.get(hdrs.CONTENT_TYPE), headers.get(hdrs.CONTENT_ENCODING), request.content_length)
    if headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # what follows is still the first byte of the answer
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > wire.MAX_BODY:
                    raise wire.too_large()
    except TimeoutError:
        raise wire.Refused(408, f"The body did not come in {BODY_SECONDS:.0f} seconds.") from None
    except web.RequestPayloadError:
        raise wire.Refused(400, "The body's framing is broken.") from None
    return bytes(body)


def _certs_only(*certificates: bytes) -> bytes:
    return pkcs7.certs_only([x509.load_der_x509_certificate(each) for each in certificates])
