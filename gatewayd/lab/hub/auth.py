"""Who may call the registry: a shared access signature of the policy ``iothubowner``, or an Entra token for the hub."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

import jwt

from .clock import utc_now
from .errors import Code, HubError

POLICY: Final = "iothubowner"
AUDIENCE: Final = "https://iothubs.azure.net"


class Gatekeeper:
    """Checks Authorization headers. The key is never in an answer or a log."""

    def __init__(self, hosts: frozenset[str], policy_key: bytes, entra_public_key: bytes) -> None:
        """``hosts``: the hub's names, lower-case; ``entra_public_key`` in PEM."""
        self._hosts = hosts
        self._policy_key = policy_key
        self._entra_public_key = entra_public_key

    @classmethod
    def of(cls, directory: Path, hosts: frozenset[str]) -> Gatekeeper:
        """With the keys of a lab's directory. Raises OSError."""
        key = base64.b64decode((directory / "hub-key").read_text().strip())
        return cls(hosts, key, (directory / "entra-signing-public.pem").read_bytes())

    def check(self, authorization: str | None, path: str) -> str:
        """Returns who calls: the policy's name or the token's object id. Raises HubError (401)."""
        scheme, _, rest = (authorization or "").partition(" ")
        if scheme.lower() == "sharedaccesssignature":
            return self._signature(rest, path)
        if scheme.lower() == "bearer":
            return self._token(rest)
        raise HubError(Code.IOT_HUB_UNAUTHORIZED, "Unauthorized: no shared access signature and no bearer token.")

    def _signature(self, fields: str, path: str) -> str:
        # The signature covers `sr` as it was sent, percent-encoding and all; what it means is `decoded`.
        sent = dict(field.partition("=")[::2] for field in fields.split("&"))
        decoded = dict(parse_qsl(fields))
        if sent.get("skn") != POLICY:
            raise HubError(Code.IOT_HUB_UNAUTHORIZED_ACCESS, "Unauthorized: no such shared access policy.")
        wanted = hmac.digest(self._policy_key, f"{sent.get('sr', '')}\n{sent.get('se', '')}".encode(), hashlib.sha256)
        try:
            given = base64.b64decode(unquote(sent.get("sig", "")), validate=True)
            expires = int(sent.get("se", ""))
        except ValueError:
            raise HubError(Code.IOT_HUB_UNAUTHORIZED_ACCESS, "Unauthorized: malformed signature.") from None
        if not hmac.compare_digest(given, wanted):
            raise HubError(Code.IOT_HUB_UNAUTHORIZED_ACCESS, "Unauthorized: wrong signature.")
        if expires <= utc_now().timestamp():
            raise HubError(Code.IOT_HUB_UNAUTHORIZED, "Unauthorized: the signature has expired.")
        if not self._covers(decoded.get("sr", ""), path):
            raise HubError(Code.IOT_HUB_UNAUTHORIZED_ACCESS, "Unauthorized: the signature is for another resource.")
        return POLICY

    def _covers(self, resource: str, path: str) -> bool:
        host, _, below = resource.partition("/")
        prefix = f"/{below}".rstrip("/")
        return host.partition(":")[0].lower() in self._hosts and (path == prefix or path.startswith(f"{prefix}/"))

    def _token(self, token: str) -> str:
        try:
            claims = jwt.decode(
                token,
                self._entra_public_key,
                algorithms=["RS256"],
                audience=[AUDIENCE, f"{AUDIENCE}/"],
                options={"require": ["exp", "nbf", "aud", "oid"]},
            )
        except jwt.InvalidTokenError as error:
            raise HubError(Code.IOT_HUB_UNAUTHORIZED_ACCESS, f"Unauthorized: {error}.") from None
        return str(claims["oid"])
