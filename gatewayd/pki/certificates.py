"""Certificates (RFC 5280): what they say, and whether what a CA has issued is what was asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..core.model import Credential, San
from ..errors import CertificateUnacceptable
from .csr import PrivateKey, public_key_sha256, signature_hash, subject
from .names import canonical, san
from .parsing import PARSE_ERRORS

CLOCK_SKEW = timedelta(minutes=5)
"""How far a CA's clock may be ahead of ours."""

_MAX_DEPTH = 4
"""Intermediates between a device's certificate and the root; EZCA has one."""


def serial_hex(certificate: x509.Certificate) -> str:
    """Lower-case, no leading zeros."""
    return format(certificate.serial_number, "x")


def thumbprint(certificate: x509.Certificate) -> str:
    """Hex SHA-256 of the DER, lower-case."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def thumbprint_sha1(certificate: x509.Certificate) -> str:
    """Hex SHA-1 of the DER, lower-case: a name that EZCA and the hub use, not a protection."""
    return certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - the protocol's name for a certificate


def common_name(certificate: x509.Certificate) -> str | None:
    """The subject's CN; None unless there is exactly one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return names[0].value if len(names) == 1 and isinstance(names[0].value, str) else None


def sans_of(certificate: x509.Certificate) -> tuple[San, ...]:
    """The names of the kinds that gatewayd deals in, in the certificate's order."""
    return tuple(known for each in general_names(certificate) if (known := san(each)) is not None)


def public_key_sha256_of(certificate: x509.Certificate) -> str:
    """Hex SHA-256 of the SubjectPublicKeyInfo."""
    return public_key_sha256(certificate.public_key())


def self_signed(private_key: PrivateKey, common_name: str, lifetime: timedelta, now: datetime) -> x509.Certificate:
    """A certificate that only carries a public key to where it is pinned, such as an Entra application. Signs, so it
    blocks, and raises whatever the token raises."""
    name = subject(common_name)
    public_key = private_key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .sign(private_key, signature_hash(private_key))
    )


def chain_of(certificate: x509.Certificate, candidates: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The issuers of ``certificate`` among ``candidates``, its own issuer first, as far up as they reach. What cannot
    be read does not take part."""
    pool = list(candidates)
    chain: list[x509.Certificate] = []
    child = certificate
    while (issuer := next((each for each in pool if _issued_by(child, each)), None)) is not None:
        pool.remove(issuer)
        if issuer == child:
            continue
        chain.append(issuer)
        child = issuer
    return tuple(chain)


def vouched(candidates: Iterable[x509.Certificate], trusted: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """The CA certificates among ``candidates`` that the trusted ones vouch for, in turn: signed by one of them, or the
    same name and key under its own signature. So a new root is found by the old one's word for it (RFC 4210, 4.4:
    NewWithOld)."""
    found: list[x509.Certificate] = []
    known = list(trusted)
    waiting = [each for each in candidates if each not in known and _is_ca_certificate(each)]
    while fresh := [each for each in waiting if any(_vouches(one, each) for one in known)]:
        found += fresh
        known += fresh
        waiting = [each for each in waiting if each not in fresh]
    return found


def _vouches(trusted: x509.Certificate, candidate: x509.Certificate) -> bool:
    same = trusted.subject == candidate.subject and public_key_sha256_of(trusted) == public_key_sha256_of(candidate)
    return _issued_by(candidate, trusted) or (same and _issued_by(candidate, candidate))


def _is_ca_certificate(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        return False


def _issued_by(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except (*PARSE_ERRORS, InvalidSignature):
        return False
    return True


def check_issued(
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    *,
    device_id: str,
    sans: Collection[San],
    public_key_sha256: str,
    server_auth: bool,
    now: datetime,
    replaces: Credential | None,
) -> None:
    """Pass if ``certificate`` is what was asked for, or raise CertificateUnacceptable with the reason.

    What a CA sends is as untrusted as any other input. ``chain`` holds the intermediates, ``anchors`` the roots that
    are trusted; ``replaces`` is the credential that this one follows, None for a first one.
    """
    try:
        fault = (
            _other_identity(certificate, device_id, sans, public_key_sha256)
            or _other_purpose(certificate, server_auth)
            or _other_times(certificate, now)
            or _no_renewal(certificate, replaces)
            or _broken_chain(certificate, chain, anchors, now)
        )
    except PARSE_ERRORS:
        fault = "it cannot be read"
    if fault:
        raise CertificateUnacceptable(f"The certificate issued for {device_id} is not used: {fault}.", device=device_id)


def check_signer(
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    *,
    device_id: str,
    now: datetime,
) -> None:
    """Pass if ``certificate`` is a valid one of ``device_id``'s, or raise CertificateUnacceptable."""
    fault = _other_times(certificate, now) or _broken_chain(certificate, chain, anchors, now)
    if common_name(certificate) != device_id:
        fault = f"its common name is {common_name(certificate)!r}"
    if fault:
        raise CertificateUnacceptable(f"The certificate is not one of {device_id}'s: {fault}.", device=device_id)


