"""A revocation goes on to *verified* whatever fails on the way, and nobody's absence holds up the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gatewayd.core.model import CredentialState as S
from gatewayd.core.model import DeviceState, Milestone, Revocation, RevocationReason
from gatewayd.core.revocation import is_closed, is_done
from gatewayd.errors import GatewayError, HubThrottled, HubUnreachable, IssuerUnreachable, RegistrarRefused, StoreBroken
from gatewayd.services import revoking
from gatewayd.services.after_restore import AfterRestore
from gatewayd.store.base import Tx
from gatewayd.store.restoring import RESTORED
from gatewayd.upstream import report
from tests.support.plant import GATEWAY, LEAF, Plant, Someone, request


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    """With an enrolled leaf."""
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        await plant.bootstrap()
        await plant.enrollments.enroll(request(await plant.add_leaf()))
        yield plant


async def the_one(plant: Plant, device_id: str = LEAF) -> Revocation:
    (revocation,) = await plant.all_revocations(device_id)
    return revocation


def missing(revocation: Revocation) -> set[Milestone]:
    return {milestone for milestone in Milestone if not is_done(revocation, milestone)}


async def test_from_known_to_verified_with_its_evidence(plant: Plant) -> None:
    current = await plant.current(LEAF)
    assert current is not None
    await plant.revoke()
    device = await plant.device(LEAF)
    assert device.state is DeviceState.REVOKED  # at once, before anybody was asked
    await plant.settle()
    revocation = await the_one(plant)
    assert is_closed(revocation)
    assert revocation.serial == current.serial
    assert all(revocation.progress[milestone].evidence for milestone in Milestone)
    assert set(plant.issuer.revoked) == {current.serial}
    assert plant.registry.enabled(LEAF) is False
    ((key, kind, body),) = [each for each in plant.link.sent if each[1] == "revocation"]
    assert (kind, body["serial"], body["reason"]) == ("revocation", current.serial, "keyCompromise")
    assert key in str(revocation.progress[Milestone.REPORTED].evidence)


AWAY = [
    ("issuer", "revoke", IssuerUnreachable("away"), {Milestone.REVOKED_AT_CA}),
    ("issuer", "revoke", RegistrarRefused("not known"), {Milestone.REVOKED_AT_CA}),
    ("issuer", "revoke", RuntimeError("a defect of ours"), {Milestone.REVOKED_AT_CA}),
    ("registry", "disable", HubUnreachable("away"), {Milestone.DISABLED, Milestone.VERIFIED}),
    ("registry", "disable", HubThrottled("429", retry_after=10), {Milestone.DISABLED, Milestone.VERIFIED}),
    ("registry", "get", HubUnreachable("away"), {Milestone.VERIFIED}),
    ("link", "send", HubUnreachable("no PUBACK"), {Milestone.REPORTED}),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("where", "call", "error", "held"), AWAY)
async def test_who_is_away_holds_up_only_what_is_his(
    plant: Plant, where: str, call: str, error: Exception, held: set[Milestone], after: bool
) -> None:
    await plant.settle()  # what enrolling has to tell is told
    faults = plant.faults(where)
    faults.fail(call, error, after=after, times=3)
    await plant.revoke()
    await plant.settle()
    revocation = await the_one(plant)
    assert missing(revocation) == held
    first = next(each for each in Milestone if each in held)
    if first is not Milestone.REPORTED:  # the outbox keeps that record
        progress = revocation.progress[first]
        name = error.name() if isinstance(error, GatewayError) else "Internal"
        assert progress.attempts == 1
        assert progress.next_attempt_at is not None
        assert str(progress.last_error).startswith(f"{name}: ")
    asked = faults.count(call)
    await plant.settle()
    assert faults.count(call) == asked  # not before its time
    for _ in range(3):
        await plant.pass_time(minutes=11)
    assert is_closed(await the_one(plant))
    assert plant.registry.enabled(LEAF) is False


@pytest.mark.parametrize("call", ["revoke", "disable", "get"])
@pytest.mark.parametrize("after", [False, True])
async def test_after_a_crash_it_goes_on_at_once(plant: Plant, call: str, after: bool) -> None:
    hold = (plant.issuer if call == "revoke" else plant.registry).faults.hold(call, after=after)
    await plant.revoke()
    await plant.revocations.round()
    await hold.reached.wait()
    await plant.restart()
    plant.link.faults.mend()
    live = await plant.live()
    assert live is not None
    await plant.keeper.switch(live)
    await plant.settle()
    assert is_closed(await the_one(plant))
    assert plant.registry.enabled(LEAF) is False


async def test_enabled_again_between_disabling_and_looking_it_is_disabled_once_more(plant: Plant) -> None:
    hold = plant.registry.faults.hold("get")
    await plant.revoke()
    await plant.revocations.round()
    await hold.reached.wait()
    plant.registry.write(LEAF, enabled=True)
    hold.released.set()
    await plant.settle()
    assert is_closed(await the_one(plant))
    assert plant.registry.enabled(LEAF) is False


async def test_disabled_by_the_cas_own_link_first_it_is_left_as_it_is(plant: Plant) -> None:
    plant.registry.write(LEAF, enabled=False, reason="certificate revoked at EZCA")
    await plant.revoke()
    await plant.settle()
    assert is_closed(await the_one(plant))
    assert plant.registry.identities[LEAF].status_reason == "certificate revoked at EZCA"


async def test_a_device_without_identity_in_the_hub_is_as_good_as_disabled(plant: Plant) -> None:
    del plant.registry.identities[LEAF]
    await plant.revoke()
    await plant.settle()
    assert is_closed(await the_one(plant))
    assert plant.registry.enabled(LEAF) is None


async def test_the_gateway_reports_its_own_revocation_before_it_is_disabled(plant: Plant) -> None:
    await plant.settle()
    plant.link.faults.fail("send", HubUnreachable("no PUBACK"))
    await plant.revoke(GATEWAY)
    await plant.settle()
    assert plant.registry.enabled(GATEWAY)
    await plant.pass_time(minutes=2)
    assert [kind for _, kind, _ in plant.link.sent][-1] == "revocation"
    assert plant.registry.enabled(GATEWAY) is False
    assert is_closed(await the_one(plant, GATEWAY))


async def test_a_gateway_that_is_shut_out_before_it_could_report_is_still_seen_disabled(plant: Plant) -> None:
    """As by the CA's own link to the hub, which is quicker."""
    await plant.settle()
    plant.registry.write(GATEWAY, enabled=False)
    plant.link.drop()
    await plant.revoke(GATEWAY)
    await plant.settle()
    assert missing(await the_one(plant, GATEWAY)) == {Milestone.REPORTED, Milestone.DISABLED, Milestone.VERIFIED}
    await plant.pass_time(minutes=6)
    assert missing(await the_one(plant, GATEWAY)) == {Milestone.REPORTED}


