"""Revocations that the hub's side asks for: as a desired property, and as a direct method.

As a desired property, each order under an id of the caller's choice::

    "desired":  {"gatewayd": {"revoke": {"2031-05-01a": {"deviceId": "leaf-7", "reason": "keyCompromise"}}}}
    "reported": {"gatewayd": {"revoke": {"2031-05-01a": {"deviceId": "leaf-7", "outcome": "verified"}}}}

The property stays until somebody removes it and is told again at each connect, so an order is carried out once: its
id is remembered: for as long as the property is there, and a month. Otherwise a leaf that was replaced since would be
revoked once more.

As a direct method: ``revoke`` with ``{"deviceId", "reason"}``, answered with the outcome as far as it has come.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from ..core import revocation as table
from ..core.model import RevocationReason
from ..errors import DeviceHealthy, DeviceUnknown, GatewayError, InvalidArgument
from ..store.base import Store, Tx
from ..upstream.base import Link, LinkState, MethodAnswer
from .clock import Clock
from .events import Alarm

log = logging.getLogger(__name__)

WHO: Final = "hub"
"""Who, in the journal and as a revocation's origin."""
VERIFIED: Final = "verified"
OPEN: Final = "open"
"""Outcomes; the third is an error, ``Name: sentence``."""
TEXT_LIMIT: Final = 256
"""Characters of an error."""
METHOD: Final = "revoke"
LIMIT: Final = 100
"""Orders that are looked at at one time; a twin would not hold many more."""
_ORDER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANSWER_WITHIN: Final = 10.0
"""Seconds that a direct method waits for *verified*; the hub waits 30 by default."""
_LONGEST_SLEEP: Final = 3600.0
KEPT: Final = timedelta(days=30)
_RETRY: Final = 10.0
_REFUSALS: Final = {DeviceUnknown: 404, InvalidArgument: 400, DeviceHealthy: 409}
"""What is wrong with an order itself, so that to try again is of no use; and the status of a direct method."""


Revoke = Callable[[str, str, str], Awaitable[Callable[[Callable[..., None]], Awaitable[Any]]]]
"""``revoke(who, device_id, reason)`` writes the intent down; awaiting what it returns follows it to its end."""


