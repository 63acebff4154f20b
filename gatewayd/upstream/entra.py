"""Bearer tokens from Entra: for the gateway's own application, and one that a person has brought along.

The application authenticates with a certificate: MSAL takes a client assertion that is signed in the token, so that
no secret exists. Both classes are token sources as the CA and the registry want them: ``await source.token(scope)``.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import logging
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from ..config import EntraSettings
from ..errors import IssuerUnreachable, RegistrarRefused

_ASSERTION_LIFETIME: Final = 10 * 60
"""Seconds; Entra asks for no more than this."""
_LEFT: Final = 300.0
"""Seconds that a token is still valid when it is given out."""
_LIMIT: Final = 1024 * 1024
_PASSING: Final = frozenset({"temporarily_unavailable", "server_error"})
"""OAuth errors (RFC 6749, 4.1.2.1) that are about Entra and not about us."""


class EntraTokens:
    """Tokens for the gateway's application.

    ``private_key`` belongs to ``certificate``, whose upload makes the application know it; ``ca_bundle`` holds PEM
    anchors for TLS to the authority, None for the system's.
    """

    def __init__(
        self,
        settings: EntraSettings,
        private_key: rsa.RSAPrivateKey,
        certificate: x509.Certificate,
        ca_bundle: Path | None,
    ) -> None:
        self._settings = settings
        self._private_key = private_key
        self._certificate = certificate
        self._http = _Http(ssl.create_default_context(cafile=ca_bundle), settings.timeout)
        self._lock = asyncio.Lock()
        self._application: Any = None
        self._held: dict[str, tuple[str, float]] = {}
        """Scope → token and when (monotonic) to ask for another."""

    async def token(self, scope: str) -> str:
        """A token for ``scope``, valid for another five minutes at least: it is kept in memory until then.

        Raises RegistrarRefused with Entra's code, IssuerUnreachable, and whatever the token raises when it signs.
        """
        try:
            async with self._lock, asyncio.timeout(2 * self._settings.timeout):
                # MSAL would keep it as well, but takes a millisecond of a thread to say so: for each of many requests.
                token, until = self._held.get(scope, ("", 0.0))
                if time.monotonic() >= until:
                    token, lasts = await asyncio.to_thread(self._acquire, scope)
                    self._held[scope] = (token, time.monotonic() + lasts - _LEFT)
                return token
        except TimeoutError:
            raise IssuerUnreachable(f"{self._host} did not give a token in time.") from None

    @property
    def _host(self) -> str:
        return urllib.parse.urlsplit(self._settings.authority).netloc

    def _acquire(self, scope: str) -> tuple[str, float]:
        """The token and the seconds that it lasts."""
        import msal

        result: Mapping[str, Any] = {}
        try:
            if self._application is None:
                self._application = self._build()
            result = self._application.acquire_token_for_client([scope])
        except (
            OSError,
            ValueError,
            RuntimeError,
            KeyError,
            http.client.HTTPException,
            msal.exceptions.MsalError,
        ) as error:
            if not 400 <= self._http.status < 500:
                self._application = None
                raise IssuerUnreachable(f"{self._host} gave no token: {_reason(error)}.") from None
        token = result.get("access_token")
        if isinstance(token, str):
            lasts = result.get("expires_in")
            return token, float(lasts) if isinstance(lasts, int) else 0.0
        # MSAL keeps failures for a while: a new application asks anew.
        self._application = None
        raise self._refusal(result)

    def _build(self) -> Any:
        import msal

        # Its debug log quotes requests, its error log whole answers. What matters is in our own errors.
        logging.getLogger("msal").setLevel(logging.CRITICAL + 1)
        return msal.ConfidentialClientApplication(
            self._settings.client_id,
            client_credential={"client_assertion": self._assertion},
            authority=f"{self._settings.authority.rstrip('/')}/{self._settings.tenant_id}",
            http_client=self._http,
            # The authority is configured; asking Microsoft whether it exists would fail for a private one.
            validate_authority=False,
            instance_discovery=False,
        )

    def _assertion(self, context: Mapping[str, str]) -> str:
        """RFC 7523, as Entra's "certificate credentials" want it. MSAL calls it when it needs a fresh one."""
        now = int(time.time())
        claims = {
            "aud": context["token_endpoint"],
            "iss": self._settings.client_id,
            "sub": self._settings.client_id,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + _ASSERTION_LIFETIME,
        }
        digest = base64.urlsafe_b64encode(self._certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
        return jwt.encode(claims, self._private_key, algorithm="PS256", headers={"x5t#S256": digest})

    def _refusal(self, result: Mapping[str, Any]) -> IssuerUnreachable | RegistrarRefused:
        """Entra's codes only: its descriptions are long and quote what was sent."""
        name = result.get("error")
        said = name if isinstance(name, str) and name.isidentifier() else "no reason given"
        codes = result.get("error_codes")
        numbers = [f"AADSTS{each}" for each in codes if isinstance(each, int)] if isinstance(codes, list) else []
        words = ", ".join([said, f"HTTP {self._http.status}", *numbers[:3]])
        if said in _PASSING or self._http.status == 429:
            return IssuerUnreachable(f"{self._host} gave no token: {words}.")
        return RegistrarRefused(f"Entra does not accept application {self._settings.client_id}: {words}.")


@dataclass(frozen=True, slots=True)
class StaticToken:
    """One token that a person has brought along; never renewed, and valid as long as it is."""

    value: str = field(repr=False)

    async def token(self, scope: str) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class _Response:
    """What MSAL reads of an answer."""

    status_code: int
    text: str
    headers: Mapping[str, str]


class _Http:
    """What MSAL needs of an HTTP client, with the system's trust instead of a bundle of its own, a time limit and a
    bound on the answer. https only, no redirects: an assertion goes nowhere else."""

    def __init__(self, tls: ssl.SSLContext, timeout: float) -> None:
        self._timeout = timeout
        self.status = 0
        """Of the latest answer; 0 when the latest request has had none."""
        self._opener = urllib.request.OpenerDirector()
        self._opener.add_handler(urllib.request.HTTPSHandler(context=tls))
        self._opener.add_handler(urllib.request.UnknownHandler())

    def get(
        self, url: str, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> _Response:
        return self._send(url, params, None, headers)

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> _Response:
        return self._send(url, params, urllib.parse.urlencode(data or {}).encode(), headers)

    def close(self) -> None:
        """Every request has a connection of its own, so there is nothing to close."""

    def _send(
        self, url: str, params: Mapping[str, str] | None, body: bytes | None, headers: Mapping[str, str] | None
    ) -> _Response:
        if params:
            url += ("&" if "?" in url else "?") + urllib.parse.urlencode(params)
        request = urllib.request.Request(url, body, dict(headers or {}))  # noqa: S310 - the opener knows https only
        self.status = 0
        with self._opener.open(request, timeout=self._timeout) as response:
            self.status = response.status
            text = response.read(_LIMIT + 1)
            if len(text) > _LIMIT:
                raise ValueError(f"an answer of more than {_LIMIT} bytes")
            return _Response(response.status, text.decode("utf-8", "replace"), dict(response.headers.items()))


def _reason(error: Exception) -> str:
    """In words of our own, so that nothing of the request is quoted."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    match cause:
        case ssl.SSLCertVerificationError():
            return "its TLS certificate is not trusted"
        case TimeoutError():
            return "no answer in time"
        case OSError() | http.client.HTTPException():
            return getattr(cause, "strerror", None) or "the connection broke"
    return "its answer is not of the form that its protocol has"
