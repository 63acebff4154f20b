"""CRLs of any size for tests and benchmarks, put together as bytes: a builder of objects would take minutes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from gatewayd.pki import der

REASON = bytes.fromhex("300c300a0603551d1504030a01")
"""An entry's extensions with a reasonCode, less its last octet: the code."""

_BATCH = 20_000
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def entry(serial: int, *, reason: int | None = None, at: bytes = b"260101120000Z", extensions: bytes = b"") -> bytes:
    number = der.integer_content(serial)
    content = bytes([der.INTEGER, len(number)]) + number + b"\x17\x0d" + at
    return der.sequence(content + (REASON + bytes([reason]) if reason is not None else extensions))


def skeleton(
    issuer: x509.Certificate,
    key: SigningKey,
    *,
    number: int = 1,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    this_update: datetime | None = None,
    pss: bool = False,
    lasts: timedelta = timedelta(hours=1),
) -> bytes:
    """An empty list in DER, signed."""
    begins = this_update or datetime.now(UTC) - timedelta(minutes=1)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(begins)
        .next_update(begins + lasts)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if pss else None
    return builder.sign(key, hashes.SHA256(), rsa_padding=scheme).public_bytes(serialization.Encoding.DER)


def with_entries(empty: bytes, key: SigningKey, entries: bytes) -> bytes:
    """The empty list with ``entries`` (DER, one after the other) in it, signed anew."""
    _, content, _ = der.header(empty, 0)
    _, begin, end = der.header(empty, content)
    sequences = [stop for tag, _, _, stop in der.elements(empty, begin, end) if tag == der.SEQUENCE]
    times = [stop for tag, _, _, stop in der.elements(empty, begin, end) if tag in (0x17, 0x18)]
    at = times[-1]
    signed = der.sequence(empty[begin:at] + der.sequence(entries) + empty[at:end])
    algorithm = next(
        empty[start:stop] for tag, start, _, stop in der.elements(empty, begin, sequences[0]) if tag == 0x30
    )
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    bits = b"\x00" + signature
    length = der.sequence(bits)[1 : -len(bits)]
    return der.sequence(signed + algorithm + b"\x03" + length + bits)


def write(path: Path, issuer: x509.Certificate, key: SigningKey, size: int, listed: Iterable[int]) -> None:
    """A list of ``size`` entries: random serial numbers of 16 octets, and the ``listed`` ones spread among them."""
    wanted = list(listed)
    parts: list[bytes] = []
    every = max(size // (len(wanted) + 1), 1)
    for begin in range(0, size, _BATCH):
        noise = os.urandom(16 * _BATCH)
        for index in range(min(_BATCH, size - begin)):
            number = begin + index
            if wanted and number % every == every - 1:
                parts.append(entry(wanted.pop()))
            else:
                serial = bytes([noise[16 * index] & 0x7F | 0x40]) + noise[16 * index + 1 : 16 * index + 16]
                # One in two names a reason, as mixed lists do.
                tail = REASON + bytes([number % 5 + 1]) if number % 2 else b""
                content = b"\x02\x10" + serial + b"\x17\x0d260101120000Z" + tail
                parts.append(b"\x30" + bytes([len(content)]) + content)
    assert not wanted
    path.write_bytes(with_entries(skeleton(issuer, key), key, b"".join(parts)))
