"""How the holder of a certificate proves itself to EZCA: a JWT signed with the certificate's own key."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ..pki.certificates import thumbprint_sha1

_AUDIENCE: Final = "https://ezca.io"
"""For every host, private ones included."""
_LIFETIME: Final = 30 * 60


def holder_token(private_key: rsa.RSAPrivateKey, certificate: x509.Certificate, now: datetime) -> str:
    """The bearer token for ``/api/Certificates/*``. Signs, so it blocks, and raises whatever the token raises.

    ``x5t`` is not RFC 7515's: EZCA wants the SHA-1 in upper-case hex. ``iss``, ``sub`` and ``iat`` stay absent.
    """
    begin = int(now.timestamp())
    claims = {"aud": _AUDIENCE, "jti": str(uuid.uuid4()), "nbf": begin, "exp": begin + _LIFETIME}
    return jwt.encode(claims, private_key, algorithm="RS256", headers={"x5t": thumbprint_sha1(certificate).upper()})
