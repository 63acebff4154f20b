"""A client of EST (RFC 7030), as far as a certificate's holder needs one."""

from __future__ import annotations

import base64
import binascii
from ssl import SSLContext
from typing import Final

from cryptography import x509

from ..errors import CertificateUnacceptable, GatewayError, IssuerRejected, IssuerUnconfigured, IssuerUnreachable
from ..pki.certificates import chain_of, public_key_sha256_of
from ..pki.csr import public_key_sha256
from ..pki.parsing import PARSE_ERRORS
from ..pki.pkcs7 import read_certs_only
from ..threads import aside
from .base import Issued, Working
from .http import Answer, exchange
from .sparing import RateLimit

_LIMIT: Final = 1024 * 1024
_PKCS10: Final = {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "base64"}
_COME_BACK: Final = 60.0
"""Seconds, when a 202 lacks the Retry-After that RFC 7030, 4.2.3 asks for."""


class EstClient:
    """``url`` ends in ``/.well-known/est`` (or a label below it); ``timeout`` in seconds for each call. Who asks is
    said by the client certificate that each call's ``context`` has bound to it, or by ``authorization``: the header of
    that name."""

    def __init__(self, url: str, timeout: float, rate: RateLimit, authorization: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._rate = rate
        self._headers = {"Authorization": authorization} if authorization is not None else {}

    async def cacerts(self, context: SSLContext) -> tuple[x509.Certificate, ...]:
        """The CA's certificates (4.1). Raises IssuerUnreachable, IssuerUnconfigured, IssuerRejected,
        CertificateUnacceptable."""
        await self._rate.turn()
        answer = await self._exchange("GET", "cacerts", context)
        _accept(answer, "name its certificates", None)
        return _read(answer)

    async def simpleenroll(self, csr: bytes, context: SSLContext, device_id: str) -> Issued | Working:
        """A certificate for this DER request (4.2.1). Raises as ``cacerts`` does."""
        return await self._enroll("simpleenroll", csr, context, device_id)

    async def simplereenroll(self, csr: bytes, context: SSLContext, device_id: str) -> Issued | Working:
        """The same for the subject and names of the present certificate (4.2.2)."""
        return await self._enroll("simplereenroll", csr, context, device_id)

    async def _enroll(self, operation: str, csr: bytes, context: SSLContext, device_id: str) -> Issued | Working:
        await self._rate.turn()
        answer = await self._exchange("POST", operation, context, base64.encodebytes(csr), **_PKCS10)
        if answer.status == 202:
            return Working(answer.retry_after if answer.retry_after is not None else _COME_BACK)
        _accept(answer, f"issue a certificate for {device_id}", device_id)
        return _issued(_read(answer), csr, device_id)

    async def _exchange(
        self, method: str, path: str, context: SSLContext, body: bytes | None = None, **headers: str
    ) -> Answer:
        """Beside the daemon's loop: the token signs inside the handshake."""
        return await aside(
            exchange(
                method,
                f"{self._url}/{path}",
                tls=context,
                within=self._timeout,
                limit=_LIMIT,
                headers={**self._headers, **headers},
                body=body,
            )
        )


def _accept(answer: Answer, doing: str, device: str | None) -> None:
    if answer.status == 200:
        return
    raise _failure(answer.status)(
        f"The EST server did not {doing}: HTTP {answer.status}.", device=device, retry_after=answer.retry_after
    )


def _failure(status: int) -> type[GatewayError]:
    if status >= 500 or status in (408, 429):
        return IssuerUnreachable
    # Not known, not allowed, or no such path: a person has to look, and the request itself was not called bad.
    return IssuerUnconfigured if status < 400 or status in (401, 403, 404, 405) else IssuerRejected


def _read(answer: Answer) -> tuple[x509.Certificate, ...]:
    """Certs-only CMS in base64 with or without line breaks (RFC 8951), or binary as some servers send it."""
    if answer.body[:1] == b"\x30" and answer.body[1:2] >= b"\x80":
        return read_certs_only(answer.body)
    try:
        return read_certs_only(base64.b64decode(b"".join(answer.body.split()), validate=True))
    except binascii.Error:
        raise CertificateUnacceptable("The EST server's answer is not base64.") from None


def _issued(found: tuple[x509.Certificate, ...], csr: bytes, device_id: str) -> Issued:
    """The certificate for the request's key is the one that was issued, wherever it stands in the answer."""
    key = public_key_sha256(x509.load_der_x509_csr(csr).public_key())
    try:
        for certificate in found:
            if public_key_sha256_of(certificate) == key:
                return Issued(certificate, chain_of(certificate, found))
    except PARSE_ERRORS:
        raise CertificateUnacceptable(
            "The EST server sent a certificate that cannot be read.", device=device_id
        ) from None
    raise CertificateUnacceptable(f"The EST server sent no certificate for the key of {device_id}.", device=device_id)
