"""Certificate revocation lists (RFC 5280, 5), of any size, in a little memory.

A list of a million entries is 50 MB. It is read from its file once, in windows: each window goes into the hash of the
signed part, and its entries are compared, byte for byte, with the serial numbers in question. No entry becomes an
object. What is left when all other entries are cut out, the *skeleton*, is a small list that ``cryptography`` reads:
names, times, extensions, and the entries in question. So the little that is parsed here is lengths.

Meant for a thread: it pauses for a moment after each window, or it would keep the event loop from the interpreter for
milliseconds at a time.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ..errors import RevocationDataUnusable
from . import der, signatures
from .parsing import PARSE_ERRORS

_WINDOW: Final = 32 * 1024
_PAUSE: Final = 50e-6
_LONGEST_HEAD: Final = 64 * 1024
_LONGEST_TAIL: Final = 256 * 1024
_LONGEST_ENTRY: Final = 16 * 1024

_CRITICAL: Final = b"\x01\x01\xff"
"""``critical TRUE``: where these bytes do not occur, no entry has a critical extension."""
_KNOWN_IN_ENTRIES: Final = (b"\x55\x1d\x15", b"\x55\x1d\x18")
"""reasonCode and invalidityDate; certificateIssuer belongs to indirect lists, which are not taken."""
_KNOWN: Final = (
    x509.CRLNumber,
    x509.DeltaCRLIndicator,
    x509.IssuingDistributionPoint,
    x509.FreshestCRL,
    x509.AuthorityKeyIdentifier,
    x509.AuthorityInformationAccess,
    x509.IssuerAlternativeName,
)


@dataclass(frozen=True, slots=True)
class Entry:
    serial: int
    revoked_at: datetime
    reason: x509.ReasonFlags | None


@dataclass(frozen=True, slots=True)
class Crl:
    """A list whose signature has been verified, with those of its entries that were asked for."""

    issuer: x509.Certificate
    number: int | None
    base: int | None
    """Of a delta list: the number of the complete list that it builds on, at least."""
    this_update: datetime
    next_update: datetime | None
    points: frozenset[str]
    """URLs of the distribution point whose certificates it covers; empty: all of the issuer's."""
    freshest: tuple[str, ...]
    """URLs of its delta list."""
    listed: tuple[Entry, ...]


def read(path: Path, issuers: Iterable[x509.Certificate], own: Mapping[x509.Name, Collection[int]]) -> Crl:
    """``issuers``: certificates of trusted CAs, one of which must have signed it; ``own``: the serial numbers in
    question, by the name of their issuer. Blocks. Raises RevocationDataUnusable, and OSError.

    Whether it is fresh is the caller's to judge.
    """
    try:
        with path.open("rb") as file:
            return _read(_Layout.of(file), tuple(issuers), own)
    except (*PARSE_ERRORS, OverflowError) as error:
        raise RevocationDataUnusable(f"The CRL cannot be used: {_words(error)}.") from None


def _read(layout: _Layout, issuers: tuple[x509.Certificate, ...], own: Mapping[x509.Name, Collection[int]]) -> Crl:
    """Raises ValueError with the reason."""
    bare = layout.skeleton(())
    found = _extensions(bare)
    algorithm = signatures.acceptable(bare.signature_hash_algorithm)
    candidates = [each for each in issuers if _may_have_signed(each, bare.issuer, found)]
    if not candidates:
        raise ValueError("it is not of a CA that issued a certificate here")
    scope = found.get(x509.IssuingDistributionPoint)
    serials: Collection[int] = own.get(bare.issuer, ())
    if isinstance(scope, x509.IssuingDistributionPoint):
        if scope.indirect_crl or scope.only_contains_attribute_certs:
            raise ValueError("it is an indirect list or one of attribute certificates")
        if scope.only_contains_ca_certs:
            serials = ()
    digest = hashlib.new(algorithm.name)
    kept = layout.search(digest, {der.integer_content(each) for each in serials})
    issuer = _signer(candidates, bare, digest.digest())
    full = layout.skeleton(kept.values())
    number, base = found.get(x509.CRLNumber), found.get(x509.DeltaCRLIndicator)
    freshest = found.get(x509.FreshestCRL)
    return Crl(
        issuer=issuer,
        number=number.crl_number if isinstance(number, x509.CRLNumber) else None,
        base=base.crl_number if isinstance(base, x509.DeltaCRLIndicator) else None,
        this_update=bare.last_update_utc,
        next_update=bare.next_update_utc,
        points=frozenset(_urls(scope.full_name)) if isinstance(scope, x509.IssuingDistributionPoint) else frozenset(),
        freshest=tuple(url for point in freshest for url in _urls(point.full_name))
        if isinstance(freshest, x509.FreshestCRL)
        else (),
        listed=tuple(Entry(each.serial_number, each.revocation_date_utc, _reason(each)) for each in full),
    )


