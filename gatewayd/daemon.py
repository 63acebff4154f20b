"""The composition root: builds the ports, starts the services, says READY, stops in order.

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
import ssl
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .ca.base import Holder, TokenSource
from .ca.issuers import KINDS, Ca, Surroundings
from .ca.sparing import SparedIssuer
from .config import PolicySettings, Settings
from .control.service import ControlService
from .core import revocation as table
from .core.model import Device, DeviceKind, DeviceState, JournalEntry, KeyAlgorithm, KeyRef, Milestone, SanKind
from .core.renewal import RenewalPolicies, RenewalPolicy
from .errors import ConfigInvalid, GatewayError, Internal
from .keys import tls
from .keys.pin import Pin
from .keys.token import Pkcs11KeyStore
from .leaf.doors import Door, est_door, page_door
from .leaf.page.server import PageServer
from .leaf.server import EstServer
from .pki import pem
from .pki.names import canonical
from .services import registrar
from .services.anchors import Anchors
from .services.audit import AuditTrail
from .services.clock import ClockWatch, SystemClock
from .services.credentials import CredentialEngine
from .services.enrollments import Enrollments
from .services.events import Events
from .services.health import Health
from .services.hooks import Hooks
from .services.housekeeping import Housekeeping
from .services.key_inventory import KeyInventory
from .services.key_watch import KEY_LOST, KeyWatch
from .services.link import LinkKeeper
from .services.operations import Operations
from .services.orders import Orders
from .services.outbox import Outbox
from .services.pins import Pins
from .services.registrar import Registrar
from .services.renewals import Renewals
from .services.replacements import Replacements
from .services.revocations import Revocations
from .services.sources import Sources
from .services.status import StatusReader
from .services.steps import FACTORY, GatewaySteps, LeafSteps
from .services.swaps import Swaps
from .services.technician import Technicians
from .services.token_keeper import TokenKeeper
from .services.token_operations import TokenOperations
from .services.transfers import Transfers
from .services.turns import Turns
from .services.twin import TwinReporter
from .services.watchdog import Watchdog
from .store.base import Tx
from .store.database import SqliteStore
from .systemd import notify
from .upstream import ways
from .upstream.answers import Answers
from .upstream.base import LinkCredential
from .upstream.device import HubLink
from .upstream.entra import EntraTokens, StaticToken
from .upstream.registry import HubRegistry

log = logging.getLogger(__name__)

_SHOWN_ON_THE_BUS = frozenset(
    {"switch", "revocation", "replacement", "device added", Milestone.VERIFIED, Milestone.DISABLED}
)
"""Entries after which a device looks different."""

_AFTER_CONNECT = 2.0
"""Seconds from the hub's CONNACK until what waits for the network is tried."""