class Orders:
    def __init__(self, *, store: Store, link: Link, clock: Clock, revoke: Revoke) -> None:
        self._store = store
        self._link = link
        self._clock = clock
        self._revoke = revoke
        self._alarm = Alarm()
        self._orders: dict[str, Mapping[str, Any]] = {}
        self._removed: set[str] = set()
        self._reported: dict[str, Any] | None = None
        self._told = False
        """Whether the hub has said, since this process began, which orders there are:"""
        self._named: set[str] = set()
        """also those that have to wait."""

    def ring(self) -> None:
        self._alarm.ring()

    # --- desired properties ----------------------------------------------------------------------

    def take(self, desired: Mapping[str, Any]) -> None:
        """From the desired section or a patch of it. What is no order is left alone, and said so in the log."""
        self._told = True  # after a connect the whole section comes first
        section = desired.get("gatewayd")
        asked = section.get("revoke") if isinstance(section, Mapping) else None
        if not isinstance(asked, Mapping):
            return
        for order_id, order in asked.items():
            self._named.add(order_id)
            if order is None:
                self._named.discard(order_id)
                if self._orders.pop(order_id, None) is not None:
                    self._removed.add(order_id)
            elif not _ORDER_ID.fullmatch(order_id) or not isinstance(order, Mapping):
                log.warning("the hub's order %.64r is not understood", order_id)
            elif len(self._orders) < LIMIT or order_id in self._orders:
                self._orders[order_id] = order
                self._removed.discard(order_id)
            else:
                log.warning("the hub's order %s has to wait: there are %d already", order_id, LIMIT)
        self._reported = None  # after a connect, what the hub holds is not known for sure
        self._alarm.ring()

    async def run(self) -> None:
        wait = _LONGEST_SLEEP
        while True:
            await self._alarm.sleep(wait)
            try:
                orders = dict(self._orders)  # more may come at any moment: those ring
                for order_id, order in orders.items():
                    await self._carry_out(order_id, order)
                await self._report(list(orders))
                await self._forget()
                wait = _LONGEST_SLEEP
            except GatewayError as error:
                log.warning("the hub's orders: %s", error)
                wait = _RETRY

    async def _carry_out(self, order_id: str, order: Mapping[str, Any]) -> None:
        name = f"order:{order_id}"
        if await self._store.read(lambda tx: tx.settings.get(name)) is not None:
            return
        done: dict[str, Any] = {"at": self._clock.now().isoformat()}
        try:
            device_id, reason = _read(order)
            done["deviceId"] = device_id
            await self._revoke(WHO, device_id, reason)
        except tuple(_REFUSALS) as error:
            done["error"] = f"{error.name()}: {error.message}"[:TEXT_LIMIT]
            log.warning("the hub's order %s: %s", order_id, error)
        # After the intent, not before: a crash between the two revokes what is revoked already.
        text = json.dumps(done)
        await self._store.write(lambda tx: tx.settings.set(name, text))

    async def _report(self, carried_out: list[str]) -> None:
        if not (carried_out or self._removed) or self._link.status().state is not LinkState.CONNECTED:
            return
        outcomes = await self._store.read(lambda tx: _outcomes(tx, carried_out))
        if outcomes != self._reported:
            removed = dict.fromkeys(self._removed)
            await self._link.report({"gatewayd": {"revoke": {**outcomes, **removed}}})
            self._removed.difference_update(removed)
            self._reported = outcomes

    async def _forget(self) -> None:
        """The ids of orders that were taken away, and are a month old."""
        if not self._told or not self._clock.sane():
            return
        before, present = self._clock.now() - KEPT, {f"order:{each}" for each in self._named}

        def work(tx: Tx) -> None:
            for name, text in tx.settings.beginning_with("order:").items():
                at = json.loads(text).get("at")
                if name not in present and (at is None or datetime.fromisoformat(at) < before):
                    tx.settings.remove(name)

        await self._store.write(work)

    # --- direct methods --------------------------------------------------------------------------

    async def call(self, name: str, payload: Any) -> MethodAnswer:
        """``revoke``: 200 when the device is verified as disabled, 202 when it is on its way."""
        if name != METHOD:
            return MethodAnswer(404, {"error": f"There is no method {name!r}."[:TEXT_LIMIT]})
        try:
            device_id, reason = _read(payload)
            follow = await self._revoke(WHO, device_id, reason)
        except GatewayError as error:
            return MethodAnswer(
                _REFUSALS.get(type(error), 500), {"error": error.name(), "message": error.message[:TEXT_LIMIT]}
            )
        except Exception:
            log.exception("a direct method failed unexpectedly")
            return MethodAnswer(500, {"error": "Internal"})
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await follow(lambda *_: None)
        except (TimeoutError, GatewayError):
            return MethodAnswer(202, {"deviceId": device_id, "outcome": OPEN})
        return MethodAnswer(200, {"deviceId": device_id, "outcome": VERIFIED})


def _read(order: Any) -> tuple[str, str]:
    """(device id, reason). Raises InvalidArgument."""
    if not isinstance(order, Mapping):
        raise InvalidArgument('An order is an object: {"deviceId": …, "reason": …}.')
    device_id, reason = order.get("deviceId"), order.get("reason", RevocationReason.UNSPECIFIED.value)
    if not isinstance(device_id, str) or not isinstance(reason, str):
        raise InvalidArgument('An order names its device as text: {"deviceId": …, "reason": …}.')
    return device_id, reason


def _outcomes(tx: Tx, carried_out: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for order_id in carried_out:
        done = json.loads(tx.settings.get(f"order:{order_id}") or "{}")
        outcome = done.get("error") or _outcome(tx, done["deviceId"])
        found[order_id] = {"deviceId": done.get("deviceId"), "outcome": outcome}
    return found


def _outcome(tx: Tx, device_id: str) -> str:
    return VERIFIED if all(table.is_closed(each) for each in tx.revocations.all(device_id)) else OPEN
