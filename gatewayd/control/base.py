"""What the D-Bus service needs of the daemon: one port, so that the bus knows nothing of how it is done.

Reads return plain data (str, int, float, bool, None, lists and dicts of these; times as RFC 3339 in UTC with ``Z``),
which is also, key for key, what ``gatewayctl --json`` prints. Every method may raise a GatewayError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.listing import Wanted

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the bus knows it: not by its own word."""

    uid: int
    name: str
    """The unique bus name."""


class Progress(Protocol):
    def __call__(self, step: str, state: str, detail: str = "") -> None:
        """``state`` is ``started``, ``done``, ``waiting`` or ``failed``. Thread-safe, never blocks."""


Work = Callable[[Progress], Awaitable[Data]]
"""A long operation: reports its steps, returns its result (docs/json.md), raises a GatewayError. A window on work that
is written down: it may be cancelled at any time, and then only the watching ends."""


class TokenOperations(Protocol):
    """``token`` is ``gateway``, or ``registrar`` where that one's key has a token of its own."""

    async def objects(self) -> Data:
        """What the tokens hold, what each object is for, and what is missing."""

    async def unlock(self, caller: Caller, token: str, pin: str, final_try: bool) -> Data:
        """Try a PIN once, and keep it in memory when it is accepted. Returns the token as ``status`` has it."""

    async def initialize(self, caller: Caller, token: str, pin: str) -> Data:
        """Make the token where there is none. Returns it as ``status`` has it."""

    async def attest(self, caller: Caller, nonce: bytes) -> Data:
        """What the TPM says of the key of the gateway's certificate, for this nonce of a verifier's. Returns
        ``{"device_id", "nonce", "files"}``, each file in Base64. Raises AttestationUnsupported, NotBootstrapped."""

    async def activate(self, caller: Caller, challenge: bytes) -> Data:
        """Have the TPM answer a credential challenge. Returns ``{"secret"}``, in hex. Raises ChallengeRefused."""


class MaintenanceOperations(Protocol):
    """The daemon itself."""

    async def reload(self, caller: Caller) -> Data:
        """Take up the configuration as it is now. Returns ``{"applied", "needs_restart"}``, names of settings. Raises
        ReloadRefused, and then nothing has changed."""

    async def backup(self, caller: Caller, file: int) -> Data:
        """Write a consistent copy of the database to an open file, which is closed. Returns its manifest."""


class PageOperations(Protocol):
    """The technician's page, which is served beside the bus."""

    async def open(self, caller: Caller, lifetime: int) -> Data:
        """A one-time link to the page, good for ``lifetime`` seconds, as is the session that it opens. Returns
        ``{"session", "url", "expires_at"}``; the link is shown this once and kept only as a hash. Raises PageClosed."""

    async def close(self, caller: Caller) -> Data:
        """End all sessions, and all links. Returns ``{"ended"}``, how many they were."""


class LeafOperations(Protocol):
    """What is about leaves alone."""

    async def bind(self, caller: Caller, device_id: str, manufacturer: str, serial: str) -> Data:
        """From now on it is this piece of hardware (docs/manufacturers.md); ``serial`` "" for none, ``manufacturer`` ""
        where there is only one. Returns what ``device_show`` does. Raises InvalidArgument, DeviceUnknown,
        DeviceRevoked."""


class Operations(Protocol):
    """What an administrator may do. A method that returns ``Work`` has checked its arguments and written its intent
    down before it returns: the work goes on, or is done again, whatever becomes of the caller or of the daemon."""

    @property
    def token(self) -> TokenOperations: ...

    @property
    def maintenance(self) -> MaintenanceOperations: ...

    @property
    def page(self) -> PageOperations: ...

    @property
    def leaves(self) -> LeafOperations: ...

    async def status(self) -> Data:
        """See docs/json.md: ``gateway``, ``token``, ``issuer``, ``hub``, ``devices``, ``revocations``, ``waiting``."""

    async def device_list(self, wanted: Wanted, room: int | None = None) -> list[Data]:
        """``room``: bytes. Raises AnswerTooLarge when it would take more of them on the bus, before it has grown."""

    async def device_row(self, device_id: str) -> Data:
        """One item of ``device_list``. Raises DeviceUnknown."""

    async def device_show(self, device_id: str) -> Data:
        """The device, its credentials, its revocations with every milestone, its recent history."""

    async def device_add(
        self,
        caller: Caller,
        device_id: str,
        sans: list[str],
        code_lifetime: int,
        manufacturer: str = "",
        serial: str = "",
    ) -> Data:
        """Record a leaf and make its first code. ``code_lifetime`` in seconds, 0 = default; ``manufacturer`` and
        ``serial``: as of ``leaves.bind``. Returns ``{"device", "code", "expires_at"}``; the code is shown this once and
        kept only as a hash."""

    async def device_code(self, caller: Caller, device_id: str, code_lifetime: int) -> Data:
        """A new code for a leaf; earlier unused ones stop working."""

    async def device_replace(
        self,
        caller: Caller,
        device_id: str,
        reason: str,
        code_lifetime: int,
        manufacturer: str = "",
        serial: str = "",
    ) -> tuple[Data, Work]:
        """Give a leaf's hardware up and make a code for its successor; once more, a new code for the same swap.
        ``reason`` "" is the default. Returns what ``device_code`` does, and the work that ends when the new hardware
        is in service."""

    async def device_replace_cancel(self, caller: Caller, device_id: str) -> Data:
        """Give a swap up that is not finished; the device stays revoked. Returns what ``device_show`` does."""

    async def bootstrap(self, caller: Caller, token: str) -> Work:
        """The gateway's first certificate, with a registrar's Entra token that is kept in memory only."""

    async def bootstrap_with_certificate(self, caller: Caller, pem: str) -> Work:
        """The gateway's first certificate, with a factory-made one whose key is in the token."""

    async def export(self, caller: Caller) -> str:
        """What the gateway's next hardware takes over, signed in the token; there is no key in it."""

    async def adopt(self, caller: Caller, text: str, reason: str, max_age: int, token: str) -> Work:
        """Take the place of the hardware that made this export. ``max_age`` in seconds, 0 = default; ``reason`` "" is
        the default; ``token`` "" goes as registrar. The work ends when this hardware is in service."""

    async def renew(self, caller: Caller, device_id: str, key_algorithm: str) -> Work:
        """Renew the gateway's certificate now; ``key_algorithm`` is "" for the configured one."""

    async def revoke(self, caller: Caller, device_id: str, reason: str) -> Work:
        """Revoke a device's certificates; the work ends when the hub's identity is verified as disabled."""

    async def diagnose(self) -> list[Data]:
        """Look at everything that can be wrong (docs/json.md, gatewayctl doctor); takes a connection to each peer."""

    async def audit_verify(self, caller: Caller) -> Data:
        """Verify the whole audit trail. See docs/json.md: ``intact``, ``records``, ``findings``…"""

    async def clock_trust(self, caller: Caller) -> Data:
        """The machine's time is right, whatever was seen before. Returns ``clock`` of the status."""

    async def registrar_certificate(self, caller: Caller) -> str:
        """PEM of the certificate that the gateway's Entra application authenticates with; made at first call."""
