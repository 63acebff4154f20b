"""What the stand-in has registered and issued: one SQLite file in the lab's directory, so that a restart keeps it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

_SCHEMA = """
CREATE TABLE IF NOT EXISTS domain (
  name TEXT PRIMARY KEY, domain_id TEXT NOT NULL, document TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS certificate (
  number INTEGER PRIMARY KEY, thumbprint TEXT NOT NULL UNIQUE, serial TEXT NOT NULL UNIQUE, der BLOB NOT NULL,
  domain TEXT NOT NULL, requester TEXT NOT NULL, call TEXT NOT NULL, location TEXT NOT NULL,
  requested_at TEXT NOT NULL, revoked_at TEXT, revoked_by TEXT, reason TEXT
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Domain:
    """A registered domain, which for EZCA is also what an IoT device is. People are objects of the wire's form."""

    name: str
    domain_id: str
    owners: Sequence[dict[str, Any]]
    requesters: Sequence[dict[str, Any]]
    requesters_only: Sequence[dict[str, Any]]
    notification_emails: Sequence[str]

    def is_owner(self, object_id: str) -> bool:
        return any(each["ObjectId"] == object_id for each in self.owners)

    def is_requester(self, object_id: str) -> bool:
        return any(each["ObjectId"] == object_id for each in (*self.requesters, *self.requesters_only))

    def admits(self, object_id: str) -> bool:
        return self.is_owner(object_id) or self.is_requester(object_id)


@dataclass(frozen=True, slots=True)
class Minted:
    """An issued certificate and how it came about."""

    certificate: x509.Certificate
    thumbprint: str
    """SHA-1, lower-case hex."""
    domain: str
    requester: str
    call: str
    location: str
    requested_at: datetime
    revoked_at: datetime | None
    revoked_by: str | None
    reason: str | None
    """A CRLReason by its name in RFC 5280; EZCA's own calls give none."""

    @property
    def common_name(self) -> str:
        return common_name(self.certificate.subject)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def common_name(subject: x509.Name) -> str:
    """The CN, or an empty string."""
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def thumbprint(certificate: x509.Certificate) -> str:
    """SHA-1 of the DER in lower-case hex: what EZCA names a certificate by."""
    return hashlib.sha1(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


class Store:
    """Domains and certificates. Raises ValueError for a domain that exists already."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        # Ends of the process are survived without it, and more than that no lab has to survive.
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def add_domain(self, domain: Domain) -> None:
        document = {
            "owners": domain.owners,
            "requesters": domain.requesters,
            "requesters_only": domain.requesters_only,
            "notification_emails": domain.notification_emails,
        }
        try:
            self._database.execute(
                "INSERT INTO domain VALUES (?, ?, ?)", (domain.name, domain.domain_id, json.dumps(document))
            )
        except sqlite3.IntegrityError:
            raise ValueError(f"domain {domain.name} is already registered") from None

    def domain(self, name: str) -> Domain | None:
        row = self._database.execute("SELECT * FROM domain WHERE name = ?", (name,)).fetchone()
        return _domain(row) if row else None

    def domains(self) -> list[Domain]:
        return [_domain(row) for row in self._database.execute("SELECT * FROM domain ORDER BY name")]

    def add(self, certificate: x509.Certificate, *, domain: str, requester: str, call: str, location: str) -> Minted:
        now = datetime.now(UTC)
        name = thumbprint(certificate)
        self._database.execute(
            "INSERT INTO certificate (thumbprint, serial, der, domain, requester, call, location, requested_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                name,
                f"{certificate.serial_number:x}",
                certificate.public_bytes(serialization.Encoding.DER),
                domain,
                requester,
                call,
                location,
                now.isoformat(),
            ),
        )
        return Minted(certificate, name, domain, requester, call, location, now, None, None, None)

    def by_thumbprint(self, name: str) -> Minted | None:
        return self._one("thumbprint", name)

    def by_serial(self, serial: int) -> Minted | None:
        return self._one("serial", f"{serial:x}")

    def _one(self, column: str, value: str) -> Minted | None:
        row = self._database.execute(f"{_SELECT} WHERE {column} = ?", (value,)).fetchone()
        return _minted(row) if row else None

    def certificates(self) -> Iterator[Minted]:
        """All, oldest first."""
        for row in self._database.execute(f"{_SELECT} ORDER BY number").fetchall():
            yield _minted(row)

    def page(self, domains: Sequence[str], number: int, size: int) -> list[Minted]:
        """The page ``number`` (from 0) of these domains' certificates, newest first."""
        wanted = json.dumps(list(domains))
        rows = self._database.execute(
            f"{_SELECT} WHERE domain IN (SELECT value FROM json_each(?)) ORDER BY number DESC LIMIT ? OFFSET ?",
            (wanted, size, number * size),
        )
        return [_minted(row) for row in rows]

    def revoke(self, name: str, by: str, reason: str | None = None) -> None:
        """Idempotent: the first time stays."""
        self._database.execute(
            "UPDATE certificate SET revoked_at = ?, revoked_by = ?, reason = ? WHERE thumbprint = ?"
            " AND revoked_at IS NULL",
            (datetime.now(UTC).isoformat(), by, reason, name),
        )

    def release(self, name: str) -> None:
        """From a hold."""
        self._database.execute(
            "UPDATE certificate SET revoked_at = NULL, revoked_by = NULL, reason = NULL WHERE thumbprint = ?", (name,)
        )


_SELECT = (
    "SELECT der, thumbprint, domain, requester, call, location, requested_at, revoked_at, revoked_by, reason"
    " FROM certificate"
)


def _domain(row: Sequence[Any]) -> Domain:
    name, domain_id, document = row
    return Domain(name, domain_id, **json.loads(document))


def _minted(row: Sequence[Any]) -> Minted:
    der, name, domain, requester, call, location, requested_at, revoked_at, revoked_by, reason = row
    return Minted(
        x509.load_der_x509_certificate(der),
        name,
        domain,
        requester,
        call,
        location,
        datetime.fromisoformat(requested_at),
        datetime.fromisoformat(revoked_at) if revoked_at else None,
        revoked_by,
        reason,
    )
