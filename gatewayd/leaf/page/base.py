"""What the technician's page needs of the daemon.

Data is as docs/json.md has it. Every method may raise a GatewayError.
"""

from __future__ import annotations

from typing import Any, Protocol

from ...core.page import PageSession

Data = dict[str, Any]


class Technician(Protocol):
    """All that somebody on the page may do, which is what a technician may: look, and swap hardware."""

    async def enter(self, link: str, remote: str) -> tuple[str, PageSession]:
        """Use a one-time link up. Returns the session and its cookie. Raises LinkRefused, and then nothing is used."""

    async def session(self, cookie: str) -> PageSession | None:
        """Whose cookie this is; None when its session is over, or never was."""

    async def devices(self) -> list[Data]:
        """The leaves."""

    async def device(self, device_id: str) -> Data:
        """What ``device show`` shows. Raises DeviceUnknown."""

    async def replace(self, session: PageSession, device_id: str, reason: str) -> Data:
        """Begin, or go on with, a swap: what ``device replace`` answers, the code among it, this once."""

    async def cancel(self, session: PageSession, device_id: str) -> None:
        """Give a swap up. Raises NoReplacement."""
