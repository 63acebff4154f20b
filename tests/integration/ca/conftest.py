"""An HTTPS server of the test's own, for what no well-behaved stand-in does."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.config import EzcaSettings
from tests.support.authority import SERVER, Authority
from tests.support.lab import Lab, unused_address

from .ezca_world import OWNER, World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """Answers every request with ``answer``, which a test sets, and counts them."""

    url: str
    client: ssl.SSLContext
    """Trusts the server."""
    authority: Authority
    """Of the server's certificate; it takes this one's for its clients, too."""
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    answer: Handler | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        assert self.answer is not None
        return await self.answer(request)

    def answers(self, status: int, body: bytes = b"", **headers: str) -> None:
        async def fixed(_: web.Request) -> web.Response:
            return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

        self.answer = fixed


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    address = unused_address()
    authority = Authority("Web")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.leaf(
        key.public_key(), address, [x509.IPAddress(ipaddress.ip_address(address))], purposes=[SERVER]
    )
    file = tmp_path / "web.pem"
    file.write_bytes(
        b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (certificate, authority.issuing))
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(
        cadata=b"".join(each.public_bytes(serialization.Encoding.DER) for each in authority.chain)
    )
    trusting = ssl.create_default_context(
        cadata=authority.root.public_bytes(serialization.Encoding.PEM).decode("ascii")
    )
    application = web.Application()
    runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=0.1)
    made = Server("", trusting, authority)
    application.router.add_route("*", "/{path:.*}", made.handle)
    await runner.setup()
    site = web.TCPSite(runner, address, 0, ssl_context=context)
    await site.start()
    made.url = f"https://{address}:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.start("ezca", "--page-size", "3")
        yield lab


@pytest.fixture(scope="package")
def token(running: Lab) -> str:
    """A person's; made once, because it takes a process."""
    return running.token(EzcaSettings("", "").scope, OWNER.object_id)


@pytest.fixture
def world(running: Lab, tmp_path: Path, token: str) -> Iterator[World]:
    made = World(running, tmp_path, token)
    yield made
    made.unknown()
    for each in running.get("ezca", "/lab/faults"):
        assert each["times"] is None, f"a fault was not met: {each}"
