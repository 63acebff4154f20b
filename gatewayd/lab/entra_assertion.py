"""How Entra checks a client assertion (RFC 7523; Microsoft's "certificate credentials"). No I/O."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from .entra_directory import Application

_SKEW = 300
_LONGEST = 600


class EntraError(Exception):
    """A refusal in Entra's terms."""

    def __init__(self, status: int, error: str, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.code = code
        self.text = text


def _invalid(code: int, text: str) -> EntraError:
    return EntraError(401, "invalid_client", code, text)


def check(assertion: str, application: Application, audience: str) -> None:
    """Return when ``assertion`` proves ``application`` to the token endpoint ``audience``; else raise EntraError."""
    try:
        header = jwt.get_unverified_header(assertion)
    except jwt.InvalidTokenError:
        raise _invalid(50027, "JWT token is invalid or malformed.") from None
    certificate = _registered(header, application)
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise _invalid(700027, "Client assertion failed signature validation. [Reason - The key is not an RSA key.]")
    try:
        # The times are checked below: one code covers all that may be wrong with them.
        claims = jwt.decode(
            assertion,
            key,
            algorithms=["RS256", "PS256"],
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
        )
    except jwt.InvalidTokenError:
        raise _invalid(700027, "Client assertion failed signature validation.") from None
    _check_claims(claims, application, audience)


def _registered(header: dict[str, object], application: Application) -> x509.Certificate:
    """The certificate that the header names by SHA-256 or SHA-1, in base64url."""
    for name, algorithm in (("x5t#S256", hashes.SHA256()), ("x5t", hashes.SHA1())):
        for certificate in application.certificates:
            if header.get(name) == _base64url(certificate.fingerprint(algorithm)):
                if certificate.not_valid_after_utc < datetime.now(UTC):
                    raise _invalid(700027, "The certificate used to sign the client assertion is expired.")
                return certificate
    raise _invalid(
        700027,
        "The certificate with identifier used to sign the client assertion is not registered on application."
        f" [Reason - The key was not found., app Id '{application.client_id}']",
    )


def _base64url(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _check_claims(claims: dict[str, object], application: Application, audience: str) -> None:
    if not claims.get("iss") == claims.get("sub") == application.client_id:
        raise _invalid(700021, "Client assertion application identifier doesn't match 'client_id' parameter.")
    if claims.get("aud") != audience:
        raise _invalid(700023, "Client assertion audience claim does not match Realm issuer.")
    if not claims.get("jti"):
        raise _invalid(50027, "JWT token is invalid or malformed: no jti.")
    now, exp, nbf = time.time(), claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(exp, int) or not isinstance(nbf, int) or not nbf - _SKEW <= now < exp + _SKEW:
        raise _invalid(700024, "Client assertion is not within its valid time range.")
    if exp > now + _LONGEST + _SKEW:
        raise _invalid(700024, "Client assertion is not within its valid time range: it lives longer than 10 minutes.")
