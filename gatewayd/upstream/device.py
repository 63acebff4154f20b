"""The gateway's own MQTT connection to the hub, through azure-iot-device (``sdk.py``)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import GatewayError, HubRefused, HubUnreachable
from ..messages import kind
from .base import LinkCredential, LinkState, LinkStatus, MethodAnswer, OnDesired, OnMethod

if TYPE_CHECKING:
    from .sdk import Bind, Session

logger = logging.getLogger(__name__)


class HubLink:
    """The ``Link`` port. Connects when it is told to and not by itself: the SDK's own reconnecting stops for good at
    the first CONNACK 5, and only the caller knows with which credential to try again."""

    def __init__(
        self, host: str, device_id: str, bind: Bind, trust_pem: str | None = None, timeout: float = 30.0
    ) -> None:
        """``bind(context, certificate, chain, private_key)`` makes a TLS context authenticate with the credential;
        ``trust_pem`` is the PEM text of the anchors for the hub, None the system's; ``timeout`` the seconds that the
        hub may take for one answer; ``connect`` may take that long again to put an old client away first."""
        self._host = host
        self._device_id = device_id
        self._bind = bind
        self._trust_pem = trust_pem
        self._timeout = timeout
        self._on_desired: OnDesired = _ignore
        self._on_method: OnMethod = _unknown_method
        self._turn = asyncio.Lock()
        self._opening: Session | None = None
        self._session: Session | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._status = LinkStatus(LinkState.OFF, datetime.now(UTC))

    def status(self) -> LinkStatus:
        return self._status

    def listen(self, on_desired: OnDesired, on_method: OnMethod) -> None:
        self._on_desired = on_desired
        self._on_method = on_method

    async def connect(self, credential: LinkCredential) -> None:
        sdk = await asyncio.to_thread(_load)
        async with self._turn:
            await self._disconnect()
            serial = f"{credential.certificate.serial_number:x}"
            if self._ending:
                # It holds the one thread that all clients of the SDK share; another would only queue behind it.
                reason = f"The previous hub client of {self._device_id} is still stuck in the network."
                self._note(LinkState.UNREACHABLE, reason, serial=serial)
                raise HubUnreachable(reason, device=self._device_id)
            self._note(LinkState.CONNECTING, serial=serial)
            session: Session = sdk.Session(
                self._host,
                self._device_id,
                credential,
                bind=self._bind,
                trust_pem=self._trust_pem,
                timeout=self._timeout,
                on_down=self._lost,
                on_desired=self._on_desired,
                on_method=self._on_method,
            )
            self._opening = session
            try:
                await session.open()
            except BaseException as error:
                self._retire(session)
                self._note(*_failed(error), serial=serial)
                raise
            finally:
                self._opening = None
            self._session = session
            self._note(LinkState.CONNECTED, serial=serial)

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cut()  # so that a connect under way fails now
        async with self._turn:
            await self._disconnect()
            if self._status.state is not LinkState.OFF:
                self._note(LinkState.OFF)

    async def report(self, properties: Mapping[str, Any]) -> None:
        """Raises HubUnreachable, HubThrottled, HubRejected."""
        await self._connected().report(properties)

    async def send(self, body: Mapping[str, Any], *, message_id: str, kind: str) -> None:
        """Raises HubUnreachable, HubRejected (over 256 KB)."""
        await self._connected().send(json.dumps(body, separators=(",", ":")), message_id, kind)

    async def wait_down(self) -> None:
        if self._session is not None:
            await self._session.down.wait()

    def _connected(self) -> Session:
        if self._session is None:
            raise HubUnreachable(f"There is no hub connection of {self._device_id}.", device=self._device_id)
        return self._session

    async def _disconnect(self) -> None:
        """Put the present client away, and wait for those that are ending."""
        session, self._session = self._session, None
        if session is not None:
            self._retire(session)
            self._note(LinkState.OFF)
        if self._ending:
            await asyncio.wait(self._ending, timeout=self._timeout)

    def _lost(self, session: Session) -> None:
        if session is self._session:
            self._session = None
            # MQTT 3.1.1 gives no reason: a device that was disabled or evicted looks the same as a broken line.
            self._note(LinkState.UNREACHABLE, "The connection was lost.", serial=self._status.serial)
            self._retire(session)

    def _retire(self, session: Session) -> None:
        task = session.end()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _note(self, state: LinkState, detail: str = "", *, serial: str | None = None) -> None:
        self._status = LinkStatus(state, datetime.now(UTC), detail, serial)
        logger.info(
            "Hub link of %s: %s%s", self._device_id, state, f" ({detail})" if detail else "", extra=kind("link")
        )


def _failed(error: BaseException) -> tuple[LinkState, str]:
    if isinstance(error, HubRefused):
        return LinkState.REFUSED, error.message
    if isinstance(error, GatewayError):
        return LinkState.UNREACHABLE, error.message
    return LinkState.OFF, ""


def _ignore(_: Mapping[str, Any]) -> None:
    """Nobody listens to desired properties."""


async def _unknown_method(name: str, _: Any) -> MethodAnswer:
    return MethodAnswer(404, f"There is no method {name!r}.")


def _load() -> ModuleType:
    from . import sdk

    return sdk
