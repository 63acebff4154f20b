"""The CA behind EZCA: certificates, the CRL and OCSP answers, signed with the lab's issuing key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from ..init import key_usage

KEY_USAGES = {
    "Digital Signature": "digital_signature",
    "Key Encipherment": "key_encipherment",
    "Data Encipherment": "data_encipherment",
    "Key Agreement": "key_agreement",
    "Non Repudiation": "content_commitment",
}
"""EZCA's names for RFC 5280's key usages."""

StatusOf = Callable[[int], tuple[ocsp.OCSPCertStatus, datetime | None, str | None]]

_STATUS_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Order:
    """What a certificate is to hold."""

    subject: x509.Name
    sans: Sequence[x509.GeneralName]
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    key_usages: Sequence[str]
    """Keys of KEY_USAGES."""
    ekus: Sequence[str]
    """OIDs."""
    lifetime: timedelta


class Authority:
    """Issuing CA and root of one lab."""

    def __init__(self, directory: Path, status_url: str) -> None:
        """``status_url``: where ``/crl/issuing.crl`` and ``/ocsp`` are served; certificates name both."""
        self.issuing = x509.load_pem_x509_certificate((directory / "ca-issuing.pem").read_bytes())
        self.root = x509.load_pem_x509_certificate((directory / "ca-root.pem").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca-issuing-key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        root_key = serialization.load_pem_private_key((directory / "ca-root-key.pem").read_bytes(), None)
        assert isinstance(root_key, ec.EllipticCurvePrivateKey)
        self._key, self._root_key = key, root_key
        self.status_lifetime = _STATUS_LIFETIME
        """From thisUpdate to nextUpdate, of a CRL or an OCSP answer."""
        self.crl_url = f"{status_url}/crl/issuing.crl"
        self.delta_url = f"{status_url}/crl/issuing-delta.crl"
        self.root_crl_url = f"{status_url}/crl/root.crl"
        self.ocsp_url = f"{status_url}/ocsp"

    def mint(self, order: Order) -> x509.Certificate:
        now = datetime.now(UTC).replace(microsecond=0)
        usages = key_usage(**{KEY_USAGES[name]: True for name in order.key_usages})
        builder = (
            x509.CertificateBuilder()
            .subject_name(order.subject)
            .issuer_name(self.issuing.subject)
            .public_key(order.public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + order.lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usages, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(order.public_key), critical=False)
            .add_extension(self._authority_key_identifier(), critical=False)
            .add_extension(_distribution_points(self.crl_url), critical=False)
            .add_extension(_authority_information(self.ocsp_url), critical=False)
        )
        if order.ekus:
            ekus = x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in order.ekus])
            builder = builder.add_extension(ekus, critical=False)
        if order.sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(order.sans), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())

    def crl(
        self,
        number: int,
        revoked: Iterable[tuple[int, datetime, str | None]],
        *,
        base: int | None = None,
        names_delta: bool = False,
    ) -> bytes:
        """DER. ``revoked``: serial number, time of revocation, and a CRLReason by its name, or None. With ``base`` it
        is the delta to the list of that number (RFC 5280, 5.2.4); ``names_delta``: says where its delta is."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.issuing.subject)
            .last_update(now)
            .next_update(now + self.status_lifetime)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._authority_key_identifier(), critical=False)
        )
        if base is not None:
            builder = builder.add_extension(x509.DeltaCRLIndicator(base), critical=True)
        if names_delta:
            builder = builder.add_extension(x509.FreshestCRL([_point(self.delta_url)]), critical=False)
        for serial, at, reason in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags(reason)), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def root_crl(self) -> bytes:
        """Of the root, over the issuing CA: empty. OpenSSL asks for one of each CA of a chain."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.root.subject)
            .last_update(now)
            .next_update(now + self.status_lifetime)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        return builder.sign(self._root_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def ocsp(self, request: bytes, status_of: StatusOf) -> bytes:
        """Answer one DER request (RFC 6960). ``status_of`` gives a serial number's status, and time and reason of its
        revocation."""
        try:
            asked = ocsp.load_der_ocsp_request(request)
            algorithm = asked.hash_algorithm
        except ValueError:
            return _ocsp_failure(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
        if asked.issuer_key_hash != _issuer_key_hash(self.issuing, algorithm):
            return _ocsp_failure(ocsp.OCSPResponseStatus.UNAUTHORIZED)
        status, revoked_at, reason = status_of(asked.serial_number)
        now = datetime.now(UTC)
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response_by_hash(
                issuer_name_hash=asked.issuer_name_hash,
                issuer_key_hash=asked.issuer_key_hash,
                serial_number=asked.serial_number,
                algorithm=algorithm,
                cert_status=status,
                this_update=now,
                next_update=now + self.status_lifetime,
                revocation_time=revoked_at,
                revocation_reason=x509.ReasonFlags(reason) if reason else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.issuing)
        )
        for extension in asked.extensions:
            if isinstance(extension.value, x509.OCSPNonce):
                builder = builder.add_extension(extension.value, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _distribution_points(url: str) -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints([_point(url)])


def _point(url: str) -> x509.DistributionPoint:
    return x509.DistributionPoint(
        full_name=[x509.UniformResourceIdentifier(url)], relative_name=None, reasons=None, crl_issuer=None
    )


def _authority_information(url: str) -> x509.AuthorityInformationAccess:
    description = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
    return x509.AuthorityInformationAccess([description])


def _issuer_key_hash(issuer: x509.Certificate, algorithm: hashes.HashAlgorithm) -> bytes:
    """Of the key's BIT STRING without its header (RFC 6960, 4.1.1)."""
    point = issuer.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    digest = hashes.Hash(algorithm)
    digest.update(point)
    return digest.finalize()


def _ocsp_failure(status: ocsp.OCSPResponseStatus) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(serialization.Encoding.DER)
