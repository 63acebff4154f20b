"""The hub's device registry over REST (iothub.md, Registry REST)."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Collection
from typing import Any, Final
from urllib.parse import quote

from ..errors import HubConflict, HubUnreachable
from . import identity as identities
from .base import HubIdentity, Pinning
from .rest import Answer, HubRest, TokenSource, failure

ATTEMPTS: Final = 3
"""How often a write is tried when somebody else was faster or its answer was lost."""


class HubRegistry:
    """The ``Registry`` port. Keeps one HTTPS session to the hub; ``close`` ends it."""

    def __init__(
        self, host_or_url: str, tokens: TokenSource, scope: str, tls: ssl.SSLContext, timeout: float = 30.0
    ) -> None:
        """As ``HubRest``."""
        self._rest = HubRest(host_or_url, tokens, scope, tls, timeout)

    async def get(self, device_id: str) -> HubIdentity | None:
        answer = await self._request("GET", device_id)
        if answer.status == 200:
            return _identity(answer, device_id)
        # Only the hub's own word that there is no such device counts: another 404 may come from a proxy or a wrong
        # host, and a device that is taken for absent would be taken for harmless.
        if answer.status == 404 and answer.problem.code == "DeviceNotFound":
            return None
        raise failure(answer, device_id, "be read")

    async def ensure(self, device_id: str, *, parent: str = "", edge: bool = False) -> HubIdentity:
        def missing(present: HubIdentity | None) -> dict[str, Any] | None:
            return identities.new(device_id, parent, edge) if present is None else None

        found = await self.converge(device_id, missing)
        assert found is not None
        return found

    async def disable(self, device_id: str, reason: str, thumbprint: str | None = None) -> HubIdentity | None:
        def still_open(present: HubIdentity | None) -> dict[str, Any] | None:
            return identities.disabled(present, reason) if present is not None and present.lets_in(thumbprint) else None

        return await self.converge(device_id, still_open)

    async def pin(self, pin: Pinning, *, parent: str = "") -> HubIdentity | None:
        def not_so_yet(present: HubIdentity | None) -> dict[str, Any] | None:
            if present is None:
                return identities.pinned(identities.new(pin.device_id, parent), pin) if pin.enable else None
            return None if present.is_pinned(pin) else identities.pinned(present.raw, pin)

        return await self.converge(pin.device_id, not_so_yet)

    async def unpin(self, device_id: str, ours: Collection[str]) -> HubIdentity | None:
        def pinned_by_us(present: HubIdentity | None) -> dict[str, Any] | None:
            if present is None or present.pinned_to is None or not present.pinned_to <= set(ours):
                return None
            return identities.unpinned(present.raw)

        return await self.converge(device_id, pinned_by_us)

    async def close(self) -> None:
        await self._rest.close()

    async def converge(
        self, device_id: str, change: Callable[[HubIdentity | None], dict[str, Any] | None]
    ) -> HubIdentity | None:
        """Read, decide, write, until there is nothing to change.

        A write that met somebody else's (409, 412, or 404 for one deleted meanwhile), or whose answer never came, is
        not repeated blindly: the next round reads first.
        """
        failure: HubConflict | HubUnreachable | None = None
        for _ in range(ATTEMPTS):
            present = await self.get(device_id)
            document = change(present)
            if document is None:
                return present
            try:
                return await self._put(device_id, document, present)
            except (HubConflict, HubUnreachable) as error:
                failure = error
        assert failure is not None
        raise failure

    async def _put(self, device_id: str, document: dict[str, Any], present: HubIdentity | None) -> HubIdentity:
        """Create when nothing is ``present``, otherwise replace exactly that version of it."""
        answer = await self._request("PUT", device_id, document, etag=present.etag if present else None)
        if answer.status == 200:
            return _identity(answer, device_id)
        if answer.status in (404, 409, 412):
            raise HubConflict(
                f"The hub's identity of {device_id} was changed by somebody else at the same time "
                f"({answer.problem.code or answer.status}).",
                device=device_id,
            )
        raise failure(answer, device_id, "be written")

    async def _request(
        self, method: str, device_id: str, document: dict[str, Any] | None = None, etag: str | None = None
    ) -> Answer:
        path = f"/devices/{quote(device_id, safe='')}"
        return await self._rest.request(method, path, document, device_id=device_id, etag=etag)


def _identity(answer: Answer, device_id: str) -> HubIdentity:
    """Raises HubUnreachable: an answer that cannot be read tells nothing, so it counts as none."""
    try:
        return identities.parse(json.loads(answer.body), device_id)
    except (ValueError, RecursionError) as error:
        reason = "not JSON" if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) else str(error)
        raise HubUnreachable(
            f"What the hub's registry answered about {device_id} is not its identity: {reason}.", device=device_id
        ) from None