async def test_every_certificate_that_still_works_is_revoked_and_no_other(plant: Plant) -> None:
    """The present one and the one before; not what has expired, which the CA would refuse to hear about."""
    plant.clock.advance(days=1)
    current = await plant.current(LEAF)
    assert current is not None
    await plant.enrollments.enroll(request(certificate=current.certificate))
    await plant.revoke()
    await plant.settle()
    assert [each.state for each in await plant.credentials(LEAF)] == [S.REVOKED, S.REVOKED]
    assert len(await plant.all_revocations(LEAF)) == 2
    assert set(plant.issuer.revoked) == {each.serial for each in await plant.credentials(LEAF)}


async def test_a_watching_administrator_sees_each_milestone_and_the_end(plant: Plant) -> None:
    seen: list[tuple[str, str]] = []
    work = await plant.operations.revoke(Someone(), LEAF, "keyCompromise")
    await plant.settle()
    await work(lambda step, state, detail="": seen.append((step, state)))  # also for one who comes late
    assert ("revocation", "done") in seen
    await plant.add_leaf("leaf-2")
    never_enrolled = await plant.operations.revoke(Someone(), "leaf-2", "cessationOfOperation")
    shown = await never_enrolled(lambda step, state, detail="": None)
    assert shown["device"]["state"] == "revoked"
    assert shown["revocations"] == []


async def test_a_job_tells_every_milestone_also_what_came_before_it_listened(plant: Plant) -> None:
    await plant.revoke()
    await plant.settle()
    assert is_closed(await the_one(plant))
    steps: list[tuple[str, str]] = []
    work = await plant.operations.revoke(Someone(), LEAF, "keyCompromise")
    await work(lambda step, state, detail="": steps.append((step, state)))
    assert set(steps) >= {(str(milestone), "done") for milestone in Milestone}