class Daemon:
    def __init__(self, settings: Settings, pins: Mapping[str, Pin]) -> None:
        """``pins`` of the tokens of ``settings.tokens``, as far as there are any."""
        self._settings = settings
        gateway = settings.gateway
        self._id = gateway.device_id
        self._clock = SystemClock(trust_kernel=settings.clock.trust_kernel)
        self._events = Events()
        self._health = Health(self._clock)
        self._store = SqliteStore(gateway.state_directory / "gatewayd.db")
        self._tokens = {
            name: Pkcs11KeyStore(token.module, token.uri, pins.get(name), timeout=token.timeout)
            for name, token in settings.tokens.items()
        }
        self._keys = self._tokens["gateway"]
        registrar_keys = self._tokens.get("registrar", self._keys)
        self._anchors = Anchors(self._store, settings.trust.issuer_anchors)
        self._client_tls = self._trusting_context()
        self._registrar = Registrar(
            store=self._store, keys=registrar_keys, clock=self._clock, device_id=self._id, make_tokens=self._entra
        )
        self._registry = HubRegistry(
            settings.hub.registry_url or settings.hub.host,
            self._registrar,
            settings.hub.scope,
            self._client_tls,
            settings.hub.timeout,
        )
        bundle = settings.trust.bundle
        trust_pem = bundle.read_text() if bundle else None
        self._link = HubLink(settings.hub.host, self._id, self._bind, trust_pem, settings.hub.timeout)
        self._answers = Answers()
        self._way = ways.chosen(
            settings.upstream,
            gateway_id=self._id,
            registry=self._registry,
            link=self._link,
            answers=self._answers,
            now=self._clock.now,
        )
        self._ca = self._chosen_ca()
        self._issuer = SparedIssuer(self._ca.issuer)
        self._keeper = LinkKeeper(link=self._link, live=self._live, clock=self._clock)
        hub_pins = Pins(store=self._store, clock=self._clock, health=self._health, way=self._way)
        self._gateway_steps = GatewaySteps(
            store=self._store,
            clock=self._clock,
            health=self._health,
            issuer=self._issuer,
            anchors=self._anchors,
            way=self._way,
            keys=self._keys,
            link=self._keeper,
            pins=hub_pins,
            client_context=self._client_context,
            lifetime=self._ca.lifetime,
        )
        leaf_steps = LeafSteps(
            store=self._store,
            clock=self._clock,
            health=self._health,
            issuer=self._issuer,
            anchors=self._anchors,
            way=self._way,
            pins=hub_pins,
            lifetime=self._ca.leaf_lifetime,
        )
        policies = RenewalPolicies(
            _policy(self._ca.renewal or settings.renewal),
            [(each.device, _policy(each)) for each in settings.renewal.devices],
        )
        self._engine = CredentialEngine(
            store=self._store,
            clock=self._clock,
            events=self._events,
            policies=policies,
            steps={DeviceKind.GATEWAY: self._gateway_steps, DeviceKind.LEAF: leaf_steps},
        )
        turns = Turns(
            store=self._store,
            policy=policies.default,
            gate=self._issuer,
            most=self._ca.requests_per_second,
            paced=settings.renewal.paced,
        )
        self._renewals = Renewals(
            store=self._store, clock=self._clock, engine=self._engine, turns=turns, algorithm=gateway.key_algorithm
        )
        self._revocations = Revocations(
            store=self._store,
            clock=self._clock,
            events=self._events,
            health=self._health,
            issuer=self._issuer,
            way=self._way,
            gateway_id=self._id,
        )
        self._replacements = Replacements(
            store=self._store,
            clock=self._clock,
            events=self._events,
            health=self._health,
            way=self._way,
            exclusive=self._engine.exclusive,
            drive_on=self._renewals.ring,
        )
        self._sources = Sources(
            settings.revocation,
            store=self._store,
            clock=self._clock,
            events=self._events,
            health=self._health,
            tls=self._client_tls,
            anchors=self._anchors.known,
            ca_name=self._ca.url,
            ca_list=self._ca.certificates,
            directory=gateway.state_directory / "crl",
            gateway_id=self._id,
        )
        self._outbox = Outbox(store=self._store, clock=self._clock, events=self._events, link=self._link)
        self._hooks = Hooks(
            settings.hooks, store=self._store, clock=self._clock, events=self._events, gateway_id=self._id
        )
        self._twin = TwinReporter(store=self._store, link=self._link, gateway_id=self._id)
        inventory = KeyInventory(
            store=self._store, clock=self._clock, gateway_id=self._id, tokens=self._tokens.values()
        )
        self._housekeeping = Housekeeping(store=self._store, clock=self._clock, inventory=inventory)
        self._key_watch = KeyWatch(
            store=self._store, keys=self._keys, clock=self._clock, events=self._events, gateway_id=self._id
        )
        self._token_keepers = [
            TokenKeeper(
                keys,
                f"the {name}'s token",
                gateway.key_algorithm if name == "gateway" else registrar.ALGORITHM,
                self._token_opened,
                self._key_watch.prove if name == "gateway" else None,
            )
            for name, keys in self._tokens.items()
        ]
        self._enrollments = Enrollments(
            store=self._store,
            clock=self._clock,
            events=self._events,
            engine=self._engine,
            turns=turns,
            policies=policies,
            anchors=self._anchors.known,
            answer_within=settings.est.answer_within,
        )
        names = [
            each.value for each in gateway.sans if each.kind in (SanKind.IP, SanKind.DNS) and "*" not in each.value
        ]
        self._est = est_door(
            lambda tls: EstServer(self._enrollments, settings.est, tls, names), self._bind, self._anchors.known
        )
        reader = StatusReader(
            store=self._store,
            clock=self._clock,
            tokens={**self._tokens, "gateway": self._key_watch},
            algorithm=gateway.key_algorithm,
            link=self._link,
            health=self._health,
            gateway_id=self._id,
            spared=self._issuer.spared,
            issuer_name=settings.issuer.kind,
            issuer_url=self._ca.url,
            hub_host=settings.hub.host,
            est_url=lambda: self._est.url,
            sources=self._sources.shown,
            hooks=self._hooks.shown,
        )
        swaps = Swaps(
            store=self._store,
            clock=self._clock,
            events=self._events,
            reader=reader,
            code_lifetime=settings.control.code_lifetime,
            ring=self._ring,
        )
        self._audit = AuditTrail(
            store=self._store,
            clock=self._clock,
            events=self._events,
            registrar=self._registrar,
            gateway_id=self._id,
        )
        technicians = Technicians(
            store=self._store,
            clock=self._clock,
            events=self._events,
            reader=reader,
            swaps=swaps,
            gateway_id=self._id,
            url=lambda: self._page.url if self._page else None,
        )
        self._page = (
            page_door(lambda tls: PageServer(technicians, settings.page, tls, self._id, names), self._bind)
            if settings.page.enabled
            else None
        )
        operations = Operations(
            store=self._store,
            clock=self._clock,
            events=self._events,
            keys=self._keys,
            engine=self._engine,
            steps=self._gateway_steps,
            registrar=self._registrar,
            reader=reader,
            bootstrap_issuer=self._ca.bootstrap,
            trust_clock=lambda: self._clock.trust(self._store),
            gateway_id=self._id,
            algorithm=gateway.key_algorithm,
            code_lifetime=settings.control.code_lifetime,
            swaps=swaps,
            try_ca=self._issuer.try_now,
            ring=self._ring,
            token=TokenOperations(
                store=self._store,
                clock=self._clock,
                events=self._events,
                tokens=self._tokens,
                inventory=inventory,
                gateway_id=self._id,
                ring=self._ring_tokens,
            ),
            audit=self._audit,
            page=technicians,
            transfers=Transfers(
                store=self._store,
                clock=self._clock,
                events=self._events,
                steps=self._gateway_steps,
                anchors=self._anchors,
                way=self._way,
                gateway_id=self._id,
                ring=self._ring,
            ),
        )
        self._watch = ClockWatch(clock=self._clock, store=self._store, changed=self._time_changed)
        self._control = ControlService(operations, settings.control, self._id)
        self._orders = Orders(store=self._store, link=self._link, revoke=operations.revoke_for)
        self._background: set[asyncio.Task[None]] = set()
        self._died: BaseException | None = None

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From start to SIGTERM. Raises ConfigInvalid, StoreInUse, StoreTooNew, StoreBroken or TlsBridgeUnsupported at
        start, Internal when a service has died."""
        for keys in self._tokens.values():
            keys.warm_up()
        tls.prove()
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await self._store.open()
        try:
            await self._prepare()
            await self._serve(stopping)
        finally:
            await self._store.close()
        if self._died is not None:
            raise Internal("A service has died; its traceback is in the log.")

    async def _prepare(self) -> None:
        await self._clock.load(self._store)
        await self._anchors.load()
        now = self._clock.now()
        await self._store.write(lambda tx: self._adopt_settings(tx, now))
        if factory := await self._store.read(lambda tx: tx.settings.get(FACTORY)):
            kept = json.loads(factory)
            chain = pem.certificates(kept["certificates"])
            ref = KeyRef(bytes.fromhex(kept["key_id"]), KeyAlgorithm(kept["algorithm"]))
            self._gateway_steps.factory = self._gateway_steps.with_key(chain[0], chain[1:], ref)
        self._events.listen(self._happened)
        self._anchors.on_change(self._anchors_changed)
        self._link.listen(self._told, self._orders.call)
        self._answers.on_answer(lambda answer: self._revocations.hasten(answer.device_id, answer.serial))
        self._keeper.on_connected(self._twin.forget)
        self._keeper.on_connected(self._outbox.ring)
        self._keeper.on_connected(self._network_is_back)

    def _adopt_settings(self, tx: Tx, now: Any) -> None:
        """The gateway's own record follows the configuration, except for its id, which is for ever."""
        known = tx.devices.of_kind(DeviceKind.GATEWAY)
        sans = tuple(canonical(each) for each in self._settings.gateway.sans)
        if not known:
            tx.devices.add(Device(device_id=self._id, kind=DeviceKind.GATEWAY, created_at=now, sans=sans))
        elif known[0].device_id != self._id:
            raise ConfigInvalid(
                f"gateway.device_id is {self._id!r}, but this state directory belongs to {known[0].device_id!r}"
            )
        elif known[0].sans != sans:
            tx.devices.put(replace(known[0], sans=sans))

    async def _serve(self, stopping: asyncio.Event) -> None:
        await self._control.start()
        await asyncio.gather(*(keeper.look() for keeper in self._token_keepers))
        if self._est.url is None:  # the token is not there: all but signatures can begin
            await self._take_up_certificate()
        for service in (
            self._watch.run(),
            self._renewals.run(),
            self._revocations.run(),
            self._replacements.run(),
            self._keeper.run(),
            self._outbox.run(),
            self._twin.run(),
            self._hooks.run(),
            self._housekeeping.run(),
            self._audit.run(),
            *(keeper.run() for keeper in self._token_keepers),
            self._orders.run(),
            *self._sources.loops(),
            Watchdog(store=self._store, watched=(self._renewals.alarm, self._revocations.alarm)).run(),
        ):
            self._spawn(service)
        notify("READY=1", f"STATUS=Serving {self._id}")
        log.info("ready: %s", self._id)
        await stopping.wait()
        notify("STOPPING=1")
        log.info("stopping")
        await self._stop()

    async def _stop(self) -> None:
        """Outside first, so that nothing new comes in; then what is under way; the token and the store last."""
        await self._close_doors()
        await self._control.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._engine.stop()
        await self._revocations.stop()
        tokens = [keys.close for keys in self._tokens.values()]
        for close in (self._keeper.close, self._registry.close, *tokens):
            with contextlib.suppress(GatewayError):
                await close()

    @property
    def _doors(self) -> list[Door]:
        return [self._est, *([self._page] if self._page else [])]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A service that dies silently is worse than a restart, from which everything resumes.
            log.critical("a service has died", exc_info=error)
            self._died = error
            signal.raise_signal(signal.SIGTERM)

    async def _token_opened(self) -> None:
        await self._key_watch.hasten()
        await self._take_up_certificate()
        self._ring()
        self._housekeeping.ring()

    def _ring_tokens(self) -> None:
        for keeper in self._token_keepers:
            keeper.ring()

    # --- what follows from what happened ---------------------------------------------------------

    def _happened(self, entry: JournalEntry) -> None:
        self._twin.ring()
        self._outbox.ring()
        self._sources.happened(entry)
        if entry.what == "switch" and entry.device_id == self._id:
            self._spawn(self._take_up_certificate())
            self._hooks.ring()
        if entry.what == KEY_LOST:
            self._renewals.ring()
        if entry.what in ("switch", Milestone.VERIFIED):  # there may be a key that is needed no more
            self._housekeeping.ring()
        if entry.what in (
            "revocation",
            "wind-up",
            Milestone.REPORTED,
        ):  # there may be more to revoke, and more that can be done
            self._revocations.ring()
        if entry.what in (Milestone.REVOKED_AT_CA, Milestone.VERIFIED):  # what closes a revocation
            self._orders.ring()
        if entry.what in (Milestone.REVOKED_AT_CA, Milestone.VERIFIED, "wind-up", "pinned"):
            self._replacements.ring()
        if entry.what == Milestone.VERIFIED and entry.device_id == self._id:
            self._spawn(self._fall_silent())
        if entry.what in _SHOWN_ON_THE_BUS:
            self._control.ring(entry.device_id)

    def _network_is_back(self) -> None:
        # In a moment: by then it is known what the hub has had to say meanwhile.
        asyncio.get_running_loop().call_later(_AFTER_CONNECT, self._revocations.hasten_all)

    def _told(self, desired: Mapping[str, Any]) -> None:
        """The hub's desired properties, or a patch of them."""
        self._answers.take(desired)
        self._orders.take(desired)

    async def _fall_silent(self) -> None:
        """The gateway itself has been revoked, has said so, and was seen shut out: its key is not used any more."""
        if await self._live() is not None:
            return  # another of its certificates is not there yet
        own = await self._store.read(lambda tx: tx.devices.get(self._id))
        if own is None or own.state is DeviceState.REPLACING:
            return  # that was the hardware whose place this one takes
        log.warning("%s has been revoked: its link and its servers are closed", self._id)
        await self._keeper.close()
        await self._close_doors()

    async def _close_doors(self) -> None:
        for door in self._doors:
            await door.close()

    def _time_changed(self) -> None:
        """The clock was set, has become right or wrong, or the machine has slept: work all out anew."""
        self._judge_peers(self._client_tls)
        for door in self._doors:
            door.reload()
        if self._clock.sane():
            # What the CA and Entra did not believe with a wrong clock.
            self._issuer.try_now()
            self._revocations.hasten_all()
        self._ring()

    def _anchors_changed(self) -> None:
        self._est.reload()

    def _judge_peers(self, context: ssl.SSLContext) -> None:
        """With a wrong clock, as of the time that has certainly come: the hub and the leaves are let in and the link
        goes on."""
        tls.judge_at(context, None if self._clock.sane() else self._clock.now())

    def _bind(
        self,
        context: ssl.SSLContext,
        certificate: x509.Certificate,
        chain: Sequence[x509.Certificate],
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    ) -> None:
        tls.bind(context, certificate, chain, key)
        self._judge_peers(context)

    def _ring(self) -> None:
        for service in (self._watch, self._renewals, self._revocations, self._replacements, self._outbox, self._keeper):
            service.ring()

    async def _take_up_certificate(self) -> None:
        """Serve leaves, and connect, with what is the current certificate now."""
        try:
            live = await self._live()
        except GatewayError as error:
            log.error("the gateway's certificate: %s %s", error, error.remedy)
        else:
            if live is not None:
                for door in self._doors:
                    await door.show(live)
        self._keeper.ring()

    async def _live(self) -> LinkCredential | None:
        """The credential that the gateway shows to the hub and to leaves; None before bootstrap, and once it is
        revoked and has been seen shut out."""
        device, revocations = await self._store.read(
            lambda tx: (tx.devices.get(self._id), tx.revocations.all(self._id))
        )
        if device is None or (device.state is DeviceState.REVOKED and not table.may_speak(revocations)):
            return None
        return await self._gateway_steps.live(device)

    # --- what the ports are made of --------------------------------------------------------------

    def _trusting_context(self) -> ssl.SSLContext:
        bundle = self._settings.trust.bundle
        try:
            return ssl.create_default_context(cafile=bundle)
        except (OSError, ssl.SSLError) as error:
            raise ConfigInvalid(f"trust.bundle {bundle}: {error}") from None

    def _client_context(self, credential: LinkCredential) -> ssl.SSLContext:
        context = self._trusting_context()
        self._bind(context, credential.certificate, credential.chain, credential.private_key)
        return context

    def _entra(self, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> TokenSource:
        return EntraTokens(self._settings.entra, key, certificate, self._settings.trust.bundle)

    def _chosen_ca(self) -> Ca:
        around = Surroundings(
            settings=self._settings,
            tls=self._client_tls,
            registrar=self._registrar,
            static_tokens=StaticToken,
            holder=self._holder,
            known=self._anchors.known,
        )
        return KINDS[self._settings.issuer.kind](around)

    async def _holder(self) -> Holder | None:
        live = await self._live()
        if live is None:
            return None
        return Holder(live.certificate, live.private_key, lambda: self._client_context(live))


def _policy(settings: PolicySettings) -> RenewalPolicy:
    return RenewalPolicy(settings.opens, settings.closes, settings.emergency)
