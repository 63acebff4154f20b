"""A manufacturer that puts a certificate (IEEE 802.1AR: IDevID) into each device that it makes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM
FOR_EVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""IEEE 802.1AR, 8.7: an IDevID has no well-defined end."""


class Manufacturer:
    """A root, a factory's CA below it, and devices with whatever name one likes."""

    def __init__(self, name: str = "Acme") -> None:
        self.root_key, self.factory_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = _ca(f"{name} Root", self.root_key, f"{name} Root", self.root_key, 1)
        self.factory = _ca(f"{name} Factory", self.factory_key, f"{name} Root", self.root_key, 0)

    def device(
        self,
        key: CertificateIssuerPrivateKeyTypes,
        serial: str = "4711",
        *,
        common_name: str | None = None,
        names: Iterable[x509.GeneralName] = (),
        ends: datetime = FOR_EVER,
        ca: bool = False,
    ) -> x509.Certificate:
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme")]
        subject += [x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)] if serial else []
        subject += [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.factory.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2024, 1, 1, tzinfo=UTC))
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if general := list(names):
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=True)
        return builder.sign(self.factory_key, hashes.SHA256())

    def write(self, directory: Path, certificate: x509.Certificate, key: CertificateIssuerPrivateKeyTypes) -> Path:
        """What a TLS client of the device needs: its certificate, the factory's, its key."""
        file = directory / f"idevid-{certificate.serial_number % 10**9}.pem"
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(certificate.public_bytes(PEM) + self.factory.public_bytes(PEM) + private)
        return file


def _ca(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, depth: int
) -> x509.Certificate:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
