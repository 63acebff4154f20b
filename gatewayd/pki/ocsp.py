"""OCSP (RFC 6960): one question about one certificate, and whether an answer may be believed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, SignatureAlgorithmOID

from ..errors import RevocationDataUnusable
from . import signatures
from .certificates import CLOCK_SKEW
from .parsing import PARSE_ERRORS

_LONGEST_WITHOUT_NEXT = timedelta(days=1)
"""How old an answer may be that does not say when there is a newer one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a responder says, verified. An unknown certificate is neither good nor revoked."""

    status: ocsp.OCSPCertStatus
    this_update: datetime
    next_update: datetime | None
    revoked_at: datetime | None
    reason: x509.ReasonFlags | None


def responder_of(certificate: x509.Certificate) -> str | None:
    """The http or https URL of the responder that the certificate names."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (*PARSE_ERRORS, x509.ExtensionNotFound):
        return None
    places = (each.access_location for each in access if each.access_method == AuthorityInformationAccessOID.OCSP)
    urls = (each.value for each in places if isinstance(each, x509.UniformResourceIdentifier))
    return next((url for url in urls if url.lower().startswith(("http://", "https://"))), None)


def request(certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes) -> bytes:
    """DER. SHA-1 names the issuer, because many responders know no other; it protects nothing here."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303
    return builder.add_extension(x509.OCSPNonce(nonce), critical=False).build().public_bytes(serialization.Encoding.DER)


def read(der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes, now: datetime) -> Answer:
    """Raises RevocationDataUnusable for whatever is not a fresh answer about ``certificate`` by its issuer or by whom
    the issuer has authorised (RFC 6960, 3.2). A responder may leave the nonce out, as those do that sign in advance,
    but may not answer with another one."""
    try:
        return _read(der, certificate, issuer, nonce, now)
    except PARSE_ERRORS as error:
        words = (str(error).splitlines() or ["it cannot be read"])[0][:200]
        raise RevocationDataUnusable(f"The OCSP answer cannot be used: {words}.") from None


def _read(der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes, now: datetime) -> Answer:
    response = ocsp.load_der_ocsp_response(der)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise ValueError(f"the responder says {response.response_status.name.lower().replace('_', ' ')}")
    _check_signature(response, issuer, now)
    for each in response.extensions:
        if isinstance(each.value, x509.OCSPNonce) and each.value.nonce != nonce:
            raise ValueError("it answers another request")
        if each.critical and not isinstance(each.value, x509.OCSPNonce):
            raise ValueError("it has a critical extension that is not known")
    single = _about(response, certificate, issuer)
    _check_times(single, now)
    return Answer(
        status=single.certificate_status,
        this_update=single.this_update_utc,
        next_update=single.next_update_utc,
        revoked_at=single.revocation_time_utc,
        reason=single.revocation_reason,
    )


def _about(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> ocsp.OCSPSingleResponse:
    for single in response.responses:
        name, key = (
            _digest(issuer.subject.public_bytes(), single.hash_algorithm),
            _digest(_key_bits(issuer), single.hash_algorithm),
        )
        if (single.serial_number, single.issuer_name_hash, single.issuer_key_hash) == (
            certificate.serial_number,
            name,
            key,
        ):
            return single
    raise ValueError("it is about another certificate")


def _check_times(single: ocsp.OCSPSingleResponse, now: datetime) -> None:
    if single.this_update_utc > now + CLOCK_SKEW:
        raise ValueError("it is not valid yet")
    until = single.next_update_utc or single.this_update_utc + _LONGEST_WITHOUT_NEXT
    if until < now - CLOCK_SKEW:
        raise ValueError("it is out of date")


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> None:
    algorithm = signatures.acceptable(response.signature_hash_algorithm)
    if response.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS:
        raise ValueError("it is signed with RSASSA-PSS")
    digest = _digest(response.tbs_response_bytes, algorithm)
    for signer in _responders(response, issuer, now):
        scheme = ec.ECDSA(algorithm) if isinstance(signer.public_key(), ec.EllipticCurvePublicKey) else None
        try:
            signatures.verify(signer, response.signature, digest, algorithm, scheme or padding.PKCS1v15())
        except InvalidSignature:
            continue
        return
    raise ValueError("it is not signed by the certificate's issuer, nor by whom that has authorised")


def _responders(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> Iterator[x509.Certificate]:
    """The issuer, and those that came along and that it has authorised (RFC 6960, 4.2.2.2), as far as they are who the
    answer says has signed it."""
    for each in (issuer, *response.certificates):
        if response.responder_name is not None and response.responder_name != each.subject:
            continue
        if response.responder_key_hash is not None and response.responder_key_hash != _digest(
            _key_bits(each),
            hashes.SHA1(),  # noqa: S303 - how RFC 6960 names a key
        ):
            continue
        if each is issuer or _is_authorised(each, issuer, now):
            yield each


def _is_authorised(responder: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    try:
        responder.verify_directly_issued_by(issuer)
        purposes = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (*PARSE_ERRORS, InvalidSignature, x509.ExtensionNotFound):
        return False
    alive = responder.not_valid_before_utc - CLOCK_SKEW <= now <= responder.not_valid_after_utc
    return alive and ExtendedKeyUsageOID.OCSP_SIGNING in purposes


def _key_bits(certificate: x509.Certificate) -> bytes:
    """The subjectPublicKey BIT STRING without its header, which is what key hashes are made of."""
    spki = certificate.public_key()
    if isinstance(spki, ec.EllipticCurvePublicKey):
        return spki.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return spki.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)


def _digest(data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    return hashlib.new(algorithm.name, data).digest()
