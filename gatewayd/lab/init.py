"""``init``: make the lab's key material in one directory.

What it writes (secrets with mode 0600; a directory that it makes itself has mode 0700):

- ``web-root.pem``, ``web-cert.pem``, ``web-key.pem``: TLS of all the stand-ins;
- ``ca-root.pem``, ``ca-issuing.pem`` and ``ca-root-key.pem``, ``ca-issuing-key.pem``: the CA that EZCA would hold;
- ``entra-signing-key.pem``, ``entra-signing-public.pem``: what signs Entra's tokens, and what checks them;
- ``hub-key``: the key, in base64, of the hub's shared access policy ``iothubowner``.
"""

from __future__ import annotations

import argparse
import base64
import ipaddress
import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DEFAULT_ADDRESS = "127.66.0.1"

_LIFETIME = timedelta(days=3650)
# A gateway whose clock is a little behind must still be able to take part.
_BACKDATE = timedelta(days=1)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gatewayd.lab init", description="Make the lab's key material.")
    parser.add_argument("--dir", type=Path, required=True, help="directory to make it in")
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="IP address of the stand-ins (%(default)s)")
    options = parser.parse_args(argv)
    if (options.dir / "web-root.pem").exists():
        print(f"{options.dir} holds a lab already; nothing was changed.", file=sys.stderr)
        return 73
    make(options.dir, options.address)
    return 0


def make(directory: Path, address: str) -> None:
    """Write all the files of a new lab into ``directory``, whose stand-ins will listen on ``address``."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    web_root_key, web_key = _ec_key(), _ec_key()
    web_root = _certificate("Lab Web Root", web_root_key.public_key(), None, web_root_key, path_length=0)
    web = _web_certificate(address, web_key, web_root, web_root_key)
    _write(directory / "web-root.pem", _pem(web_root))
    _write(directory / "web-cert.pem", _pem(web))
    _write(directory / "web-key.pem", _private(web_key), 0o600)

    root_key, issuing_key = _ec_key(), _ec_key()
    root = _certificate("Lab Device Root CA", root_key.public_key(), None, root_key, path_length=1)
    issuing = _certificate("Lab Device Issuing CA", issuing_key.public_key(), root, root_key, path_length=0)
    _write(directory / "ca-root.pem", _pem(root))
    _write(directory / "ca-issuing.pem", _pem(issuing))
    _write(directory / "ca-root-key.pem", _private(root_key), 0o600)
    _write(directory / "ca-issuing-key.pem", _private(issuing_key), 0o600)

    signing_key = rsa.generate_private_key(65537, 2048)
    _write(directory / "entra-signing-key.pem", _private(signing_key), 0o600)
    public = signing_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(directory / "entra-signing-public.pem", public)

    _write(directory / "hub-key", base64.b64encode(secrets.token_bytes(32)) + b"\n", 0o600)


def _ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _certificate(
    common_name: str,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    path_length: int,
) -> x509.Certificate:
    """A CA certificate; ``issuer`` None makes it its own root."""
    subject = _name(common_name)
    builder = _builder(subject, issuer.subject if issuer else subject, public_key)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )


def _web_certificate(
    address: str, key: ec.EllipticCurvePrivateKey, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    addresses = dict.fromkeys([address, "127.0.0.1"])
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
    names.append(x509.DNSName("localhost"))
    return (
        _builder(_name("Lab Stand-in"), root.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def key_usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_encipherment: bool = False,
    data_encipherment: bool = False,
    key_agreement: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    """x509.KeyUsage with everything that is not named left out (RFC 5280, 4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_encipherment=key_encipherment,
        data_encipherment=data_encipherment,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
