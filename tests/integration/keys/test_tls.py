"""TLS with a key in the token."""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.errors import TlsBridgeUnsupported
from gatewayd.keys import openssl, tls
from gatewayd.keys.base import Priority, PrivateKey, PublicKey
from gatewayd.keys.token import Pkcs11KeyStore

from .conftest import on_both_tokens

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
KINDS = (KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048)


def certificate_for(
    name: str, public_key: PublicKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, *, ca: bool = False
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


@dataclass(frozen=True)
class Ca:
    """A root, an issuing CA below it, and a peer whose key is a file."""

    root: x509.Certificate
    issuing: x509.Certificate
    issuing_key: ec.EllipticCurvePrivateKey
    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Ca:
        root_key, issuing_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = certificate_for("root", root_key.public_key(), "root", root_key, ca=True)
        issuing = certificate_for("issuing", issuing_key.public_key(), "root", root_key, ca=True)
        made = cls(root, issuing, issuing_key, directory)
        peer_key = ec.generate_private_key(ec.SECP256R1())
        peer = made.issue("peer", peer_key.public_key())
        pem = [each.public_bytes(Encoding.PEM) for each in (peer, issuing)]
        pem.append(peer_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        made.peer.write_bytes(b"".join(pem))
        made.anchor.write_bytes(root.public_bytes(Encoding.PEM))
        return made

    @property
    def peer(self) -> Path:
        return self.directory / "peer.pem"

    @property
    def anchor(self) -> Path:
        return self.directory / "root.pem"

    def issue(self, name: str, public_key: PublicKey) -> x509.Certificate:
        return certificate_for(name, public_key, "issuing", self.issuing_key)

    def context(self, server: bool, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Trusts the root and wants the other side's certificate."""
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        ctx.check_hostname = False
        ctx.verify_mode = ssl.CERT_REQUIRED
        ctx.load_verify_locations(self.anchor)
        if version is not None:
            ctx.minimum_version = ctx.maximum_version = version
        return ctx

    def software(self, server: bool, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        ctx = self.context(server, version)
        ctx.load_cert_chain(self.peer)
        return ctx


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca.make(tmp_path)


@dataclass(frozen=True)
class Bound:
    certificate: x509.Certificate
    key: PrivateKey
    key_id: bytes


@pytest_asyncio.fixture
async def bound(keys: Pkcs11KeyStore, ca: Ca) -> AsyncIterator[dict[KeyAlgorithm, Bound]]:
    made = {}
    for kind in KINDS:
        public_key = await keys.generate(kind.encode(), "tls", kind)
        key = keys.private_key(KeyRef(kind.encode(), kind), public_key)
        made[kind] = Bound(ca.issue("gw-1", public_key), key, kind.encode())
    yield made


def token_context(ca: Ca, one: Bound, *, server: bool, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    ctx = ca.context(server, version)
    tls.bind(ctx, one.certificate, [ca.issuing], one.key)
    return ctx


def shake_hands(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Server's and client's side after a handshake and a word each way. Raises ssl.SSLError of the first to fail."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(8):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    client.write(b"ping")
    assert server.read() == b"ping"
    server.write(b"pong")
    assert client.read() == b"pong"
    return server, client


@on_both_tokens
async def test_a_handshake_with_a_software_peer(ca: Ca, bound: dict[KeyAlgorithm, Bound]) -> None:
    for is_server, kind, version in itertools.product((True, False), KINDS, VERSIONS):
        ours = token_context(ca, bound[kind], server=is_server, version=version)
        theirs = ca.software(not is_server, version)
        server, client = shake_hands(*((ours, theirs) if is_server else (theirs, ours)))
        seen = (client if is_server else server).getpeercert(binary_form=True)
        assert seen == bound[kind].certificate.public_bytes(Encoding.DER)
        assert server.version() == version.name.replace("v1_", "v1.")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (KeyAlgorithm.EC_P256, ["-tls1_3"]),
        (KeyAlgorithm.RSA_2048, ["-tls1_3"]),
        # PKCS#1 v1.5, which Python's own client does not choose
        (KeyAlgorithm.RSA_2048, ["-tls1_2", "-sigalgs", "RSA+SHA384:ECDSA+SHA256"]),
    ],
)
async def test_openssl_s_client_accepts_the_token_server(
    ca: Ca, bound: dict[KeyAlgorithm, Bound], kind: KeyAlgorithm, options: list[str]
) -> None:
    context = token_context(ca, bound[kind], server=True)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(ca.anchor)),
            *("-cert", str(ca.peer), "-cert_chain", str(ca.peer), "-key", str(ca.peer)),
            *("-verify_return_error", "-quiet", *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(client.communicate(), 10)
    assert b"hello from the token" in output, errors


async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello from the token\n")
    await writer.drain()
    writer.close()


async def test_a_failing_signature_fails_the_handshake_alone(
    ca: Ca, bound: dict[KeyAlgorithm, Bound], keys: Pkcs11KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in KINDS:
        ours = {server: token_context(ca, bound[kind], server=server) for server in (True, False)}
        shake_hands(ours[True], ca.software(False))
        await keys.destroy(bound[kind].key_id)
        for _ in range(2):
            with pytest.raises(ssl.SSLError):
                shake_hands(ours[True], ca.software(False))
            with pytest.raises(ssl.SSLError):
                shake_hands(ca.software(True), ours[False])
        assert "KeyMissing: The key is not in the token." in caplog.text
        assert openssl.drain() == ""
        shake_hands(ca.software(True), ca.software(False))
    assert caplog.records[-1].levelno == logging.ERROR


async def test_whatever_a_signature_raises_stays_on_this_side(
    ca: Ca, bound: dict[KeyAlgorithm, Bound], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in KINDS:
        context = token_context(ca, bound[kind], server=True)
        for error in (KeyboardInterrupt(), MemoryError(), b"much too long" * 100):
            with monkeypatch.context() as patched:
                patched.setattr(bound[kind].key, "_sign", raising(error))
                with pytest.raises(ssl.SSLError):
                    shake_hands(context, ca.software(False))
        shake_hands(context, ca.software(False))


def raising(outcome: BaseException | bytes) -> Callable[..., bytes]:
    def sign(*_: object) -> bytes:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return sign


async def test_binding_again_shows_the_new_certificate_and_leaves_the_old_connections(
    ca: Ca, bound: dict[KeyAlgorithm, Bound], keys: Pkcs11KeyStore
) -> None:
    first = bound[KeyAlgorithm.EC_P256]
    context = token_context(ca, first, server=True)
    old, old_client = shake_hands(context, ca.software(False))
    public_key = await keys.generate(b"next", "tls", KeyAlgorithm.EC_P256)
    second = ca.issue("gw-1", public_key)
    tls.bind(context, second, [ca.issuing], keys.private_key(KeyRef(b"next", KeyAlgorithm.EC_P256), public_key))
    _, client = shake_hands(context, ca.software(False))
    assert client.getpeercert(binary_form=True) == second.public_bytes(Encoding.DER)
    old_client.write(b"still there")
    assert old.read() == b"still there"


async def test_what_does_not_fit_is_refused_and_the_context_stays_as_it_was(
    ca: Ca, bound: dict[KeyAlgorithm, Bound]
) -> None:
    elliptic, other = bound[KeyAlgorithm.EC_P256], bound[KeyAlgorithm.RSA_2048]
    context = token_context(ca, elliptic, server=True)
    with pytest.raises(ValueError, match="not for this key"):
        tls.bind(context, elliptic.certificate, [], other.key)
    with pytest.raises(ValueError, match="another kind"):
        tls.bind(context, other.certificate, [], other.key)
    software = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ValueError, match="only a key in the token"):
        tls.bind(context, ca.issue("x", software.public_key()), [], software)
    shake_hands(context, ca.software(False))


async def test_a_handshake_goes_before_other_signatures(
    ca: Ca, bound: dict[KeyAlgorithm, Bound], keys: Pkcs11KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Priority] = []
    real = keys.turns.take

    def take(priority: Priority, *others: Any) -> AbstractContextManager[None]:
        asked.append(priority)
        return real(priority, *others)

    monkeypatch.setattr(keys.turns, "take", take)
    one = bound[KeyAlgorithm.EC_P256]
    shake_hands(token_context(ca, one, server=True), ca.software(False))
    x509.CertificateSigningRequestBuilder().subject_name(one.certificate.subject).sign(one.key, hashes.SHA256())
    assert asked == [Priority.HANDSHAKE, Priority.REQUEST]


async def test_many_contexts_share_one_key(ca: Ca, bound: dict[KeyAlgorithm, Bound]) -> None:
    one = bound[KeyAlgorithm.EC_P256]
    token_context(ca, one, server=True)
    known = len(tls._pkeys)
    for _ in range(50):
        shake_hands(token_context(ca, one, server=True), ca.software(False))
    assert len(tls._pkeys) == known


async def test_handshakes_in_eight_threads(ca: Ca, bound: dict[KeyAlgorithm, Bound]) -> None:
    contexts = [(token_context(ca, one, server=True), token_context(ca, one, server=False)) for one in bound.values()]

    def run(number: int) -> None:
        shake_hands(*contexts[number % 2])

    with ThreadPoolExecutor(max_workers=8) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, run, number) for number in range(120)))


def test_the_bridge_proves_itself_or_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    tls.prove()
    with monkeypatch.context() as patched:
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pointer = tls._context_pointer(other)
        patched.setattr(tls, "_context_pointer", lambda _: pointer)
        with pytest.raises(TlsBridgeUnsupported, match="not laid out"):
            tls.prove.__wrapped__()
    with monkeypatch.context() as patched:
        patched.setattr(tls, "_keys", {})
        patched.setattr(tls, "_pkey", lambda key: openssl.library().EVP_PKEY_new())
        with pytest.raises(TlsBridgeUnsupported, match="trial handshake"):
            tls.prove.__wrapped__()
    with monkeypatch.context() as patched:
        patched.setattr(ssl, "OPENSSL_VERSION", "OpenSSL 1.1.1")
        with pytest.raises(TlsBridgeUnsupported, match="Another OpenSSL"):
            openssl.library.__wrapped__()
    assert openssl.drain() == ""
