"""The hub for services: its registry, and the link to it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from gatewayd.errors import HubRefused, HubUnreachable
from gatewayd.pki import certificates
from gatewayd.upstream.base import HubIdentity, LinkCredential, LinkState, LinkStatus, OnDesired, OnMethod, Pinning

from .fakes import FakeClock, Faults


class FakeRegistry:
    def __init__(self) -> None:
        self.faults = Faults()
        self.identities: dict[str, HubIdentity] = {}
        self._etag = 0

    def write(self, device_id: str, *, enabled: bool, reason: str = "", parent: str = "") -> HubIdentity:
        """What an administrator does in the portal."""
        self._etag += 1
        identity = HubIdentity(
            device_id=device_id,
            etag=str(self._etag),
            generation_id="1",
            enabled=enabled,
            status_reason=reason,
            authentication_type="certificateAuthority",
            primary_thumbprint=None,
            secondary_thumbprint=None,
            scope=f"ms-azure-iot-edge://{device_id}-1",
            is_gateway=not parent,
            parents=(parent,) if parent else (),
            raw={},
        )
        self.identities[device_id] = identity
        return identity

    def enabled(self, device_id: str) -> bool | None:
        """None: there is no such identity."""
        return self.identities[device_id].enabled if device_id in self.identities else None

    async def get(self, device_id: str) -> HubIdentity | None:
        async with self.faults.around("get"):
            return self.identities.get(device_id)

    async def ensure(self, device_id: str, *, parent: str = "", edge: bool = False) -> HubIdentity:
        async with self.faults.around("ensure"):
            return self.identities.get(device_id) or self.write(device_id, enabled=True, parent=parent)

    async def disable(self, device_id: str, reason: str, thumbprint: str | None = None) -> HubIdentity | None:
        async with self.faults.around("disable"):
            present = self.identities.get(device_id)
            if present is None or not present.lets_in(thumbprint):
                return present
            return self._change(present, enabled=False, status_reason=reason)

    async def pin(self, pin: Pinning, *, parent: str = "") -> HubIdentity | None:
        async with self.faults.around("pin"):
            present = self.identities.get(pin.device_id)
            if present is None and pin.enable:
                present = self.write(pin.device_id, enabled=True, parent=parent)
            if present is None or present.is_pinned(pin):
                return present
            return self._change(
                present,
                enabled=present.enabled or pin.enable,
                authentication_type="selfSigned",
                primary_thumbprint=pin.primary,
                secondary_thumbprint=pin.secondary,
            )

    async def unpin(self, device_id: str, ours: Collection[str]) -> HubIdentity | None:
        async with self.faults.around("unpin"):
            present = self.identities.get(device_id)
            if present is None or present.pinned_to is None or not present.pinned_to <= set(ours):
                return present
            by_ca = {"primary_thumbprint": None, "secondary_thumbprint": None}
            return self._change(present, authentication_type="certificateAuthority", **by_ca)

    def _change(self, present: HubIdentity, **fields: Any) -> HubIdentity:
        self._etag += 1
        changed = self.identities[present.device_id] = replace(present, etag=str(self._etag), **fields)
        return changed


class FakeLink:
    """Authenticates as the hub does: by the identity in ``registry`` and the certificate's end; it knows no CRL."""

    def __init__(self, registry: FakeRegistry, device_id: str, clock: FakeClock) -> None:
        self._registry = registry
        self._device_id = device_id
        self._clock = clock
        self.faults = Faults()
        self.sent: list[tuple[str, str, Mapping[str, Any]]] = []
        """(message id, kind, body)"""
        self.reported: list[Mapping[str, Any]] = []
        self.up = asyncio.Event()
        self._down = asyncio.Event()
        self._status = LinkStatus(LinkState.OFF, clock.now())

    def listen(self, on_desired: OnDesired, on_method: OnMethod) -> None:
        self.tell, self.call = on_desired, on_method

    def status(self) -> LinkStatus:
        return self._status

    @property
    def serial(self) -> str | None:
        """Of the certificate it is connected with."""
        return self._status.serial if self._status.state is LinkState.CONNECTED else None

    async def connect(self, credential: LinkCredential) -> None:
        self._leave(LinkState.CONNECTING)
        serial = certificates.serial_hex(credential.certificate)
        try:
            async with self.faults.around("connect"):
                over = credential.certificate.not_valid_after_utc <= self._clock.now()
                if over or not self._registry.enabled(self._device_id):
                    raise HubRefused("CONNACK 5")
                self._down = asyncio.Event()
                self._status = LinkStatus(LinkState.CONNECTED, self._clock.now(), "", serial)
                self.up.set()
        except BaseException as error:
            self._leave(LinkState.REFUSED if isinstance(error, HubRefused) else LinkState.UNREACHABLE)
            raise

    async def close(self) -> None:
        self._leave(LinkState.OFF)

    def drop(self) -> None:
        self._leave(LinkState.UNREACHABLE)

    def _leave(self, state: LinkState) -> None:
        self._status = LinkStatus(state, self._clock.now())
        self.up.clear()
        self._down.set()

    async def report(self, properties: Mapping[str, Any]) -> None:
        async with self.faults.around("report"):
            self._must_be_up()
            self.reported.append(properties)

    async def send(self, body: Mapping[str, Any], *, message_id: str, kind: str) -> None:
        async with self.faults.around("send"):
            self._must_be_up()
            self.sent.append((message_id, kind, body))

    def _must_be_up(self) -> None:
        if self._status.state is not LinkState.CONNECTED:
            raise HubUnreachable("There is no hub connection.")

    async def wait_down(self) -> None:
        if self._status.state is LinkState.CONNECTED:
            await self._down.wait()