def is_device_of(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: datetime
) -> bool:
    """Whether it is a valid certificate of a device, no CA's, that leads to one of the anchors. Its key may be weak."""
    if _is_ca_certificate(certificate) or _other_times(certificate, now):
        return False
    return _broken_chain(certificate, chain, anchors, now) is None


def general_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """All alternative names, of whatever kind."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _other_identity(certificate: x509.Certificate, device_id: str, sans: Collection[San], key: str) -> str | None:
    if public_key_sha256_of(certificate) != key:
        return "it carries another public key than the request"
    if common_name(certificate) != device_id:
        return f"its common name is {common_name(certificate)!r}"
    if certificate.serial_number <= 0:
        return "its serial number is not positive"
    names = general_names(certificate)
    carried = {canonical(each) for each in sans_of(certificate)}
    asked = {canonical(each) for each in sans}
    if beyond := carried - asked:
        return f"it carries names that were not asked for ({_listed(beyond)})"
    if missing := asked - carried:
        return f"it lacks names that were asked for ({_listed(missing)})"
    if any(san(each) is None for each in names):
        return "it carries a kind of name that was not asked for"
    return None


def _listed(names: Collection[San]) -> str:
    return ", ".join(sorted(str(each) for each in names))


def _other_purpose(certificate: x509.Certificate, server_auth: bool) -> str | None:
    found = {type(each.value): each.value for each in certificate.extensions}
    constraints = found.get(x509.BasicConstraints)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        return "it is a CA's certificate"
    usage = found.get(x509.KeyUsage)
    if isinstance(usage, x509.KeyUsage) and usage.key_cert_sign:
        return "its key may sign certificates"
    if isinstance(usage, x509.KeyUsage) and not usage.digital_signature:
        return "its key may not make signatures, which TLS needs"
    purposes = found.get(x509.ExtendedKeyUsage)
    carried = set(purposes) if isinstance(purposes, x509.ExtendedKeyUsage) else set()
    if ExtendedKeyUsageOID.CLIENT_AUTH not in carried:
        return "it is not for client authentication"
    if server_auth and ExtendedKeyUsageOID.SERVER_AUTH not in carried:
        return "it is not for server authentication"
    return None


def _other_times(certificate: x509.Certificate, now: datetime) -> str | None:
    if certificate.not_valid_before_utc > now + CLOCK_SKEW:
        return f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    if certificate.not_valid_after_utc <= now:
        return f"it expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    return None


def _no_renewal(certificate: x509.Certificate, replaced: Credential | None) -> str | None:
    """Certificates count in seconds: two of the same second end together, and the later one is good. But one that ends
    with the one before and began later is the last that its CA will give: to take it would be to renew ever faster."""
    if replaced is None or replaced.not_before is None or replaced.not_after is None:
        return None
    if serial_hex(certificate) == replaced.serial:
        return "it is the one that it is to replace"
    ends, ended = certificate.not_valid_after_utc, replaced.not_after
    if ends < ended or (ends == ended and certificate.not_valid_before_utc > replaced.not_before):
        return f"it does not outlast the one it is to replace ({ended:%Y-%m-%dT%H:%M:%SZ})"
    return None


def _broken_chain(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: datetime
) -> str | None:
    if not anchors:
        return "no anchor is known to check its chain against"
    # A certificate fresh from a CA whose clock is ahead is judged at its own beginning.
    at = max(
        [now, certificate.not_valid_before_utc, *(each.not_valid_before_utc for each in chain if _fresh(each, now))]
    )
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(anchors)))
        .time(at)
        .max_chain_depth(_MAX_DEPTH)
        .extension_policies(ca_policy=_ca_policy(), ee_policy=verification.ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(certificate, list(chain))
    except verification.VerificationError as error:
        return f"its chain does not lead to a trusted root ({_first_line(error)})"
    return None


def _fresh(certificate: x509.Certificate, now: datetime) -> bool:
    return now < certificate.not_valid_before_utc <= now + CLOCK_SKEW


def _ca_policy() -> verification.ExtensionPolicy:
    """RFC 5280, 6.1.4 (k) and (n). The web PKI's own policy would also demand key identifiers and forbid what private
    CAs carry; path lengths, name constraints, signatures and times are the verifier's own business."""
    agnostic = verification.Criticality.AGNOSTIC
    return (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, agnostic, _is_ca)
        .may_be_present(x509.KeyUsage, agnostic, _may_sign)
    )


def _is_ca(_policy: verification.Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("an issuer is not a CA")


def _may_sign(_policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an issuer's key may not sign certificates")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:200]
