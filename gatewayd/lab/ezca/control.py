"""``/lab/*`` of the EZCA stand-in: what a test or trial sets and counts. EZCA itself has none of it."""

from __future__ import annotations

import hashlib
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cryptography.hazmat.primitives import hashes, serialization

from .service import Service
from .status import Status
from .store import Minted

_LOG_ENTRIES = 10_000


class Control:
    """Requests seen, calls that the server is to not know, and the account of certificates."""

    def __init__(self, service: Service, status: Status, unknown: set[str]) -> None:
        """``unknown``: names of calls that answer 404, as an older server's would."""
        self._service = service
        self._status = status
        self._unknown = unknown
        self._log: deque[dict[str, Any]] = deque(maxlen=_LOG_ENTRIES)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/lab/lifetime", self.set_lifetime),
            web.post("/lab/unknown", self.set_unknown),
            web.post("/lab/revoke", self.revoke),
            web.post("/lab/crl", self.set_crl),
            web.get("/lab/certificates", self.certificates),
            web.get("/lab/log", self.log),
        ]

    def middleware(self) -> Middleware:
        @web.middleware
        async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
            call = request.match_info.route.name
            if call is None:
                return await handler(request)
            entry: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "call": call, "caller": "", "status": None}
            self._log.append(entry)
            try:
                answer = web.Response(status=404) if call in self._unknown else await handler(request)
            except web.HTTPException as refusal:
                entry["status"] = refusal.status
                raise
            finally:
                entry["caller"] = request.get("caller", "")
            entry["status"] = answer.status
            return answer

        return record

    async def set_lifetime(self, request: web.Request) -> web.Response:
        """``{"seconds": n}`` for all certificates from now on; null: in days again, as asked for."""
        seconds = (await request.json())["seconds"]
        self._service.lifetime = None if seconds is None else timedelta(seconds=seconds)
        return web.json_response({"seconds": seconds})

    async def set_unknown(self, request: web.Request) -> web.Response:
        """``{"calls": [name]}``: exactly these answer 404 from now on."""
        self._unknown = set((await request.json())["calls"])
        return web.json_response({"calls": sorted(self._unknown)})

    async def revoke(self, request: web.Request) -> web.Response:
        """``{"serial": hex, "reason": name}``, as somebody at the CA does it: with a CRLReason, if there is one, which
        EZCA's own calls do not take; ``removeFromCRL`` ends a hold. The hub is not told."""
        document = await request.json()
        minted = self._service.store.by_serial(int(document["serial"], 16))
        if minted is None:
            raise web.HTTPNotFound(text="no certificate has this serial number")
        reason = document.get("reason")
        if reason == "removeFromCRL":
            self._service.store.release(minted.thumbprint)
        else:
            self._service.store.revoke(minted.thumbprint, "lab", reason)
        return web.json_response({"serial": document["serial"], "reason": reason})

    async def set_crl(self, request: web.Request) -> web.Response:
        """``{"lasts": seconds, "delta": bool}``: how long CRLs and OCSP answers are good for, and whether revocations
        go to a delta from now on. The complete CRL is made afresh."""
        document = await request.json()
        if "lasts" in document:
            self._service.authority.status_lifetime = timedelta(seconds=document["lasts"])
        self._status.with_delta = document.get("delta", self._status.with_delta)
        self._status.renew()
        return web.json_response({})

    async def certificates(self, _: web.Request) -> web.Response:
        """Everything ever minted, oldest first."""
        return web.json_response([_account(minted) for minted in self._service.store.certificates()])

    async def log(self, _: web.Request) -> web.Response:
        """Calls in the order they came; status null: no answer was given yet, or none at all."""
        return web.json_response(list(self._log))


def _account(minted: Minted) -> dict[str, Any]:
    certificate = minted.certificate
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        "serial": f"{certificate.serial_number:x}",
        "subject": certificate.subject.rfc4514_string(),
        "common_name": minted.common_name,
        "thumbprint": minted.thumbprint,
        "thumbprint_sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "public_key_sha256": hashlib.sha256(spki).hexdigest(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "requester": minted.requester,
        "call": minted.call,
        "requested_at": minted.requested_at.isoformat(),
        "revoked": minted.revoked_at is not None,
        "revoked_at": minted.revoked_at.isoformat() if minted.revoked_at else None,
        "revoked_by": minted.revoked_by,
        "pem": minted.pem,
    }