async def test_a_disk_that_keeps_nothing_does_not_make_it_ask_without_a_pause(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await plant.revoke()

    async def full(_: object) -> None:
        raise StoreBroken("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(plant.store, "write", full)
        running = asyncio.create_task(plant.revocations.run())
        await asyncio.sleep(0.2)
        running.cancel()
    assert plant.issuer.faults.count("revoke") == 1
    await plant.settle()
    assert is_closed(await the_one(plant))


async def test_a_report_that_cannot_go_out_does_not_put_off_what_is_due_meanwhile(plant: Plant) -> None:
    """The hub's MQTT side is away for good, its registry only for a moment: the next round comes in that moment."""
    await plant.settle()
    plant.link.faults.fail("send", HubUnreachable("no PUBACK"), times=1000)
    plant.registry.faults.fail("disable", HubUnreachable("away"))
    await plant.revoke()
    await plant.settle()
    again = (await the_one(plant)).progress[Milestone.DISABLED].next_attempt_at
    assert again is not None
    wait = await plant.revocations.round()
    assert wait <= max((again - plant.clock.now()).total_seconds(), 0.1)


async def test_a_device_whose_certificates_have_all_expired_is_disabled_all_the_same(plant: Plant) -> None:
    await plant.pass_time(days=31)
    await plant.revoke()
    await plant.settle()
    revocation = await the_one(plant)
    assert is_closed(revocation)
    assert "expired" in str(revocation.progress[Milestone.REVOKED_AT_CA].evidence)
    assert plant.issuer.revoked == {}
    assert plant.registry.enabled(LEAF) is False
    await plant.revoke()
    assert len(await plant.all_revocations(LEAF)) == 1


async def test_so_it_is_where_an_earlier_one_is_alive_that_was_revoked_by_itself(plant: Plant) -> None:
    """The hub lets that one in, and nothing else would get the device disabled."""
    first = await plant.current(LEAF)
    assert first is not None
    assert first.not_after is not None
    await plant.pass_time(days=25)
    await plant.enrollments.enroll(request(certificate=first.certificate))
    second = await plant.current(LEAF)
    assert second is not None
    now = plant.clock.now()

    def work(tx: Tx) -> None:
        alive = tx.credentials.get(LEAF, first.generation)
        assert alive is not None
        alive = replace(alive, not_after=now + timedelta(days=400))  # it was given a longer life
        tx.credentials.put(alive)
        revoking.revoke_certificate(tx, alive, RevocationReason.SUPERSEDED, "crl", now)

    await plant.write(work)
    await plant.pass_time(days=31)
    await plant.revoke()
    await plant.settle()
    assert plant.registry.enabled(LEAF) is False


async def test_such_a_device_is_replaced_as_any_other(plant: Plant) -> None:
    await plant.pass_time(days=31)
    code = await plant.replace()
    await plant.settle()
    assert plant.registry.enabled(LEAF) is False
    await plant.enrollments.enroll(request(code))
    assert (await plant.device(LEAF)).state is DeviceState.ACTIVE
    assert plant.registry.enabled(LEAF) is True


async def test_after_a_restore_a_report_that_was_lost_with_the_damaged_database_is_written_anew(plant: Plant) -> None:
    """Records are taken over from what could be read of it, messages are not; and a responder waits for the report."""
    await plant.settle()
    plant.link.faults.fail("send", HubUnreachable("no PUBACK"), times=1000)
    await plant.revoke()
    await plant.settle()
    lost = await the_one(plant)
    assert missing(lost) == {Milestone.REPORTED}
    key = report.revocation_key(lost)

    def restore(tx: Tx) -> None:
        message = tx.outbox.get(key)
        assert message is not None
        tx.outbox.put(replace(message, sent_at=plant.clock.now()))
        tx.outbox.purge(plant.clock.now() + timedelta(seconds=1))
        assert tx.outbox.get(key) is None
        tx.settings.set(RESTORED, "{}")

    await plant.write(restore)
    restored = AfterRestore(
        store=plant.store,
        clock=plant.clock,
        events=plant.events,
        keys=plant.keys,
        gateway_id=GATEWAY,
        heard=lambda: False,
        ring=lambda: None,
    )
    await restored.load()
    message = await plant.read(lambda tx: tx.outbox.get(key))
    assert message is not None
    assert message.sent_at is None