def distribution_points(certificate: x509.Certificate) -> tuple[str, ...]:
    """The http and https URLs of the CRL that covers ``certificate``; empty when it names none, or is unreadable. A
    point with an issuer of its own is an indirect list's, and left out."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (*PARSE_ERRORS, x509.ExtensionNotFound):
        return ()
    urls = [url for each in points if each.crl_issuer is None for url in _urls(each.full_name)]
    return tuple(url for url in urls if url.lower().startswith(("http://", "https://")))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where what is in the file (RFC 5280, 5.1): only the revoked entries may be many."""

    file: BinaryIO
    signed: tuple[int, int]
    """The signed part, its header included."""
    entries: tuple[int, int]
    head: bytes
    """What is signed before the entries, and after them."""
    tail: bytes
    outer: bytes
    """Algorithm and signature."""

    @classmethod
    def of(cls, file: BinaryIO) -> _Layout:
        """Raises ValueError."""
        size = os.fstat(file.fileno()).st_size
        start = file.read(_LONGEST_HEAD)
        tag, at, end = der.header(start, 0)
        if tag != der.SEQUENCE or end != size:
            raise ValueError("it is not one DER structure from beginning to end")
        tag, begin, signed_end = der.header(start, at)
        if tag != der.SEQUENCE or signed_end > size:
            raise ValueError("it is cut off")
        head_end, entries = _entries_of(start, begin, signed_end)
        tail_begin = max(head_end, entries[1])
        if size - tail_begin > _LONGEST_TAIL:
            raise ValueError("its extensions or its signature are too large")
        file.seek(tail_begin)
        rest = file.read(_LONGEST_TAIL)
        tail, outer = rest[: signed_end - tail_begin], rest[signed_end - tail_begin :]
        layout = cls(file, (at, signed_end), entries, start[begin:head_end], tail, outer)
        layout._check_algorithms()
        return layout

    def _check_algorithms(self) -> None:
        """The signed algorithm must be the one beside the signature: only the former is protected (5.1.1.2)."""
        inner = next(
            self.head[start:stop] for tag, start, _, stop in der.elements(self.head, 0, len(self.head)) if tag == 0x30
        )
        if not self.outer.startswith(inner):
            raise ValueError("it names two different signature algorithms")

    def skeleton(self, entries: Iterable[bytes]) -> x509.CertificateRevocationList:
        """The list with these entries alone. Its signature is of the whole one."""
        listed = b"".join(entries)
        signed = self.head + (der.sequence(listed) if listed else b"") + self.tail
        return x509.load_der_x509_crl(der.sequence(der.sequence(signed) + self.outer))

    def search(self, digest: hashlib._Hash, wanted: Collection[bytes]) -> dict[bytes, bytes]:
        """Hash the signed part; returns the entries whose serial number is wanted. Raises ValueError."""
        begin, end = self.entries
        self.file.seek(self.signed[0])
        digest.update(self.file.read(begin - self.signed[0]))
        kept: dict[bytes, bytes] = {}
        rest = b""
        left = end - begin
        while left:
            chunk = self.file.read(min(_WINDOW, left))
            if not chunk:
                raise ValueError("it is cut off")
            left -= len(chunk)
            digest.update(chunk)
            window = rest + chunk
            rest = window[_search(window, wanted, kept) :]
            if len(rest) > _LONGEST_ENTRY:
                raise ValueError("one of its entries is too large")
            time.sleep(_PAUSE)
        if rest:
            raise ValueError("its last entry is cut off")
        digest.update(self.tail)
        return kept


