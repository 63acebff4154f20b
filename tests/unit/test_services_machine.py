"""Anything may fail, anywhere, in any order: what must hold all the same, played by Hypothesis on the real services and
the real store."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatewayd.core import lifecycle
from gatewayd.core.model import Credential, CredentialState, DeviceState
from gatewayd.core.revocation import is_closed
from gatewayd.errors import (
    GatewayError,
    HubRefused,
    HubThrottled,
    HubUnreachable,
    IssuerRejected,
    IssuerUnconfigured,
    IssuerUnreachable,
    TokenFault,
)
from gatewayd.pki import certificates
from gatewayd.upstream.base import LinkState
from tests.support.plant import GATEWAY, Plant, Someone, request

T = TypeVar("T")

LEAVES = ("leaf-1", "leaf-2")
UNCLEAR = IssuerUnreachable("no clear answer")
CRASH = asyncio.CancelledError()

BEFORE: list[tuple[str, str, BaseException]] = [
    ("keys", "generate", TokenFault("CKR_GENERAL_ERROR")),
    ("issuer", "issue", IssuerRejected("the policy says no")),
    ("issuer", "renew", IssuerRejected("the policy says no")),
    ("issuer", "renew", IssuerUnconfigured("no such template")),
    ("link", "connect", HubRefused("CONNACK 5")),
    ("registry", "disable", HubThrottled("429", retry_after=10)),
]
"""What is certain: nothing was done."""
EITHER: list[tuple[str, str, BaseException]] = [
    *(("issuer", call, error) for call in ("issue", "renew", "find", "revoke") for error in (UNCLEAR, CRASH)),
    *(
        ("registry", call, error)
        for call in ("ensure", "get", "disable")
        for error in (HubUnreachable("no answer"), CRASH)
    ),
    ("link", "connect", HubUnreachable("no answer")),
    ("link", "connect", CRASH),
    ("link", "send", HubUnreachable("no PUBACK")),
    ("keys", "generate", CRASH),
]
"""What leaves open whether the work was done."""

FAILURES = st.sampled_from(
    [(*each, False) for each in BEFORE] + [(*each, after) for each in EITHER for after in (False, True)]
)


class Life(RuleBasedStateMachine):
    """A gateway with two leaves."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self.gateway_revoked = False
        self._directory = tempfile.TemporaryDirectory()
        self._run(self._open())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def _open(self) -> None:
        self.plant = Plant(Path(self._directory.name))
        await self.plant.__aenter__()

    @initialize()
    def bootstrap(self) -> None:
        self.plant.registry.write(GATEWAY, enabled=True)
        self._run(self.plant.bootstrap())
        self.codes = {leaf: self._run(self.plant.add_leaf(leaf)) for leaf in LEAVES}

    async def _settle(self) -> None:
        """Including what the link's keeper does."""
        plant = self.plant
        if plant.link.status().state is not LinkState.CONNECTED and (live := await plant.live()) is not None:
            with contextlib.suppress(GatewayError, asyncio.CancelledError):
                await plant.link.connect(live)
        await plant.settle()

    # --- what may happen -------------------------------------------------------------------------

    @rule(hours=st.sampled_from([0.02, 0.2, 7, 100, 300]))
    def time_passes(self, hours: float) -> None:
        self.plant.clock.advance(hours=hours)
        self._run(self._settle())

    @rule(failure=FAILURES, times=st.integers(1, 3))
    def something_will_fail(self, failure: tuple[str, str, BaseException, bool], times: int) -> None:
        where, call, error, after = failure
        self.plant.faults(where).fail(call, error, after=after, times=times)

    @rule()
    def the_daemon_is_killed_and_started(self) -> None:
        self._run(self.plant.restart())
        self._run(self._settle())

    @rule()
    def the_line_drops(self) -> None:
        self.plant.link.drop()

    @rule()
    def an_administrator_renews_the_gateway(self) -> None:
        async def renew() -> None:
            with contextlib.suppress(GatewayError):
                await self.plant.operations.renew(Someone(), GATEWAY, "")
            await self._settle()

        self.plant.clock.advance(minutes=1)
        self._run(renew())

    @rule(leaf=st.sampled_from(LEAVES))
    def a_leaf_asks(self, leaf: str) -> None:
        async def ask() -> None:
            current = await self.plant.current(leaf)
            if current is not None and current.certificate is not None:
                wanted = request(device_id=leaf, certificate=current.certificate)
            else:
                wanted = request(self.codes[leaf], device_id=leaf)
            with contextlib.suppress(GatewayError, asyncio.CancelledError):
                await self.plant.enrollments.enroll(wanted)
            await self._settle()

        self.plant.clock.advance(minutes=1)
        self._run(ask())

    @rule(device=st.sampled_from([*LEAVES, GATEWAY]), wait=st.booleans())
    def a_device_is_revoked(self, device: str, wait: bool) -> None:
        if device == GATEWAY and not wait:
            return  # that ends the story: rarely
        self.gateway_revoked |= device == GATEWAY
        self._run(self.plant.revoke(device))
        if wait:
            self._run(self._settle())

    @precondition(lambda self: not self.gateway_revoked)
    @rule(enabled=st.booleans())
    def somebody_changes_the_gateway_in_the_hub(self, enabled: bool) -> None:
        self.plant.registry.write(GATEWAY, enabled=enabled)
        if not enabled:
            self.plant.link.drop()

    # --- what must hold --------------------------------------------------------------------------

    async def _records(self) -> list[Credential]:
        return [each for device in (GATEWAY, *LEAVES) for each in await self.plant.credentials(device)]

    @invariant()
    def the_gateway_keeps_a_certificate_and_its_key(self) -> None:
        device, current = self._run(self.plant.device()), self._run(self.plant.current())
        if device.state is DeviceState.ACTIVE and current is not None:
            assert current.state is CredentialState.CURRENT
            assert current.key is not None
            assert current.certificate is not None
            live = self._run(self.plant.live())
            assert live is not None
            assert live.private_key.public_key() == live.certificate.public_key()

    @invariant()
    def at_most_one_is_current_and_none_of_a_revoked_device(self) -> None:
        for device_id in (GATEWAY, *LEAVES):
            device = self._run(self.plant.device(device_id))
            current = [
                each for each in self._run(self.plant.credentials(device_id)) if each.state is CredentialState.CURRENT
            ]
            assert [each.generation for each in current] in ([], [device.current])
            if device.state is DeviceState.REVOKED:
                assert all(each.not_after is not None and each.not_after <= self.plant.clock.now() for each in current)

    @invariant()
    def what_was_minted_is_on_record_or_will_be_looked_for(self) -> None:
        records = self._run(self._records())
        known = {each.serial for each in records}
        sought = {each.public_key_sha256 for each in records if each.state in lifecycle.UNFINISHED}
        for certificate in self.plant.issuer.minted:
            serial = certificates.serial_hex(certificate)
            assert serial in known or certificates.public_key_sha256_of(certificate) in sought

    @invariant()
    def nothing_is_minted_twice_for_one_key(self) -> None:
        keys = [certificates.public_key_sha256_of(each) for each in self.plant.issuer.minted]
        assert len(keys) == len(set(keys))

    def teardown(self) -> None:
        try:
            if hasattr(self, "codes"):
                self._run(self._all_is_well_again())
        finally:
            self._run(self.plant.stop())
            self._runner.close()
            self._directory.cleanup()

    async def _all_is_well_again(self) -> None:
        """Once nothing fails any more, everything comes to its end by itself."""
        plant = self.plant
        for port in ("keys", "issuer", "registry", "link"):
            plant.faults(port).mend()
        gateway = await plant.device()
        if gateway.state is DeviceState.ACTIVE:
            plant.registry.write(GATEWAY, enabled=True)
        await plant.restart()
        for _ in range(4):
            plant.clock.advance(hours=7)
            await self._settle()
        records = await self._records()
        assert not [each for each in records if each.state in lifecycle.UNFINISHED]
        assert {certificates.serial_hex(each) for each in plant.issuer.minted} <= {each.serial for each in records}
        current = await plant.current()
        if gateway.state is DeviceState.ACTIVE:
            assert current is not None
            assert current.not_after is not None
            assert plant.clock.now() < current.not_after
            assert plant.link.serial == current.serial
            assert all(is_closed(each) for each in await plant.all_revocations())
        for device_id in (GATEWAY, *LEAVES):
            if (await plant.device(device_id)).state is DeviceState.REVOKED:
                await self._nothing_of_it_works(device_id)

    async def _nothing_of_it_works(self, device_id: str) -> None:
        revocations = await self.plant.all_revocations(device_id)
        if revocations:
            assert not self.plant.registry.enabled(device_id)
        for each in await self.plant.credentials(device_id):
            if each.not_after is not None and each.not_after > self.plant.clock.now():
                assert each.serial in self.plant.issuer.revoked


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # to shrink an example of real disk writes takes minutes, and its steps read well as it is
)
