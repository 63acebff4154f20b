"""A small certification authority for tests: root and issuing CA, and leaf certificates with any fault one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


class Authority:
    """Fresh keys and certificates for each instance; ``clock`` says when it is."""

    def __init__(self, name: str = "Test", clock: Callable[[], datetime] = now) -> None:
        self._name = name
        self._now = clock
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.issuing_key = ec.generate_private_key(ec.SECP256R1())

    @cached_property
    def root(self) -> x509.Certificate:
        return self._ca(f"{self._name} Root", self.root_key, f"{self._name} Root", depth=1)

    @cached_property
    def issuing(self) -> x509.Certificate:
        return self._ca(f"{self._name} Issuing", self.issuing_key, f"{self._name} Root", depth=0)

    @property
    def chain(self) -> tuple[x509.Certificate, x509.Certificate]:
        return self.issuing, self.root

    def leaf(
        self,
        public_key: CertificatePublicKeyTypes,
        device_id: str,
        names: Iterable[x509.GeneralName] = (),
        *,
        starts: timedelta = timedelta(minutes=-1),
        lasts: timedelta = timedelta(days=10),
        purposes: Iterable[x509.ObjectIdentifier] = (CLIENT, SERVER),
        ca: bool = False,
        extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        """A certificate by the issuing CA; ``starts`` counts from now, ``lasts`` from the start."""
        begin = self._now() + starts
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(device_id))
            .issuer_name(self.issuing.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + lasts)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        general = list(names)
        if general:
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        usages = list(purposes)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.issuing_key, hashes.SHA256())

    def _ca(
        self, name: str, key: ec.EllipticCurvePrivateKey, issuer: str, *, depth: int, ca: bool = True
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(_subject(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now() - timedelta(days=1))
            .not_valid_after(self._now() + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=depth if ca else None), critical=True)
            .sign(self.root_key, hashes.SHA256())
        )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
