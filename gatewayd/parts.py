"""What the daemon works with: every port and service, built from the settings and joined to one another. What leaves
and people see of them is front.py's.

A part has no behaviour of its own here; what happens when, and in which order things start and stop, is daemon.py's.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from . import kernel_clock
from .ca.base import Holder, TokenSource
from .ca.issuers import KINDS, Ca, Surroundings
from .ca.sparing import SparedIssuer
from .config import Settings
from .core import revocation as table
from .core.model import DeviceKind, DeviceState
from .errors import ConfigInvalid
from .keys import tls
from .keys.pin import Pin
from .keys.token import Pkcs11KeyStore
from .pki.idevid import Manufacturers
from .services import registrar
from .services.after_restore import AfterRestore
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
from .services.key_watch import KeyWatch
from .services.link import LinkKeeper
from .services.monitoring import Monitoring
from .services.outbox import Outbox
from .services.pins import Pins
from .services.registrar import Registrar
from .services.renewals import Renewals
from .services.replacements import Replacements
from .services.revocations import Revocations
from .services.sources import Sources
from .services.steps import GatewaySteps, LeafSteps
from .services.token_keeper import TokenKeeper
from .services.turns import Turns
from .services.twin import TwinReporter
from .store.database import SqliteStore
from .upstream import ways
from .upstream.answers import Answers
from .upstream.base import LinkCredential
from .upstream.device import HubLink
from .upstream.entra import EntraTokens, StaticToken
from .upstream.registry import HubRegistry


class Reactions(Protocol):
    """What some parts tell the whole."""

    async def token_opened(self) -> None: ...
    def ring(self) -> None:
        """Something has changed: every loop is to look now."""

    def time_changed(self) -> None: ...


class Parts:
    def __init__(self, settings: Settings, pins: Mapping[str, Pin], reactions: Reactions) -> None:
        """``pins`` of the tokens of ``settings.tokens``, as far as there are any. Raises ConfigInvalid."""
        self.settings = settings
        gateway = settings.gateway
        self.id = gateway.device_id
        synchronised = kernel_clock.Synchronisation()
        self.clock = SystemClock(trust_kernel=settings.clock.trust_kernel, synchronised=synchronised)
        self.events = Events()
        self.health = Health(self.clock)
        self.store = SqliteStore(gateway.state_directory / "gatewayd.db")
        self.monitoring = Monitoring(settings.metrics, self.id)
        self.tokens = {
            name: Pkcs11KeyStore(
                token.module,
                token.uri,
                pins.get(name),
                timeout=token.timeout,
                called=self.monitoring.token_calls(name),
            )
            for name, token in settings.tokens.items()
        }
        self.keys = self.tokens["gateway"]
        registrar_keys = self.tokens.get("registrar", self.keys)
        self.anchors = Anchors(self.store, settings.trust.issuer_anchors)
        self.client_tls = self._trusting_context()
        self.registrar = Registrar(
            store=self.store, keys=registrar_keys, clock=self.clock, device_id=self.id, make_tokens=self._entra
        )
        self.registry = HubRegistry(
            settings.hub.registry_url or settings.hub.host,
            self.registrar,
            settings.hub.scope,
            self.client_tls,
            settings.hub.timeout,
        )
        bundle = settings.trust.bundle
        trust_pem = bundle.read_text() if bundle else None
        self.link = HubLink(settings.hub.host, self.id, self.bind, trust_pem, settings.hub.timeout)
        self.answers = Answers()
        self.way = ways.chosen(
            settings.upstream,
            gateway_id=self.id,
            registry=self.registry,
            link=self.link,
            answers=self.answers,
            now=self.clock.now,
        )
        self.ca = self._chosen_ca()
        self.issuer = SparedIssuer(self.ca.issuer)
        self.keeper = LinkKeeper(link=self.link, live=self.live, clock=self.clock)
        hub_pins = Pins(store=self.store, clock=self.clock, health=self.health, way=self.way)
        self.gateway_steps = GatewaySteps(
            store=self.store,
            clock=self.clock,
            health=self.health,
            issuer=self.issuer,
            anchors=self.anchors,
            way=self.way,
            keys=self.keys,
            link=self.keeper,
            pins=hub_pins,
            client_context=self._client_context,
            lifetime=self.ca.lifetime,
        )
        leaf_steps = LeafSteps(
            store=self.store,
            clock=self.clock,
            health=self.health,
            issuer=self.issuer,
            anchors=self.anchors,
            way=self.way,
            pins=hub_pins,
            lifetime=self.ca.leaf_lifetime,
        )
        policies = settings.policies
        self.engine = CredentialEngine(
            store=self.store,
            clock=self.clock,
            events=self.events,
            policies=policies,
            steps={DeviceKind.GATEWAY: self.gateway_steps, DeviceKind.LEAF: leaf_steps},
        )
        self.turns = Turns(
            store=self.store,
            policy=policies.default,
            gate=self.issuer,
            most=self.ca.requests_per_second,
            paced=settings.renewal.paced,
        )
        self.renewals = Renewals(
            store=self.store, clock=self.clock, engine=self.engine, turns=self.turns, algorithm=gateway.key_algorithm
        )
        self.revocations = Revocations(
            store=self.store,
            clock=self.clock,
            events=self.events,
            health=self.health,
            issuer=self.issuer,
            way=self.way,
            gateway_id=self.id,
        )
        self.replacements = Replacements(
            store=self.store,
            clock=self.clock,
            events=self.events,
            health=self.health,
            way=self.way,
            issuer=self.issuer,
            gateway_id=self.id,
            exclusive=self.engine.exclusive,
            drive_on=self.renewals.ring,
        )
        self.sources = Sources(
            settings.revocation,
            store=self.store,
            clock=self.clock,
            events=self.events,
            health=self.health,
            tls=self.client_tls,
            anchors=self.anchors.known,
            ca_name=self.ca.url,
            ca_list=self.ca.certificates,
            directory=gateway.state_directory / "crl",
            gateway_id=self.id,
        )
        self.outbox = Outbox(store=self.store, clock=self.clock, events=self.events, link=self.link)
        self.hooks = Hooks(settings.hooks, store=self.store, clock=self.clock, events=self.events, gateway_id=self.id)
        self.twin = TwinReporter(store=self.store, link=self.link, gateway_id=self.id)
        self.inventory = KeyInventory(
            store=self.store, clock=self.clock, gateway_id=self.id, tokens=self.tokens.values()
        )
        self.housekeeping = Housekeeping(store=self.store, clock=self.clock, inventory=self.inventory)
        self.key_watch = KeyWatch(
            store=self.store, keys=self.keys, clock=self.clock, events=self.events, gateway_id=self.id
        )
        self.token_keepers = [
            TokenKeeper(
                keys,
                f"the {name}'s token",
                gateway.key_algorithm if name == "gateway" else registrar.ALGORITHM,
                reactions.token_opened,
                self.key_watch.prove if name == "gateway" else None,
            )
            for name, keys in self.tokens.items()
        ]
        self.after_restore = AfterRestore(
            store=self.store,
            clock=self.clock,
            events=self.events,
            keys=self.keys,
            gateway_id=self.id,
            heard=self.sources.heard,
            ring=reactions.ring,
        )
        self.manufacturers = Manufacturers(settings.manufacturers)
        self.enrollments = Enrollments(
            store=self.store,
            clock=self.clock,
            events=self.events,
            engine=self.engine,
            turns=self.turns,
            policies=policies,
            anchors=self.anchors.known,
            answer_within=settings.est.answer_within,
            hold=self.after_restore.require,
            origin_of=self.manufacturers.origin_of,
        )
        self.audit = AuditTrail(
            store=self.store,
            clock=self.clock,
            events=self.events,
            registrar=self.registrar,
            gateway_id=self.id,
            signed=self.twin.ring,
        )
        self.watch = ClockWatch(
            clock=self.clock,
            store=self.store,
            changed=reactions.time_changed,
            refresh=synchronised.refresh if settings.clock.trust_kernel else None,
        )

    def taken_over(self) -> None:
        """New hardware of the gateway: what was revoked since the export has to be heard first."""
        self.sources.hear_anew()
        self.after_restore.taken_over()

    def judge_peers(self, context: ssl.SSLContext) -> None:
        """With a wrong clock, as of the time that has certainly come: the hub and the leaves are let in and the link
        goes on."""
        tls.judge_at(context, None if self.clock.sane() else self.clock.now())

    def bind(
        self,
        context: ssl.SSLContext,
        certificate: x509.Certificate,
        chain: Sequence[x509.Certificate],
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    ) -> None:
        tls.bind(context, certificate, chain, key)
        self.judge_peers(context)

    async def live(self) -> LinkCredential | None:
        """The credential that the gateway shows to the hub and to leaves; None before bootstrap, and once it is
        revoked and has been seen shut out."""
        device, revocations = await self.store.read(lambda tx: (tx.devices.get(self.id), tx.revocations.all(self.id)))
        if device is None or (device.state is DeviceState.REVOKED and not table.may_speak(revocations)):
            return None
        return await self.gateway_steps.live(device)

    # --- what the ports are made of --------------------------------------------------------------

    def _trusting_context(self) -> ssl.SSLContext:
        bundle = self.settings.trust.bundle
        try:
            return ssl.create_default_context(cafile=bundle)
        except (OSError, ssl.SSLError) as error:
            raise ConfigInvalid(f"trust.bundle {bundle}: {error}") from None

    def _client_context(self, credential: LinkCredential) -> ssl.SSLContext:
        context = self._trusting_context()
        self.bind(context, credential.certificate, credential.chain, credential.private_key)
        return context

    def _entra(self, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> TokenSource:
        return EntraTokens(self.settings.entra, key, certificate, self.settings.trust.bundle)

    def _chosen_ca(self) -> Ca:
        around = Surroundings(
            settings=self.settings,
            tls=self.client_tls,
            registrar=self.registrar,
            static_tokens=StaticToken,
            holder=self._holder,
            known=self.anchors.known,
        )
        return KINDS[self.settings.issuer.kind](around)

    async def _holder(self) -> Holder | None:
        live = await self.live()
        if live is None:
            return None
        return Holder(live.certificate, live.private_key, lambda: self._client_context(live))
