"""PKCS#10 requests (RFC 2986): reading what a stranger sends, building our own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from ..core.enrollment import CsrFacts
from ..core.model import San
from ..errors import CsrInvalid
from .names import canonical, general_name, san
from .parsing import PARSE_ERRORS

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_EXTENSION_REQUESTS = frozenset({"1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"})
"""extensionRequest of RFC 2985, and Microsoft's older number for the same."""
_ATTRIBUTES = _EXTENSION_REQUESTS | {
    AttributeOID.CHALLENGE_PASSWORD.dotted_string,
    AttributeOID.UNSTRUCTURED_NAME.dotted_string,
}
_EXTENSIONS = (
    x509.SubjectAlternativeName,
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectKeyIdentifier,
)
"""What may be in a request: it is judged here or says nothing. The CSR goes to the CA as it is, and a CA may follow
what it finds in it, such as the name of a template or of an account."""


def read(der: bytes) -> CsrFacts:
    """What ``der`` asks for, its own signature verified. Any bytes may come in; raises CsrInvalid."""
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key()
        genuine = request.is_signature_valid
        return _facts(request, public_key) if genuine else _refuse("its signature is not by its own key")
    except UnsupportedAlgorithm:
        return _refuse("its key or signature algorithm is not known here")
    except PARSE_ERRORS:
        return _refuse("it is not a well-formed PKCS#10 request in DER")


def build(private_key: PrivateKey, device_id: str, sans: Sequence[San]) -> bytes:
    """DER of a request for ``CN=device_id`` with these names. Signs, so it blocks; raises InvalidArgument for a name
    that does not fit its kind, and whatever the token raises."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(device_id))
    if sans:
        names = x509.SubjectAlternativeName([general_name(each) for each in sans])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(private_key, signature_hash(private_key)).public_bytes(serialization.Encoding.DER)


def subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def signature_hash(private_key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """The hash that matches the key's strength."""
    return hashes.SHA384() if private_key.key_size == 384 else hashes.SHA256()


def public_key_sha256(public_key: CertificatePublicKeyTypes) -> str:
    """Hex SHA-256 of the SubjectPublicKeyInfo."""
    info = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def _refuse(why: str) -> CsrFacts:
    raise CsrInvalid(f"The CSR cannot be used: {why}.")


def _facts(request: x509.CertificateSigningRequest, public_key: CertificatePublicKeyTypes) -> CsrFacts:
    # A second request for extensions would pass us unread and might be honoured by the CA.
    if sum(each.oid.dotted_string in _EXTENSION_REQUESTS for each in request.attributes) > 1:
        _refuse("it asks for extensions more than once")
    attributes = list(request.subject)
    names = [each.value for each in attributes if each.oid == NameOID.COMMON_NAME]
    name = names[0] if len(names) == 1 and isinstance(names[0], str) else None
    wanted = {type(each.value): each.value for each in request.extensions}
    alternative = wanted.get(x509.SubjectAlternativeName)
    general = list(alternative) if isinstance(alternative, x509.SubjectAlternativeName) else []
    sans = tuple(canonical(known) for each in general if (known := san(each)) is not None)
    description, accepted = judge(public_key)
    return CsrFacts(
        der=request.public_bytes(serialization.Encoding.DER),
        common_name=name,
        other_subject=len(attributes) > (name is not None),
        sans=sans,
        unknown_names=len(sans) < len(general),
        public_key_sha256=public_key_sha256(public_key),
        key_description=description,
        key_accepted=accepted,
        is_ca=_asks_for_ca(wanted.get(x509.BasicConstraints), wanted.get(x509.KeyUsage)),
        eku_beyond_client=_beyond_client(wanted.get(x509.ExtendedKeyUsage)),
        asks_for_more=not wanted.keys() <= set(_EXTENSIONS)
        or any(each.oid.dotted_string not in _ATTRIBUTES for each in request.attributes),
    )


def _asks_for_ca(constraints: x509.ExtensionType | None, usage: x509.ExtensionType | None) -> bool:
    return (isinstance(constraints, x509.BasicConstraints) and constraints.ca) or (
        isinstance(usage, x509.KeyUsage) and (usage.key_cert_sign or usage.crl_sign)
    )


def _beyond_client(usage: x509.ExtensionType | None) -> bool:
    return isinstance(usage, x509.ExtendedKeyUsage) and any(each != ExtendedKeyUsageOID.CLIENT_AUTH for each in usage)


def judge(public_key: CertificatePublicKeyTypes) -> tuple[str, bool]:
    """The key in words, and whether it is one that may carry an identity."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return f"EC {public_key.curve.name}", isinstance(public_key.curve, ec.SECP256R1 | ec.SECP384R1)
    if isinstance(public_key, rsa.RSAPublicKey):
        exponent = public_key.public_numbers().e
        # FIPS 186-5, A.1.1: odd, and between 2^16 and 2^256.
        sane = exponent % 2 == 1 and 2**16 < exponent < 2**256
        return f"RSA {public_key.key_size}", 2048 <= public_key.key_size <= 4096 and sane
    return type(public_key).__name__.removesuffix("PublicKey").lstrip("_"), False
