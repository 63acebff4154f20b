"""``entra-token``: print a person's Entra token, as ``az account get-access-token`` would."""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from pathlib import Path

import jwt

from .entra_directory import TENANT_ID

LIFETIME = 3599
"""Seconds, as Entra's are by default."""

_DEFAULT_SCOPE = "https://management.core.windows.net/.default"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gatewayd.lab entra-token", description="Print a person's token.")
    parser.add_argument("--dir", type=Path, required=True, help="the lab's directory, made by 'init'")
    parser.add_argument("--object-id", required=True, help="the person's object id, a GUID")
    parser.add_argument("--upn", required=True, help="the person's user principal name, such as ada@plant.example")
    parser.add_argument("--scope", default=_DEFAULT_SCOPE, help="what the token is for (%(default)s)")
    parser.add_argument("--lifetime", type=int, default=LIFETIME, help="in seconds (%(default)s)")
    options = parser.parse_args(argv)
    audience = options.scope.removesuffix("/.default")
    try:
        token = mint(options.dir, audience, options.object_id, upn=options.upn, lifetime=options.lifetime)
    except OSError as error:
        print(f"no lab there: {error}", file=sys.stderr)
        return 69
    print(token)
    return 0


def mint(
    directory: Path,
    audience: str,
    object_id: str,
    *,
    upn: str | None = None,
    appid: str | None = None,
    lifetime: int = LIFETIME,
) -> str:
    """A token of the lab's tenant, for a person (``upn``) or an application (``appid``); ``lifetime`` in seconds."""
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": f"https://sts.windows.net/{TENANT_ID}/",
        "aud": audience,
        "oid": object_id,
        "sub": object_id,
        "tid": TENANT_ID,
        "iat": now,
        "nbf": now,
        "exp": now + lifetime,
        "uti": uuid.uuid4().hex,
        "ver": "1.0",
    }
    if upn is not None:
        claims["upn"] = upn
    if appid is not None:
        claims["appid"] = appid
    return jwt.encode(claims, (directory / "entra-signing-key.pem").read_bytes(), algorithm="RS256")
