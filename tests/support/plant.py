"""The services on the real store with fakes behind them, as daemon.py composes them; without their endless loops.

``settle`` takes what is due one look further until nothing is. ``restart`` is a crash and a new start on the same
state: nothing but the store, the token and the world outside survives it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.config import parse
from gatewayd.core.enrollment import EnrollmentRequest, Operation, Origin
from gatewayd.core.model import Credential, Device, DeviceKind, DeviceState, KeyAlgorithm, Revocation, San
from gatewayd.core.renewal import RenewalPolicies
from gatewayd.core.revocation import may_speak
from gatewayd.keys.base import KeyStore
from gatewayd.pki import csr
from gatewayd.services import views
from gatewayd.services.anchors import Anchors
from gatewayd.services.audit import AuditTrail
from gatewayd.services.credentials import CredentialEngine
from gatewayd.services.doctor import Doctor
from gatewayd.services.enrollments import Enrollments
from gatewayd.services.events import Events
from gatewayd.services.health import Health
from gatewayd.services.key_inventory import KeyInventory
from gatewayd.services.key_watch import KeyWatch
from gatewayd.services.leaves import Leaves
from gatewayd.services.link import LinkKeeper
from gatewayd.services.maintenance import Maintenance
from gatewayd.services.operations import Operations
from gatewayd.services.outbox import Outbox
from gatewayd.services.pins import Pins
from gatewayd.services.registrar import Registrar
from gatewayd.services.renewals import Renewals
from gatewayd.services.replacements import Replacements
from gatewayd.services.revocations import Revocations
from gatewayd.services.status import StatusReader
from gatewayd.services.steps import GatewaySteps, LeafSteps
from gatewayd.services.swaps import Swaps
from gatewayd.services.technician import Technicians
from gatewayd.services.token_keeper import TokenKeeper
from gatewayd.services.token_operations import TokenOperations
from gatewayd.services.transfers import Transfers
from gatewayd.services.turns import Turns
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore
from gatewayd.upstream.base import LinkCredential, Way
from gatewayd.upstream.ways import RegistryWay
from tests.support.fake_hub import FakeLink, FakeRegistry
from tests.support.fakes import (
    FakeAttester,
    FakeClock,
    FakeIssuer,
    FakeKeyStore,
    FakeTokens,
    Faults,
)

T = TypeVar("T")

GATEWAY = "gw-1"
LEAF = "leaf-1"
POLICIES = RenewalPolicies()
SETTINGS = """
[gateway]
device_id = "gw-1"
state_directory = "{state}"
[hub]
host = "127.0.0.1"
[issuer]
kind = "est"
[est_issuer]
url = "https://127.0.0.1:1/.well-known/est"
"""


class Someone:
    """Who calls an operation."""

    uid = 1000


class OpenGate:
    """The fake CA is never left alone."""

    def pause(self) -> float:
        return 0.0

    def on_trial(self) -> bool:
        return False


class Plant:
    def __init__(self, directory: Path, *, keys: KeyStore | None = None) -> None:
        """``keys``: another key store than the fake one."""
        self._path = directory / "gatewayd.db"
        self.clock = FakeClock()
        self.fake_keys = FakeKeyStore(self.clock)
        self.keys: KeyStore = keys or self.fake_keys
        self.issuer = FakeIssuer(self.clock)
        self.bootstrap_issuer = FakeIssuer(self.clock)
        """The same CA, seen with a person's token."""
        self.bootstrap_issuer.authority = self.issuer.authority
        self.bootstrap_issuer.minted = self.issuer.minted
        self.registry = FakeRegistry()
        self.way: Way = RegistryWay(self.registry, GATEWAY)
        self.link = FakeLink(self.registry, GATEWAY, self.clock)
        self.tokens = FakeTokens()
        self.origin: Origin | None = None
        """What the client certificates of leaves say, as that of a manufacturer."""
        self.token_opened = 0
        """How often the token was found ready after it was not."""

    async def __aenter__(self) -> Self:
        await self.start()
        await self.write(
            lambda tx: tx.devices.add(
                Device(GATEWAY, DeviceKind.GATEWAY, self.clock.now(), sans=(San.parse("dns:gw"),))
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        self.store = SqliteStore(self._path)
        await self.store.open()
        self.events = Events()
        self.health = Health(self.clock)
        self.anchors = Anchors(self.store, None)
        await self.anchors.load()
        common: dict[str, Any] = {"store": self.store, "clock": self.clock}
        ports: dict[str, Any] = common | {"health": self.health, "issuer": self.issuer, "way": self.way}
        self.keeper = LinkKeeper(link=self.link, live=self.live, clock=self.clock)
        pins = Pins(**common, health=self.health, way=self.way)
        self.steps = GatewaySteps(
            **ports,
            anchors=self.anchors,
            keys=self.keys,
            link=self.keeper,
            pins=pins,
            client_context=lambda _: ssl.create_default_context(),
            lifetime=timedelta(days=30),
        )
        leaf_steps = LeafSteps(**ports, pins=pins, anchors=self.anchors, lifetime=timedelta(days=30))
        self.engine = CredentialEngine(
            **common,
            events=self.events,
            policies=POLICIES,
            steps={DeviceKind.GATEWAY: self.steps, DeviceKind.LEAF: leaf_steps},
        )
        self.turns = Turns(
            store=self.store,
            policy=POLICIES.default,
            gate=OpenGate(),
            most=10,
            monotonic=lambda: self.clock.now().timestamp(),
        )
        self.renewals = Renewals(**common, engine=self.engine, turns=self.turns, algorithm=KeyAlgorithm.EC_P256)
        self.revocations = Revocations(**ports, events=self.events, gateway_id=GATEWAY)
        self.replacements = Replacements(
            **common,
            events=self.events,
            health=self.health,
            way=self.way,
            issuer=self.issuer,
            gateway_id=GATEWAY,
            exclusive=self.engine.exclusive,
            drive_on=lambda: None,
        )
        self.outbox = Outbox(**common, events=self.events, link=self.link)
        self.enrollments = Enrollments(
            hold=lambda: None,
            **common,
            events=self.events,
            engine=self.engine,
            turns=self.turns,
            policies=POLICIES,
            anchors=self.anchors.known,
            answer_within=5,
            origin_of=lambda _, __: self.origin,
        )
        self.registrar = Registrar(
            **common, keys=self.keys, device_id=GATEWAY, make_tokens=lambda key, certificate: self.tokens
        )
        self.audit = AuditTrail(**common, events=self.events, registrar=self.registrar, gateway_id=GATEWAY)
        self.inventory = KeyInventory(**common, gateway_id=GATEWAY, tokens=[self.keys])
        self.key_watch = KeyWatch(**common, events=self.events, keys=self.keys, gateway_id=GATEWAY)
        self.token_keeper = TokenKeeper(
            self.keys, "the token", KeyAlgorithm.EC_P256, self._token_opened, self.key_watch.prove
        )
        self.reader = StatusReader(
            **common,
            tokens={"gateway": self.key_watch},
            algorithm=KeyAlgorithm.EC_P256,
            link=self.link,
            health=self.health,
            spared=lambda: None,
            gateway_id=GATEWAY,
            issuer_name="ezca",
            issuer_url="https://ezca.example",
            hub_host="hub.example",
            est_url=lambda: "https://gw:8443",
            sources=list,
            hooks=lambda _: [],
            configuration=lambda: ({"loaded_at": views.when(self.clock.now())}, []),
            restored=list,
        )
        self.doctor = Doctor(
            parse(SETTINGS.format(state=self._path.parent)),
            status=self.reader,
            store=self.store,
            clock=self.clock,
            tls=ssl.create_default_context(),
            anchors=self.anchors.known,
            gateway_id=GATEWAY,
        )
        swaps = Swaps(**common, events=self.events, reader=self.reader, code_lifetime=86400, ring=lambda: None)
        technicians = Technicians(
            **common, events=self.events, reader=self.reader, swaps=swaps, gateway_id=GATEWAY, url=lambda: None
        )
        self.transfers = Transfers(
            taken_over=lambda: None,
            **common,
            events=self.events,
            steps=self.steps,
            anchors=self.anchors,
            gateway_id=GATEWAY,
            ring=lambda: None,
        )
        self.operations = Operations(
            **common,
            events=self.events,
            keys=self.keys,
            engine=self.engine,
            steps=self.steps,
            registrar=self.registrar,
            reader=self.reader,
            bootstrap_issuer=lambda token: self.bootstrap_issuer,
            trust_clock=self.trust_clock,
            gateway_id=GATEWAY,
            algorithm=KeyAlgorithm.EC_P256,
            swaps=swaps,
            page=technicians,
            leaves=Leaves(
                **common,
                events=self.events,
                reader=self.reader,
                gateway_id=GATEWAY,
                code_lifetime=86400,
                manufacturers=["acme"],
            ),
            try_ca=lambda: None,
            ring=lambda: None,
            token=TokenOperations(
                **common,
                events=self.events,
                tokens={"gateway": self.keys},
                attester=FakeAttester(),
                inventory=self.inventory,
                gateway_id=GATEWAY,
                ring=lambda: None,
            ),
            maintenance=Maintenance(
                **common,
                events=self.events,
                gateway_id=GATEWAY,
                database=self._path,
                reload=self.reload,
            ),
            audit=self.audit,
            doctor=self.doctor,
            transfers=self.transfers,
        )

    async def _token_opened(self) -> None:
        self.token_opened += 1
        await self.key_watch.hasten()

    async def stop(self) -> None:
        """As a crash does: whatever is under way ends where it is."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.link.drop()
        await self.store.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def reload(self, who: str) -> dict[str, Any]:
        return {"applied": [], "needs_restart": []}

    async def trust_clock(self) -> None:
        self.clock.right = True

    # --- going on --------------------------------------------------------------------------------

    async def idle(self, within: float = 10) -> None:
        """Until no task runs any more."""
        async with asyncio.timeout(within):
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    async def settle(self) -> None:
        """All that is due now, and what becomes due by it."""
        for _ in range(4):
            await self.renewals.round()
            await self.idle()
            await self.revocations.round()
            await self.idle()
            await self.replacements.round()
            await self.outbox.round()

    async def pass_time(self, **by: float) -> None:
        self.clock.advance(**by)
        await self.settle()

    # --- what people and leaves do ---------------------------------------------------------------

    async def bootstrap(self) -> Credential:
        """The gateway with its first certificate, connected."""
        work = await self.operations.bootstrap(Someone(), "token")
        await work(lambda step, state, detail="": None)
        current = await self.current()
        assert current is not None
        return current

    async def add_leaf(self, device_id: str = LEAF, sans: tuple[str, ...] = ()) -> str:
        """A leaf's record; returns its code."""
        shown = await self.operations.device_add(Someone(), device_id, list(sans), 0)
        return str(shown["code"])

    async def revoke(self, device_id: str = LEAF) -> None:
        await self.operations.revoke(Someone(), device_id, "keyCompromise")

    async def replace(self, device_id: str = LEAF) -> str:
        """Begin, or go on with, a swap; returns the code for the new hardware."""
        shown, _ = await self.operations.device_replace(Someone(), device_id, "", 0)
        return str(shown["code"])

    def faults(self, port: str) -> Faults:
        """Of ``keys`` (the fake ones), ``issuer``, ``link`` or ``registry``."""
        faults: Faults = getattr(self, "fake_keys" if port == "keys" else port).faults
        return faults

    # --- looking ---------------------------------------------------------------------------------

    async def read(self, work: Callable[[Tx], T]) -> T:
        return await self.store.read(work)

    async def write(self, work: Callable[[Tx], T]) -> T:
        return await self.store.write(work)

    async def device(self, device_id: str = GATEWAY) -> Device:
        device = await self.read(lambda tx: tx.devices.get(device_id))
        assert device is not None
        return device

    async def current(self, device_id: str = GATEWAY) -> Credential | None:
        return await self.read(lambda tx: tx.credentials.current(device_id))

    async def credentials(self, device_id: str = GATEWAY) -> list[Credential]:
        return await self.read(lambda tx: tx.credentials.all(device_id))

    async def newest(self, device_id: str = GATEWAY) -> Credential:
        return (await self.credentials(device_id))[-1]

    async def all_revocations(self, device_id: str | None = None) -> list[Revocation]:
        return await self.read(lambda tx: tx.revocations.all(device_id))

    async def live(self) -> LinkCredential | None:
        device, own = await self.device(), await self.all_revocations(GATEWAY)
        if device.state is DeviceState.REVOKED and not may_speak(own):
            return None
        return await self.steps.live(device)

    async def on_record(self) -> set[str]:
        """The serials of all certificates that the store knows of."""
        return await self.read(
            lambda tx: {
                each.serial
                for device in tx.devices.all()
                for each in tx.credentials.all(device.device_id)
                if each.serial
            }
        )


def request(
    code: str | None = None,
    *,
    device_id: str = LEAF,
    common_name: str | None = None,
    sans: tuple[str, ...] = (),
    key: ec.EllipticCurvePrivateKey | None = None,
    certificate: bytes | None = None,
    chain: tuple[bytes, ...] = (),
    operation: Operation | None = None,
) -> EnrollmentRequest:
    """What the EST server makes of a leaf's request."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    facts = csr.read(csr.build(key, common_name or device_id, tuple(San.parse(each) for each in sans)))
    return EnrollmentRequest(
        operation or (Operation.REENROLL if certificate else Operation.ENROLL),
        facts,
        (device_id, code) if code is not None else None,
        certificate,
        "192.0.2.7",
        chain,
    )


__all__ = ["GATEWAY", "LEAF", "Plant", "Someone", "request"]
