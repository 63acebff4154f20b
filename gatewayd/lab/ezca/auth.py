"""EZCA's two ways to authenticate: an Entra bearer token, and a certificate holder's self-signed JWT."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from .store import Minted, Store

_LOG = logging.getLogger(__name__)

_MANAGEMENT = ["https://management.core.windows.net", "https://management.core.windows.net/"]
_HOLDER_AUDIENCE = "https://ezca.io"
_HOLDER_LIFETIME = 30 * 60
_SKEW = 300
_THUMBPRINT = re.compile(r"[0-9A-F]{40}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who an Entra token speaks for."""

    object_id: str
    name: str
    is_application: bool


def refuse(reason: str) -> web.HTTPUnauthorized:
    """401 in free text, to be raised."""
    _LOG.info("refused: %s", reason)
    return web.HTTPUnauthorized(text=reason)


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise refuse("a bearer token is required")
    return token.strip()


class EntraAuthentication:
    """For ``/api/CA/*`` and ``/api/Audit/*``."""

    def __init__(self, directory: Path) -> None:
        self._key = (directory / "entra-signing-public.pem").read_bytes()

    def caller(self, request: web.Request) -> Caller:
        """Raises HTTPUnauthorized."""
        try:
            claims = jwt.decode(
                _bearer(request),
                self._key,
                algorithms=["RS256"],
                audience=_MANAGEMENT,
                options={"require": ["exp", "aud", "oid", "tid"]},
            )
        except jwt.InvalidTokenError as error:
            raise refuse(f"the Entra token is not valid here: {error}") from None
        is_application = "upn" not in claims
        return Caller(claims["oid"], claims.get("appid" if is_application else "upn", ""), is_application)


class HolderAuthentication:
    """For ``/api/Certificates/*``: a JWT signed with the key of a certificate that this CA issued."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: set[str] = set()

    def holder(self, request: web.Request) -> Minted:
        """The certificate that the JWT is signed with. Raises HTTPUnauthorized."""
        token = _bearer(request)
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise refuse("the bearer token is not a JWT") from None
        minted = self._named(header.get("x5t"))
        key = minted.certificate.public_key()
        if header.get("alg") != "RS256" or not isinstance(key, rsa.RSAPublicKey):
            raise refuse("only RSA certificates and RS256 are supported for certificate based authentication")
        if header.get("typ") != "JWT":
            raise refuse("typ must be JWT")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=_HOLDER_AUDIENCE,
                leeway=_SKEW,
                options={"require": ["exp", "nbf", "aud", "jti"]},
            )
        except jwt.InvalidTokenError as error:
            raise refuse(f"the certificate's JWT is not valid: {error}") from None
        if int(claims["exp"]) - int(claims["nbf"]) > _HOLDER_LIFETIME + _SKEW:
            raise refuse("the certificate's JWT lives longer than 30 minutes")
        if claims["jti"] in self._seen:
            # Whether the real service refuses a replay is unknown, so this one only tells that it saw it.
            _LOG.warning("jti %s was used before", claims["jti"])
        self._seen.add(claims["jti"])
        return minted

    def _named(self, x5t: object) -> Minted:
        if not isinstance(x5t, str) or not _THUMBPRINT.fullmatch(x5t):
            raise refuse("x5t must be the certificate's SHA-1 in 40 upper-case hexadecimal digits")
        minted = self._store.by_thumbprint(x5t.lower())
        if minted is None:
            raise refuse("x5t names no certificate of this CA")
        if minted.revoked_at is not None:
            raise refuse("the certificate is revoked")
        if minted.certificate.not_valid_after_utc < datetime.now(UTC):
            raise refuse("the certificate has expired")
        return minted