def _entries_of(start: bytes, begin: int, signed_end: int) -> tuple[int, tuple[int, int]]:
    """(where what comes before the entries ends, where the entries begin and end), in the signed part's content.

    version OPTIONAL, signature, issuer, thisUpdate, nextUpdate OPTIONAL, entries OPTIONAL, [0] extensions OPTIONAL: of
    the three SEQUENCEs the third is the entries.
    """
    sequences, at = 0, begin
    while at < signed_end:
        tag, content, stop = der.header(start, at)
        if tag == der.SEQUENCE:
            sequences += 1
            if sequences == 3:
                if stop > signed_end:
                    raise ValueError("its entries reach beyond what is signed")
                return at, (content, stop)
        elif tag == 0xA0:
            break
        at = stop
    if at > len(start):
        raise ValueError("its issuer's name is too long")
    return at, (at, at)


def _search(window: bytes, wanted: Collection[bytes], kept: dict[bytes, bytes]) -> int:
    """Put the wanted entries among the complete ones of ``window`` into ``kept``; returns where the first incomplete
    one begins. This loop runs a million times: an entry of less than 128 bytes goes the short way."""
    at, size = 0, len(window)
    critical = _CRITICAL in window
    while at + 8 <= size:  # no entry is shorter: a serial number and a time
        begin, length = at + 2, window[at + 1]
        if length < 0x80:
            end = begin + length
        else:
            _, begin, end = der.header(window, at)
        if end > size:
            break
        if window[at] != 0x30 or end - begin < 4 or window[begin] != 0x02:
            raise ValueError("one of its entries is malformed")
        split = begin + 2 + window[begin + 1]
        if split > end:
            raise ValueError("one of its serial numbers is malformed")
        serial = window[begin + 2 : split]
        if serial in wanted:
            kept[serial] = window[at:end]
        if critical:
            _check_critical(window, split, end)
        at = end
    return at


def _check_critical(window: bytes, begin: int, end: int) -> None:
    """Raises ValueError for an entry with a critical extension that is not known: such a list must not be used at all
    (RFC 5280, 5.3)."""
    for tag, _, content, stop in der.elements(window, begin, end):
        if tag != der.SEQUENCE:
            continue
        for _, _, inner, inner_stop in der.elements(window, content, stop):
            parts = [(each[0], window[each[2] : each[3]]) for each in der.elements(window, inner, inner_stop)]
            if parts[1:] and parts[1] == (der.BOOLEAN, b"\xff") and parts[0][1] not in _KNOWN_IN_ENTRIES:
                raise ValueError("an entry has a critical extension that is not known")


def _extensions(crl: x509.CertificateRevocationList) -> dict[type, x509.ExtensionType]:
    for each in crl.extensions:
        if each.critical and not isinstance(each.value, _KNOWN):
            raise ValueError(f"it has a critical extension that is not known ({each.oid.dotted_string})")
    return {type(each.value): each.value for each in crl.extensions}


def _may_have_signed(issuer: x509.Certificate, name: x509.Name, found: Mapping[type, x509.ExtensionType]) -> bool:
    if issuer.subject != name:
        return False
    values = {type(each.value): each.value for each in issuer.extensions}
    usage, own_id = values.get(x509.KeyUsage), values.get(x509.SubjectKeyIdentifier)
    if isinstance(usage, x509.KeyUsage) and not usage.crl_sign:
        return False
    named = found.get(x509.AuthorityKeyIdentifier)
    if isinstance(named, x509.AuthorityKeyIdentifier) and isinstance(own_id, x509.SubjectKeyIdentifier):
        return named.key_identifier is None or named.key_identifier == own_id.digest
    return True


def _signer(
    candidates: Iterable[x509.Certificate], crl: x509.CertificateRevocationList, digest: bytes
) -> x509.Certificate:
    algorithm = signatures.acceptable(crl.signature_hash_algorithm)
    for issuer in candidates:
        try:
            signatures.verify(issuer, crl.signature, digest, algorithm, crl.signature_algorithm_parameters)
        except InvalidSignature:
            continue
        return issuer
    raise ValueError("its signature is not its issuer's")


def _reason(entry: x509.RevokedCertificate) -> x509.ReasonFlags | None:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return None


def _urls(names: Iterable[x509.GeneralName] | None) -> Iterable[str]:
    return [each.value for each in names or () if isinstance(each, x509.UniformResourceIdentifier)]


def _words(error: Exception) -> str:
    """Our own sentences as they are; of a library's the first line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
