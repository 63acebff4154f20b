"""What the EST server needs of the daemon."""

from __future__ import annotations

from typing import Protocol

from ..core.enrollment import Enrolled, EnrollmentRequest, Pending


class Enroller(Protocol):
    async def enroll(self, request: EnrollmentRequest) -> Enrolled | Pending:
        """Decide, write down, have the CA issue. Idempotent for the same key.

        Raises CodeRefused (401), EnrollmentDenied and DeviceRevoked (403), TooManyRequests (429), NotBootstrapped and
        StoreBroken (503); on each of them nothing was issued and nothing consumed.
        """

    async def anchors(self) -> tuple[bytes, ...]:
        """DER of the certificates for /cacerts. Raises NotBootstrapped when they are not known yet."""
