"""The composition root: starts what parts.py and front.py build, says READY, reacts to what happens, stops in order.

The only room that knows all others. What may fail at start and is a person's to mend (the configuration, the TLS
bridge, a database from the future) refuses the start; what may mend itself or waits for a person while the rest goes
on (token, bus, CA, hub) does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from .config import Settings
from .core.model import DeviceState, JournalEntry, KeyAlgorithm, KeyRef, Milestone
from .errors import GatewayError, Internal
from .front import Front
from .keys import tls
from .keys.pin import Pin
from .messages import kind
from .parts import Parts
from .pki import pem
from .reloading import Reloading
from .services import own_record
from .services.key_watch import KEY_LOST
from .services.steps import FACTORY
from .services.watchdog import Watchdog
from .systemd import notify

log = logging.getLogger(__name__)

_AFTER_CONNECT = 2.0
"""Seconds from the hub's CONNACK until what waits for the network is tried."""


class Daemon:
    def __init__(self, settings: Settings, pins: Mapping[str, Pin], file: Path) -> None:
        """``pins`` of the tokens of ``settings.tokens``, as far as there are any; ``file``: where they were read from,
        and are read anew. Raises ConfigInvalid."""
        self._parts = Parts(settings, pins, self)
        self._front = Front(self._parts, self)
        self._reloading = Reloading(self._parts, self._front, file)
        self._background: set[asyncio.Task[None]] = set()
        self._died: BaseException | None = None

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From start to SIGTERM. Raises ConfigInvalid, StoreInUse, StoreTooNew, StoreBroken or TlsBridgeUnsupported at
        start, Internal when a service has died."""
        for keys in self._parts.tokens.values():
            keys.warm_up()
        tls.prove()
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._hung_up()))
        await self._parts.store.open()
        try:
            await self._prepare()
            await self._serve(stopping)
        finally:
            await self._parts.store.close()
        if self._died is not None:
            raise Internal("A service has died; its traceback is in the log.")

    async def _prepare(self) -> None:
        await self._parts.clock.load(self._parts.store)
        await self._parts.anchors.load()
        now = self._parts.clock.now()
        await self._parts.store.write(lambda tx: own_record.adopt(tx, self._parts.settings.gateway, now))
        await self._parts.after_restore.load()
        if factory := await self._parts.store.read(lambda tx: tx.settings.get(FACTORY)):
            kept = json.loads(factory)
            chain = pem.certificates(kept["certificates"])
            ref = KeyRef(bytes.fromhex(kept["key_id"]), KeyAlgorithm(kept["algorithm"]))
            self._parts.gateway_steps.factory = self._parts.gateway_steps.with_key(chain[0], chain[1:], ref)
        self._parts.events.listen(self._happened)
        self._parts.anchors.on_change(self._anchors_changed)
        self._parts.link.listen(self._told, self._front.orders.call)
        self._parts.answers.on_answer(lambda answer: self._parts.revocations.hasten(answer.device_id, answer.serial))
        self._parts.keeper.on_connected(self._parts.twin.forget)
        self._parts.keeper.on_connected(self._parts.outbox.ring)
        self._parts.keeper.on_connected(self._network_is_back)

    async def _serve(self, stopping: asyncio.Event) -> None:
        await self._front.control.start()
        await asyncio.gather(*(keeper.look() for keeper in self._parts.token_keepers))
        if self._front.est.url is None:  # the token is not there: all but signatures can begin
            await self._take_up_certificate()
        for service in (
            self._parts.watch.run(),
            self._parts.renewals.run(),
            self._parts.revocations.run(),
            self._parts.replacements.run(),
            self._parts.keeper.run(),
            self._parts.outbox.run(),
            self._parts.twin.run(),
            self._parts.hooks.run(),
            self._parts.housekeeping.run(),
            self._parts.audit.run(),
            self._parts.after_restore.run(),
            *(keeper.run() for keeper in self._parts.token_keepers),
            self._front.orders.run(),
            *self._parts.sources.loops(),
            *self._parts.monitoring.loops(
                status=self._front.reader,
                store=self._parts.store,
                clock=self._parts.clock,
                anchors=self._parts.anchors.known,
                queues={"store": self._parts.store}
                | {f"{name}-token": keys.turns for name, keys in self._parts.tokens.items()},
            ),
            Watchdog(
                store=self._parts.store, watched=(self._parts.renewals.alarm, self._parts.revocations.alarm)
            ).run(),
        ):
            self._spawn(service)
        notify("READY=1", f"STATUS={self._reloading.sentence()}")
        log.info("ready: %s", self._parts.id, extra=kind("ready"))
        await stopping.wait()
        notify("STOPPING=1")
        log.info("stopping", extra=kind("stopping"))
        await self._stop()

    async def _stop(self) -> None:
        """Outside first, so that nothing new comes in; then what is under way; the token and the store last."""
        await self._close_doors()
        await self._front.control.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._parts.engine.stop()
        await self._parts.revocations.stop()
        tokens = [keys.close for keys in self._parts.tokens.values()]
        for close in (self._parts.keeper.close, self._parts.registry.close, self._parts.ca.close, *tokens):
            with contextlib.suppress(GatewayError):
                await close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A service that dies silently is worse than a restart, from which everything resumes.
            log.critical("a service has died", exc_info=error, extra=kind("defect"))
            self._died = error
            signal.raise_signal(signal.SIGTERM)

    async def _hung_up(self) -> None:
        with contextlib.suppress(GatewayError):  # told in the log, in the status and to systemd
            await self._reloading.reload()

    async def reload(self, who: str) -> dict[str, Any]:
        return await self._reloading.reload(who)

    def configuration(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return self._reloading.status()

    async def token_opened(self) -> None:
        await self._parts.key_watch.hasten()
        await self._parts.after_restore.adopt_keys()
        await self._take_up_certificate()
        self.ring()
        self._parts.housekeeping.ring()

    def ring_tokens(self) -> None:
        for keeper in self._parts.token_keepers:
            keeper.ring()

    # --- what follows from what happened ---------------------------------------------------------

    def _happened(self, entry: JournalEntry) -> None:
        self._parts.twin.ring()
        self._parts.outbox.ring()
        self._parts.sources.happened(entry)
        self._parts.monitoring.happened(entry)
        if entry.what == "switch" and entry.device_id == self._parts.id:
            self._spawn(self._take_up_certificate())
            self._parts.hooks.ring()
        if entry.what == KEY_LOST:
            self._parts.renewals.ring()
        if entry.what in ("switch", Milestone.VERIFIED) and entry.device_id == self._parts.id:
            self._parts.housekeeping.ring()  # there may be a key that is needed no more
        reported = entry.what == Milestone.REPORTED
        if entry.what in ("revocation", "wind-up") or (reported and self._parts.revocations.waits_for_reports(entry)):
            self._parts.revocations.ring()  # there may be more to revoke, and more that can be done
        if reported or entry.what in (Milestone.REVOKED_AT_CA, Milestone.VERIFIED):  # what closes a revocation
            self._front.orders.ring()
        if entry.what in (Milestone.REVOKED_AT_CA, Milestone.VERIFIED, "wind-up", "pinned"):
            self._parts.replacements.ring()
        if entry.what == Milestone.VERIFIED and entry.device_id == self._parts.id:
            self._spawn(self._fall_silent())
        if entry.device_id is not None:
            self._front.control.ring(entry.device_id)

    def _network_is_back(self) -> None:
        # In a moment: by then it is known what the hub has had to say meanwhile.
        for hasten in (self._parts.revocations.hasten_all, self._parts.renewals.hasten):
            asyncio.get_running_loop().call_later(_AFTER_CONNECT, hasten)

    def _told(self, desired: Mapping[str, Any]) -> None:
        """The hub's desired properties, or a patch of them."""
        self._parts.answers.take(desired)
        self._front.orders.take(desired)

    async def _fall_silent(self) -> None:
        """The gateway itself has been revoked, has said so, and was seen shut out: its key is not used any more."""
        if await self._parts.live() is not None:
            return  # another of its certificates is not there yet
        own = await self._parts.store.read(lambda tx: tx.devices.get(self._parts.id))
        if own is None or own.state is DeviceState.REPLACING:
            return  # that was the hardware whose place this one takes
        log.warning(
            "%s has been revoked: its link and its servers are closed", self._parts.id, extra=kind("fell-silent")
        )
        await self._parts.keeper.close()
        await self._close_doors()

    async def _close_doors(self) -> None:
        for door in self._front.doors:
            await door.close()

    def time_changed(self) -> None:
        """The clock was set, has become right or wrong, or the machine has slept: work all out anew."""
        self._parts.judge_peers(self._parts.client_tls)
        for door in self._front.doors:
            door.reload()
        if self._parts.clock.sane():
            # What the CA and Entra did not believe with a wrong clock.
            self._parts.issuer.try_now()
            self._parts.revocations.hasten_all()
        self.ring()

    def _anchors_changed(self) -> None:
        self._front.est.reload()

    def ring(self) -> None:
        for service in (
            self._parts.watch,
            self._parts.renewals,
            self._parts.revocations,
            self._parts.replacements,
            self._parts.outbox,
            self._parts.keeper,
        ):
            service.ring()

    async def _take_up_certificate(self) -> None:
        """Serve leaves, and connect, with what is the current certificate now."""
        try:
            live = await self._parts.live()
        except GatewayError as error:
            log.error("the gateway's certificate: %s %s", error, error.remedy)
        else:
            if live is not None:
                for door in self._front.doors:
                    await door.show(live)
        self._parts.keeper.ring()
