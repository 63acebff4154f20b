"""The start-up proof of the TLS bridge: handshakes in memory with keys made for the purpose.

The keys are ordinary software ones whose signatures take the way that the token's take: through the callback.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from .base import Priority, Scheme
from .signer import TokenEcKey, TokenRsaKey

Key = TokenEcKey | TokenRsaKey
Bind = Callable[[ssl.SSLContext, x509.Certificate, Sequence[x509.Certificate], Key], None]


def shake_hands(bind: Bind) -> None:
    """Mutual TLS 1.3 with an EC and with an RSA key. Raises ssl.SSLError."""
    for key in (_ec_key(), _rsa_key()):
        certificate = _certificate(key)
        server = _context(ssl.PROTOCOL_TLS_SERVER, certificate)
        client = _context(ssl.PROTOCOL_TLS_CLIENT, certificate)
        bind(server, certificate, (), key)
        bind(client, certificate, (), key)
        _run(server, client)


def _context(protocol: int, anchor: x509.Certificate) -> ssl.SSLContext:
    ctx = ssl.SSLContext(protocol)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_REQUIRED
    ctx.load_verify_locations(cadata=anchor.public_bytes(Encoding.PEM).decode())
    return ctx


def _run(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    # A handshake takes three flights; a few more rounds than that mean that nobody moves any more.
    for _ in range(8):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return
    raise ssl.SSLError("the handshake did not come to an end")


def _certificate(key: Key) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proof")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _ec_key() -> TokenEcKey:
    software = ec.generate_private_key(ec.SECP256R1())

    def sign(scheme: Scheme, digest: bytes, _: Priority) -> bytes:
        der = software.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        return b"".join(number.to_bytes(32, "big") for number in utils.decode_dss_signature(der))

    return TokenEcKey(software.public_key(), sign)


def _rsa_key() -> TokenRsaKey:
    software = rsa.generate_private_key(65537, 2048)
    numbers = software.private_numbers()
    modulus = numbers.public_numbers.n

    def sign(scheme: Scheme, data: bytes, _: Priority) -> bytes:
        if scheme is Scheme.RSA_PKCS1:
            data = b"\0\1" + b"\xff" * (253 - len(data)) + b"\0" + data
        return pow(int.from_bytes(data, "big"), numbers.d, modulus).to_bytes(256, "big")

    return TokenRsaKey(software.public_key(), sign)
