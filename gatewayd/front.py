"""What of the daemon is seen from outside: the doors for leaves and technicians, and what people may ask for over
D-Bus. Built on the parts, and like them without a behaviour of its own.
"""

from __future__ import annotations

from typing import Any, Protocol

from .control.service import ControlService
from .core.model import SanKind
from .keys.attester import TpmAttester
from .leaf.doors import Door, est_door, page_door
from .leaf.page.server import PageServer
from .leaf.server import EstServer
from .parts import Parts
from .services.doctor import Doctor
from .services.leaves import Leaves
from .services.maintenance import Maintenance
from .services.operations import Operations
from .services.orders import Orders
from .services.status import StatusReader
from .services.swaps import Swaps
from .services.technician import Technicians
from .services.token_operations import TokenOperations
from .services.transfers import Transfers


class Requests(Protocol):
    """What is asked of the whole."""

    def ring(self) -> None:
        """Something has changed: every loop is to look now."""

    def ring_tokens(self) -> None: ...
    async def reload(self, who: str) -> dict[str, Any]:
        """Take up the configuration anew; services.maintenance."""

    def configuration(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """How the configuration stands, and what of it waits for a person."""


class Front:
    def __init__(self, parts: Parts, requests: Requests) -> None:
        settings = parts.settings
        gateway = settings.gateway
        names = [
            each.value for each in gateway.sans if each.kind in (SanKind.IP, SanKind.DNS) and "*" not in each.value
        ]
        self.est = est_door(
            lambda tls: EstServer(parts.enrollments, settings.est, tls, names),
            parts.bind,
            parts.anchors.known,
            parts.manufacturers.anchors,
        )
        self.reader = StatusReader(
            store=parts.store,
            clock=parts.clock,
            tokens={**parts.tokens, "gateway": parts.key_watch},
            algorithm=gateway.key_algorithm,
            link=parts.link,
            health=parts.health,
            gateway_id=parts.id,
            spared=parts.issuer.spared,
            issuer_name=settings.issuer.kind,
            issuer_url=parts.ca.url,
            hub_host=settings.hub.host,
            est_url=lambda: self.est.url,
            sources=parts.sources.shown,
            hooks=parts.hooks.shown,
            configuration=requests.configuration,
            restored=parts.after_restore.waiting,
        )
        self.swaps = Swaps(
            store=parts.store,
            clock=parts.clock,
            events=parts.events,
            reader=self.reader,
            code_lifetime=settings.control.code_lifetime,
            ring=requests.ring,
        )
        technicians = Technicians(
            store=parts.store,
            clock=parts.clock,
            events=parts.events,
            reader=self.reader,
            swaps=self.swaps,
            gateway_id=parts.id,
            url=lambda: self.page.url if self.page else None,
        )
        self.page = (
            page_door(lambda tls: PageServer(technicians, settings.page, tls, parts.id, names), parts.bind)
            if settings.page.enabled
            else None
        )
        self.operations = Operations(
            store=parts.store,
            clock=parts.clock,
            events=parts.events,
            keys=parts.keys,
            engine=parts.engine,
            steps=parts.gateway_steps,
            registrar=parts.registrar,
            reader=self.reader,
            bootstrap_issuer=parts.ca.bootstrap,
            trust_clock=lambda: parts.clock.trust(parts.store),
            gateway_id=parts.id,
            algorithm=gateway.key_algorithm,
            swaps=self.swaps,
            try_ca=parts.issuer.try_now,
            ring=requests.ring,
            token=TokenOperations(
                store=parts.store,
                clock=parts.clock,
                events=parts.events,
                tokens=parts.tokens,
                attester=TpmAttester(parts.keys),
                inventory=parts.inventory,
                gateway_id=parts.id,
                ring=requests.ring_tokens,
            ),
            maintenance=Maintenance(
                store=parts.store,
                clock=parts.clock,
                events=parts.events,
                gateway_id=parts.id,
                database=gateway.state_directory / "gatewayd.db",
                reload=requests.reload,
            ),
            audit=parts.audit,
            doctor=Doctor(
                settings,
                status=self.reader,
                store=parts.store,
                clock=parts.clock,
                tls=parts.client_tls,
                anchors=parts.anchors.known,
                gateway_id=parts.id,
            ),
            page=technicians,
            leaves=Leaves(
                store=parts.store,
                clock=parts.clock,
                events=parts.events,
                reader=self.reader,
                gateway_id=parts.id,
                code_lifetime=settings.control.code_lifetime,
                manufacturers=parts.manufacturers.names,
            ),
            transfers=Transfers(
                store=parts.store,
                clock=parts.clock,
                events=parts.events,
                steps=parts.gateway_steps,
                anchors=parts.anchors,
                gateway_id=parts.id,
                ring=requests.ring,
                taken_over=parts.taken_over,
            ),
        )
        self.control = ControlService(self.operations, settings.control, parts.id)
        self.orders = Orders(store=parts.store, link=parts.link, clock=parts.clock, revoke=self.operations.revoke_for)

    @property
    def doors(self) -> list[Door]:
        return [self.est, *([self.page] if self.page else [])]
