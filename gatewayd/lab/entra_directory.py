"""The applications of the lab's Entra tenant, in ``entra-applications.json`` of the lab's directory.

One file for the processes that play one cloud: the Entra stand-in writes it, EZCA's looks object ids up in it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

TENANT_ID = "2f4a1c3e-9b7d-4e58-8a60-1d5c7e9f0b33"


@dataclass(frozen=True, slots=True)
class Application:
    """A registered application with the certificates that it may sign assertions with."""

    client_id: str
    object_id: str
    """Of its service principal: the ``oid`` of its tokens."""
    certificates: tuple[x509.Certificate, ...]


class Directory:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "entra-applications.json"

    def applications(self) -> list[Application]:
        if not self._path.exists():
            return []
        return [
            Application(
                client_id,
                entry["object_id"],
                tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in entry["certificates"]),
            )
            for client_id, entry in json.loads(self._path.read_text()).items()
        ]

    def application(self, client_id: str) -> Application | None:
        return next((each for each in self.applications() if each.client_id == client_id), None)

    def is_application(self, object_id: str) -> bool:
        return any(each.object_id == object_id for each in self.applications())

    def upload(self, client_id: str, object_id: str, certificate: x509.Certificate) -> Application:
        """Register the application, or add a certificate to it, as a person does in the portal."""
        known = self.application(client_id)
        before = known.certificates if known else ()
        application = Application(client_id, object_id, tuple(dict.fromkeys([*before, certificate])))
        self._write([application, *(each for each in self.applications() if each.client_id != client_id)])
        return application

    def remove(self, client_id: str) -> None:
        """Without an application of that id, nothing changes."""
        self._write([each for each in self.applications() if each.client_id != client_id])

    def _write(self, applications: list[Application]) -> None:
        document = {
            each.client_id: {
                "object_id": each.object_id,
                "certificates": [
                    certificate.public_bytes(serialization.Encoding.PEM).decode() for certificate in each.certificates
                ],
            }
            for each in applications
        }
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(document, indent=1))
        os.replace(draft, self._path)
