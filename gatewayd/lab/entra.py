"""``entra``: a stand-in for Microsoft Entra's token endpoint, for applications that sign a client assertion.

``/lab/applications`` plays the portal: POST ``{"client_id", "object_id", "certificate": PEM}`` registers an
application or adds a certificate to it, GET lists them, DELETE ``/lab/applications/{client_id}`` removes one.
"""

from __future__ import annotations

import argparse
import logging
import uuid
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from . import entra_token
from .entra_assertion import EntraError, check
from .entra_directory import TENANT_ID, Application, Directory
from .faults import Faults
from .serve import arguments, listening, run, server_context, until_stopped

_LOG = logging.getLogger(__name__)

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_RESOURCES = (
    "https://management.core.windows.net",
    "https://management.core.windows.net/",
    "https://iothubs.azure.net",
)


def main(argv: list[str]) -> int:
    options = arguments("entra", 8442, "Stand in for Microsoft Entra's token endpoint.").parse_args(argv)
    return run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    faults = Faults()
    app = web.Application(middlewares=[faults.middleware()])
    app.add_routes([*Entra(options.dir).routes(), *faults.routes(frozenset({"token", "openid-configuration"}))])
    async with listening(app, options.address, options.port, server_context(options.dir)) as port:
        await until_stopped({"url": f"https://{options.address}:{port}", "tenant_id": TENANT_ID})


class Entra:
    """Handlers. The caller's view of the host is the one that URLs are made of."""

    def __init__(self, directory: Path) -> None:
        self._path = directory
        self._directory = Directory(directory)
        self._log: deque[dict[str, Any]] = deque(maxlen=10_000)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/{tenant}/v2.0/.well-known/openid-configuration", self.configuration, name="openid-configuration"),
            web.post("/{tenant}/oauth2/v2.0/token", self.token, name="token"),
            web.post("/lab/applications", self.upload),
            web.get("/lab/applications", self.applications),
            web.delete("/lab/applications/{client_id}", self.remove),
            web.get("/lab/log", self.log),
        ]

    async def configuration(self, request: web.Request) -> web.Response:
        """What MSAL reads before its first token request."""
        try:
            base = self._tenant_url(request)
        except EntraError as refusal:
            return _failure(refusal)
        return web.json_response(
            {
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "issuer": f"{base}/v2.0",
            }
        )

    async def token(self, request: web.Request) -> web.Response:
        form = {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
        entry = {"at": datetime.now(UTC).isoformat(), "client_id": form.get("client_id"), "scope": form.get("scope")}
        try:
            audience = self._tenant_url(request) + "/oauth2/v2.0/token"
            application, resource = self._grant(form, audience)
        except EntraError as refusal:
            _LOG.info("refused: AADSTS%d: %s", refusal.code, refusal.text)
            self._log.append({**entry, "code": refusal.code})
            return _failure(refusal)
        self._log.append({**entry, "code": None})
        token = entra_token.mint(self._path, resource, application.object_id, appid=application.client_id)
        lifetime = entra_token.LIFETIME
        answer = {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    def _tenant_url(self, request: web.Request) -> str:
        tenant = request.match_info["tenant"]
        if tenant.lower() != TENANT_ID:
            raise EntraError(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        return f"https://{request.host}/{tenant}"

    def _grant(self, form: dict[str, str], audience: str) -> tuple[Application, str]:
        """The application that asks and the resource that its token is for. Raises EntraError."""
        for name in ("grant_type", "client_id", "scope"):
            if not form.get(name):
                text = f"The request body must contain the following parameter: '{name}'."
                raise EntraError(400, "invalid_request", 900144, text)
        if form["grant_type"] != "client_credentials":
            text = f"The app requested an unsupported grant type '{form['grant_type']}'."
            raise EntraError(400, "unsupported_grant_type", 70003, text)
        application = self._directory.application(form["client_id"])
        if application is None:
            text = f"Application with identifier '{form['client_id']}' was not found in the directory."
            raise EntraError(400, "unauthorized_client", 700016, text)
        if form.get("client_assertion_type") != _ASSERTION_TYPE or not form.get("client_assertion"):
            text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
            raise EntraError(401, "invalid_client", 7000218, text)
        check(form["client_assertion"], application, audience)
        return application, _resource(form["scope"])

    async def upload(self, request: web.Request) -> web.Response:
        try:
            document = await request.json()
            certificate = x509.load_pem_x509_certificate(document["certificate"].encode())
            application = self._directory.upload(document["client_id"], document["object_id"], certificate)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return web.Response(status=400, text=f"not an application: {error}")
        return web.json_response(_account(application))

    async def applications(self, _: web.Request) -> web.Response:
        return web.json_response([_account(each) for each in self._directory.applications()])

    async def remove(self, request: web.Request) -> web.Response:
        self._directory.remove(request.match_info["client_id"])
        return web.Response(status=204)

    async def log(self, _: web.Request) -> web.Response:
        """Token requests in the order they came; code null: granted, else the AADSTS number."""
        return web.json_response(list(self._log))


def _resource(scope: str) -> str:
    """Client credentials go with exactly one ``{resource}/.default``. Raises EntraError."""
    resource, found, rest = scope.partition("/.default")
    if not found or rest or " " in scope:
        text = f"The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."
        raise EntraError(400, "invalid_scope", 70011, text)
    if resource not in _RESOURCES:
        text = f"The resource principal named {resource} was not found in the tenant."
        raise EntraError(400, "invalid_resource", 500011, text)
    return resource


def _failure(refusal: EntraError) -> web.Response:
    """Entra's error document."""
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    timestamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    description = f"AADSTS{refusal.code}: {refusal.text} Trace ID: {trace} Correlation ID: {correlation}"
    return web.json_response(
        {
            "error": refusal.error,
            "error_description": f"{description} Timestamp: {timestamp}",
            "error_codes": [refusal.code],
            "timestamp": timestamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={refusal.code}",
        },
        status=refusal.status,
    )


def _account(application: Application) -> dict[str, Any]:
    return {
        "client_id": application.client_id,
        "object_id": application.object_id,
        "certificates": [each.fingerprint(hashes.SHA256()).hex() for each in application.certificates],
    }
