"""An Enroller with a CA of its own in memory: what the EST server stands in front of, in its tests."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gatewayd.core.enrollment import (
    Enrolled,
    EnrollmentRequest,
    Operation,
    Pending,
    Refusal,
    scope_refusal,
)
from gatewayd.core.model import Device, DeviceKind, DeviceState
from gatewayd.errors import CodeRefused, DeviceRevoked, EnrollmentDenied, GatewayError, NotBootstrapped

DER = serialization.Encoding.DER


class MemoryCa:
    """A root and an issuing CA, EC P-256, software keys."""

    def __init__(self, name: str = "Test") -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._issuing_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._sign(f"{name} Root", self._root_key.public_key(), f"{name} Root", self._root_key, ca=True)
        self.issuing = self._sign(
            f"{name} Issuing", self._issuing_key.public_key(), f"{name} Root", self._root_key, ca=True
        )
        self._name = f"{name} Issuing"

    def issue(
        self,
        common_name: str,
        public_key: ec.EllipticCurvePublicKey,
        *,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        names: tuple[x509.GeneralName, ...] = (),
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        return self._sign(
            common_name, public_key, self._name, self._issuing_key, usage=usage, names=names, not_after=not_after
        )

    def _sign(
        self,
        subject: str,
        public_key: ec.EllipticCurvePublicKey,
        issuer: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        ca: bool = False,
        usage: x509.ObjectIdentifier | None = None,
        names: tuple[x509.GeneralName, ...] = (),
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(not_after or now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(key, hashes.SHA256())


class FakeEnroller:
    """Decides as the real one does, keeps all in memory, and can be told to be slow, to wait or to fail."""

    def __init__(self, ca: MemoryCa) -> None:
        self.ca = ca
        self.devices: dict[str, Device] = {}
        self.codes: dict[tuple[str, str], str | None] = {}
        """(device id, code) → SHA-256 of the CSR that has used it."""
        self.issued: dict[str, bytes] = {}
        """SHA-256 of the CSR → DER."""
        self.requests: list[EnrollmentRequest] = []
        self.bootstrapped = True
        self.fails_with: Exception | None = None
        self.pending = 0
        """How often yet to answer that it takes longer."""
        self.delay = 0.0
        self.entered = asyncio.Event()
        """Set when a request has reached the Enroller."""

    def add(self, device_id: str, code: str | None = None, *, state: DeviceState = DeviceState.ACTIVE) -> None:
        self.devices[device_id] = Device(device_id, DeviceKind.LEAF, datetime.now(UTC), state=state)
        if code:
            self.codes[device_id, code] = None

    @property
    def unused_codes(self) -> int:
        return sum(used is None for used in self.codes.values())

    async def enroll(self, request: EnrollmentRequest) -> Enrolled | Pending:
        self.requests.append(request)
        self.entered.set()
        await asyncio.sleep(self.delay)
        if self.fails_with is not None:
            raise self.fails_with
        digest = hashlib.sha256(request.csr.der).hexdigest()
        self._authenticate(request, digest)
        if self.pending > 0:
            self.pending -= 1
            return Pending(retry_after=1)
        if digest not in self.issued:
            key = x509.load_der_x509_csr(request.csr.der).public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert request.csr.common_name is not None
            self.issued[digest] = self.ca.issue(request.csr.common_name, key).public_bytes(DER)
        return Enrolled(self.issued[digest])

    async def anchors(self) -> tuple[bytes, ...]:
        if not self.bootstrapped:
            raise NotBootstrapped("The gateway has no certificate yet.")
        return self.ca.issuing.public_bytes(DER), self.ca.root.public_bytes(DER)

    def _authenticate(self, request: EnrollmentRequest, digest: str) -> None:
        if request.basic is not None:
            device_id = request.basic[0]
            if self.codes.get(request.basic, "no such code") not in (None, digest):
                raise CodeRefused("The code is not accepted.")
        else:
            assert request.peer_certificate is not None
            name = x509.load_der_x509_certificate(request.peer_certificate).subject
            device_id = str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
            if request.operation is not Operation.REENROLL:
                raise EnrollmentDenied("A device with a certificate asks simplereenroll.", device=device_id)
        _allow(scope_refusal(self.devices.get(device_id), request.csr), device_id)
        if request.basic is not None:
            self.codes[request.basic] = digest


def _allow(refusal: Refusal | None, device_id: str) -> None:
    error: GatewayError
    if refusal is None:
        return
    if refusal is Refusal.REVOKED:
        error = DeviceRevoked(refusal, device=device_id)
    else:
        error = EnrollmentDenied(refusal, device=device_id)
    raise error
