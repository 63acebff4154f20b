"""The three ways by which a revoked certificate is shut out, on fakes of the hub's two sides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd import config
from gatewayd.core.model import UpstreamWay
from gatewayd.errors import ConfigInvalid, HubRefused, HubRejected, HubUnreachable, ResponderRefused, ResponderSilent
from gatewayd.upstream import answers, report
from gatewayd.upstream.answers import Answer, Answers, Status
from gatewayd.upstream.base import LinkCredential, LinkState, Order, Waiting
from gatewayd.upstream.ways import CaWay, RegistryWay, ReportWay, chosen
from tests.support.authority import Authority
from tests.support.fake_hub import FakeLink, FakeRegistry
from tests.support.fakes import FakeClock

GATEWAY, LEAF = "gw-1", "leaf-1"
DEADLINE = 60.0


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.registry = FakeRegistry()
        self.registry.write(GATEWAY, enabled=True)
        self.registry.write(LEAF, enabled=True)
        self.link = FakeLink(self.registry, GATEWAY, self.clock)
        self.answers = Answers()
        self.by_registry = RegistryWay(self.registry, GATEWAY)
        self.by_report = ReportWay(self.link, self.answers, GATEWAY, DEADLINE)
        self.order = Order(LEAF, "1a", "keyCompromise", self.clock.now(), 0, {"deviceId": LEAF, "thumbprint": None})

    def answer(self, status: Status, kind: str = report.REVOCATION, device_id: str = LEAF) -> None:
        told = Answer(kind, device_id, "1a", status, "e7", "why not", "2031-05-01T12:00:00+00:00")
        self.answers.take(answers.patch([], [told]))


@pytest.fixture
async def world() -> World:
    return World()


async def connect(world: World) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = Authority("Test", world.clock.now)
    await world.link.connect(LinkCredential(authority.leaf(key.public_key(), GATEWAY), (), key))


async def test_registry_disables_and_reads_back(world: World) -> None:
    with pytest.raises(HubRejected):
        await world.by_registry.verify(world.order)
    assert "etag" in str(await world.by_registry.disable(world.order))
    assert str(await world.by_registry.verify(world.order)).startswith("read back: disabled, etag")
    assert await world.by_registry.verify(replace(world.order, device_id="nobody")) == (
        "read back: no such identity in the hub"
    )


async def test_registry_creates_a_leaf_as_the_gateways_child_and_enables_nobody(world: World) -> None:
    await world.by_registry.ensure("leaf-2", "1a")
    scope = world.registry.identities[GATEWAY].own_scope
    assert world.registry.identities["leaf-2"].parents == (scope,)
    world.registry.write("leaf-2", enabled=False, reason="stolen")
    with pytest.raises(HubRefused, match="stolen"):
        await world.by_registry.ensure("leaf-2", "1b")


@pytest.mark.parametrize("status", sorted(answers.CLOSED))
async def test_report_waits_for_the_answer_which_proves_both(world: World, status: Status) -> None:
    assert isinstance(await world.by_report.disable(world.order), Waiting)
    assert not world.link.sent  # the first report is the outbox's
    world.answer(status)
    evidence = await world.by_report.disable(world.order)
    assert evidence == await world.by_report.verify(world.order)
    assert str(evidence).startswith("responder")


async def test_report_asks_again_when_nobody_answers(world: World) -> None:
    again = replace(world.order, attempts=1)
    with pytest.raises(HubUnreachable):
        await world.by_report.disable(again)
    await connect(world)
    with pytest.raises(ResponderSilent) as silence:
        await world.by_report.disable(again)
    assert silence.value.retry_after == DEADLINE
    assert world.link.sent == [("revocation:leaf-1:1a:1", "revocation", world.order.report)]


async def test_report_tells_a_refusal_and_asks_anew_after_it(world: World) -> None:
    world.answer(Status.REFUSED)
    with pytest.raises(ResponderRefused, match="why not"):
        await world.by_report.disable(world.order)
    assert isinstance(await world.by_report.disable(world.order), Waiting)


async def test_report_has_a_leaf_created_by_the_responder(world: World) -> None:
    await connect(world)
    world.answer(Status.PRESENT, report.ENROLLMENT)
    await world.by_report.ensure(LEAF, "1a")
    for status, error in ((Status.DISABLED, HubRefused), (Status.REFUSED, ResponderRefused)):
        world.answer(status, report.ENROLLMENT, "leaf-2")
        with pytest.raises(error):
            await world.by_report.ensure("leaf-2", "1a")
    with pytest.raises(HubRefused, match="IoT Edge"):
        await world.by_report.ensure(GATEWAY, "1a")


async def test_a_gateway_is_shut_out_when_the_hub_refuses_it(world: World) -> None:
    own = replace(world.order, device_id=GATEWAY, own_end=True)
    await connect(world)
    assert isinstance(await world.by_report.disable(own), Waiting)
    world.registry.write(GATEWAY, enabled=False)
    with pytest.raises(HubRefused):
        await connect(world)
    assert world.link.status().state is LinkState.REFUSED
    assert "the hub refuses the gateway" in str(await world.by_report.disable(own))


async def test_ca_waits_for_its_link_looks_and_falls_back(world: World) -> None:
    way = CaWay(world.by_registry, world.clock.now, DEADLINE)
    assert isinstance(await way.disable(world.order), Waiting)
    assert world.registry.enabled(LEAF)
    world.registry.write(LEAF, enabled=False)  # the CA's link
    assert "by the CA's link" in str(await way.disable(world.order))

    world.registry.write(LEAF, enabled=True)
    world.clock.advance(seconds=DEADLINE)
    assert "etag" in str(await way.disable(world.order))
    assert not world.registry.enabled(LEAF)


async def test_ca_with_the_responders_eyes_asks_only_after_the_deadline(world: World) -> None:
    way = CaWay(world.by_report, world.clock.now, DEADLINE)
    assert way.reports_first
    await connect(world)
    asked = replace(world.order, attempts=5)
    assert isinstance(await way.disable(asked), Waiting)
    assert not world.link.sent
    world.clock.advance(seconds=DEADLINE)
    with pytest.raises(ResponderSilent):
        await way.disable(asked)
    assert len(world.link.sent) == 1
    world.answer(Status.DISABLED)
    assert "e7" in str(await way.disable(asked))


def settings(text: str) -> config.UpstreamSettings:
    needed = """
        [gateway]
        device_id = "gw-1"
        [ezca]
        ca_id = "1"
        template_id = "2"
        [entra]
        tenant_id = "1"
        client_id = "2"
        object_id = "3"
        [hub]
        host = "hub.example"
        """
    return config.parse(f"{needed}\n[upstream]\n{text}").upstream


def test_the_configuration_chooses(world: World) -> None:
    def way(text: str) -> object:
        return chosen(
            settings(text),
            gateway_id=GATEWAY,
            registry=world.registry,
            link=world.link,
            answers=world.answers,
            now=world.clock.now,
        )

    assert settings("") == config.UpstreamSettings(UpstreamWay.REPORT, None, 60.0)
    assert isinstance(way(""), ReportWay)
    assert isinstance(way('way = "registry"'), RegistryWay)
    assert isinstance(way('way = "ca"\nfallback = "report"'), CaWay)


@pytest.mark.parametrize(
    "text",
    [
        'way = "ca"',
        'way = "ca"\nfallback = "ca"',
        'way = "report"\nfallback = "registry"',
        'way = "hope"',
        "deadline = 0.5",
        "deadline = nan",
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="upstream"):
        settings(text)
