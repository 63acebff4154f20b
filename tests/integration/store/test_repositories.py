"""Each repository against its port: what goes in comes out, in the order promised."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.listing import Wanted
from gatewayd.core.measures import Left, left
from gatewayd.core.model import (
    Binding,
    CredentialState,
    DeviceKind,
    DeviceState,
    Milestone,
    MilestoneProgress,
    Revocation,
    Standing,
)
from gatewayd.core.revocation import done
from gatewayd.errors import DeviceExists
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore

from .values import MINUTE, NOW, code, credential, device, entry, full_credential, message, revocation


async def test_a_device_comes_back_as_it_went_in(store: SqliteStore) -> None:
    def work(tx: Tx) -> None:
        tx.devices.add(device("gw", DeviceKind.GATEWAY))
        tx.devices.add(device("leaf-1"))
        tx.devices.put(replace(device("leaf-1"), state=DeviceState.REVOKED, in_hub=True, sans=()))

    await store.write(work)
    assert await store.read(lambda tx: tx.devices.all()) == [
        device("gw", DeviceKind.GATEWAY),
        replace(device("leaf-1"), state=DeviceState.REVOKED, in_hub=True, sans=()),
    ]
    assert await store.read(lambda tx: tx.devices.get("LEAF-1")) is None


async def test_a_device_is_found_by_its_hardware_and_by_what_was_its_hardware_if_that_is_no_others(
    store: SqliteStore,
) -> None:
    bound, void = Binding("acme", "1"), Binding("acme", "1", void=True)
    devices = [replace(device("leaf-1"), binding=void, state=DeviceState.REVOKED), device("leaf-2")]

    def work(tx: Tx) -> None:
        for each in devices:
            tx.devices.add(each)
        assert tx.devices.of_hardware(bound) == devices[0]
        tx.devices.put(replace(devices[1], binding=bound))
        assert tx.devices.of_hardware(bound) == replace(devices[1], binding=bound)
        assert tx.devices.of_hardware(Binding("evil", "1")) is None
        assert tx.devices.void_hardware() == []  # somebody has bound it again
        tx.devices.put(replace(devices[1], binding=void))
        tx.devices.put(replace(devices[1], binding=Binding("acme", "2")))
        assert tx.devices.void_hardware() == [void]
        assert tx.devices.is_void(bound)

    await store.write(work)


async def test_a_second_device_of_one_name_is_refused(store: SqliteStore) -> None:
    await store.write(lambda tx: tx.devices.add(device()))
    with pytest.raises(DeviceExists) as refusal:
        await store.write(lambda tx: tx.devices.add(device()))
    assert refusal.value.device == "leaf-1"


async def test_a_credential_comes_back_as_it_went_in(store: SqliteStore) -> None:
    bare = credential("gw", 2, CredentialState.WANTED)

    def work(tx: Tx) -> None:
        tx.devices.add(device("gw"))
        tx.credentials.add(full_credential())
        tx.credentials.add(bare)

    await store.write(work)
    assert await store.read(lambda tx: tx.credentials.all("gw")) == [full_credential(), bare]

    later = replace(bare, certificate=b"certificate", chain=(b"another issuer",), state=CredentialState.ISSUED)
    await store.write(lambda tx: tx.credentials.put(later))
    assert await store.read(lambda tx: tx.credentials.get("gw", 2)) == later
    assert await store.read(lambda tx: tx.credentials.get("gw", 3)) is None


async def test_credentials_are_found_by_pointer_thumbprint_key_and_state(store: SqliteStore) -> None:
    old = replace(full_credential("gw", 1), state=CredentialState.PREVIOUS, thumbprint="01")
    new = replace(full_credential("gw", 2), thumbprint="02")

    def work(tx: Tx) -> None:
        tx.devices.add(device("gw"))
        tx.devices.add(device("leaf-1"))
        assert tx.credentials.next_generation("gw") == 1
        tx.credentials.add(old)
        tx.credentials.add(new)
        assert tx.credentials.current("gw") is None
        tx.devices.put(replace(device("gw"), current=2))

    await store.write(work)

    def look(tx: Tx) -> None:
        assert tx.credentials.current("gw") == new
        assert tx.credentials.current("leaf-1") is None
        assert tx.credentials.next_generation("gw") == 3
        assert tx.credentials.by_thumbprint("01") == old
        assert tx.credentials.by_thumbprint("03") is None
        assert tx.credentials.by_public_key("gw", "ab" * 32) == new
        assert tx.credentials.by_public_key("leaf-1", "ab" * 32) is None
        assert old.key is not None
        assert tx.credentials.by_key(old.key.id) == old
        assert tx.credentials.by_key(b"nobody's") is None
        assert tx.credentials.in_states([CredentialState.CURRENT, CredentialState.PREVIOUS]) == [old, new]
        assert tx.credentials.in_states([]) == []

    await store.read(look)


async def test_who_waits_for_a_turn_is_told_apart_and_the_most_urgent_comes_first(store: SqliteStore) -> None:
    keyed, blocked = CredentialState.KEYED, CredentialState.BLOCKED
    urgent = replace(credential("leaf-0", 2, keyed), deadline=NOW + 5 * MINUTE)
    mended = replace(credential("leaf-1", 2, blocked), deadline=NOW + MINUTE, next_attempt_at=NOW + 2 * MINUTE)
    first = credential("leaf-2", 1, keyed)
    issued = replace(credential("leaf-3", 2, CredentialState.ISSUED), deadline=NOW)
    lives = replace(full_credential("leaf-0", 1), not_before=NOW - 50 * MINUTE, not_after=NOW + 50 * MINUTE)
    over = replace(full_credential("leaf-1", 1), not_after=NOW)

    def work(tx: Tx) -> None:
        for i in range(4):
            tx.devices.add(device(f"leaf-{i}"))
        for each in (urgent, mended, first, issued, lives, over):
            tx.credentials.add(each)

    await store.write(work)

    def look(tx: Tx) -> None:
        assert tx.credentials.unfinished(NOW) == [first, issued]
        assert tx.credentials.waiting(NOW) == [urgent]
        assert tx.credentials.waiting(NOW + 2 * MINUTE) == [mended, urgent]
        assert tx.credentials.waiting(NOW + 2 * MINUTE, limit=1) == [mended]
        assert tx.credentials.deadlines() == [NOW + MINUTE, NOW + 5 * MINUTE]
        assert tx.credentials.load(NOW) == pytest.approx(1 / 6000)
        assert tx.credentials.all("leaf-0", [keyed]) == [urgent]

    await store.read(look)


async def test_due_and_unfinished_and_the_next_moment(store: SqliteStore) -> None:
    soon, later, unplanned = (
        replace(credential(f"leaf-{i}", 1, CredentialState.CURRENT), renew_at=at)
        for i, at in enumerate((NOW + MINUTE, NOW + 3 * MINUTE, None))
    )
    fresh = credential("leaf-0", 2, CredentialState.KEYED)
    backing_off = replace(
        credential("leaf-1", 2, CredentialState.PENDING), created_at=NOW - MINUTE, next_attempt_at=NOW + 2 * MINUTE
    )
    refused = replace(credential("leaf-2", 2, CredentialState.REJECTED), next_attempt_at=NOW)

    def work(tx: Tx) -> None:
        assert tx.credentials.next_moment(NOW) is None
        for i in range(3):
            tx.devices.add(device(f"leaf-{i}"))
        for each in (soon, later, unplanned, fresh, backing_off, refused):
            tx.credentials.add(each)

    await store.write(work)

    def look(tx: Tx) -> None:
        assert tx.credentials.due(NOW) == []
        assert tx.credentials.due(NOW + MINUTE) == [soon]
        assert tx.credentials.due(NOW + 9 * MINUTE) == [soon, later]
        assert tx.credentials.due(NOW + 9 * MINUTE, limit=1) == [soon]
        assert tx.credentials.unfinished(NOW) == [fresh]
        assert tx.credentials.unfinished(NOW + 2 * MINUTE) == [fresh, backing_off]
        assert tx.credentials.next_moment(NOW) == NOW + MINUTE
        assert tx.credentials.next_moment(NOW + MINUTE) == NOW + 2 * MINUTE

    await store.read(look)
    await store.write(lambda tx: tx.credentials.put(replace(soon, state=CredentialState.PREVIOUS)))
    assert await store.read(lambda tx: tx.credentials.next_moment(NOW)) == NOW + 2 * MINUTE


async def test_the_chain_that_all_share_is_kept_once(store: SqliteStore, path: Path) -> None:
    def work(tx: Tx) -> None:
        for i in range(50):
            tx.devices.add(device(f"leaf-{i}"))
            tx.credentials.add(full_credential(f"leaf-{i}"))

    await store.write(work)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM chains").fetchone()[0] == 1


async def test_codes_are_used_withdrawn_and_purged(store: SqliteStore) -> None:
    used = code("aa", used_by="cc" * 32)
    others = code("cc", "leaf-2")

    def work(tx: Tx) -> int:
        tx.devices.add(device("leaf-1"))
        tx.devices.add(device("leaf-2"))
        for each in (code("aa"), code("bb"), others):
            tx.codes.add(each)
        tx.codes.put(used)
        tx.codes.withdraw_unused("leaf-1")
        return tx.codes.purge(expired_before=NOW)

    assert await store.write(work) == 0
    assert await store.read(lambda tx: [tx.codes.get(each) for each in ("aa", "bb", "cc")]) == [used, None, others]
    assert await store.write(lambda tx: tx.codes.purge(NOW + 61 * MINUTE)) == 2
    assert await store.read(lambda tx: tx.codes.get("aa")) is None


async def test_a_revocation_keeps_every_milestone_and_is_open_until_all_are_done(store: SqliteStore) -> None:
    failed = MilestoneProgress(attempts=2, next_attempt_at=NOW, last_error="HubUnreachable: No answer.")
    first = replace(revocation(serial="02", known_at=NOW - MINUTE), progress={Milestone.DISABLED: failed})
    second = revocation(serial="01")

    def work(tx: Tx) -> list[bool]:
        tx.devices.add(device())
        return [tx.revocations.add(each) for each in (second, first, replace(first, origin="crl"))]

    assert await store.write(work) == [True, True, False]
    assert await store.read(lambda tx: tx.revocations.open()) == [first, second]
    assert await store.read(lambda tx: tx.revocations.all("leaf-2")) == []

    finished = first
    for milestone in Milestone:
        finished = _with(finished, milestone, done(MilestoneProgress(), NOW, f"proof of {milestone}"))
        await store.write(lambda tx, record=finished: tx.revocations.put(record))  # type: ignore[misc]
    assert await store.read(lambda tx: tx.revocations.open()) == [second]
    assert await store.read(lambda tx: tx.revocations.all()) == [finished, second]
    assert await store.read(lambda tx: tx.revocations.get("leaf-1", "02")) == finished


def _with(record: Revocation, milestone: Milestone, progress: MilestoneProgress) -> Revocation:
    return replace(record, progress={**record.progress, milestone: progress})


async def test_the_outbox_keeps_a_key_once_and_gives_the_oldest_due_first(store: SqliteStore) -> None:
    younger, older = message("b", NOW), message("a", NOW - MINUTE)
    backing_off = message("c", NOW - 2 * MINUTE, next_attempt_at=NOW + MINUTE)

    assert await store.write(lambda tx: [tx.outbox.add(each) for each in (younger, older, backing_off)]) == [True] * 3
    assert await store.read(lambda tx: tx.outbox.unsent(NOW)) == [older, younger]
    assert await store.read(lambda tx: tx.outbox.unsent(NOW + MINUTE, limit=2)) == [backing_off, older]

    sent = replace(older, sent_at=NOW, attempts=1)
    await store.write(lambda tx: tx.outbox.put(sent))
    assert await store.read(lambda tx: tx.outbox.unsent(NOW)) == [younger]
    assert not await store.write(lambda tx: tx.outbox.add(older))
    assert await store.read(lambda tx: tx.outbox.get("a")) == sent


async def test_the_journal_gives_the_newest_first(store: SqliteStore) -> None:
    def work(tx: Tx) -> None:
        for what in ("enroll", "renew"):
            tx.journal.append(entry(what))
        tx.journal.append(entry("start", device_id=None))

    await store.write(work)
    recent = await store.read(lambda tx: tx.journal.recent())
    assert [each.what for each in recent] == ["start", "renew", "enroll"]
    assert recent[-1] == replace(entry("enroll"), seq=1)
    assert [each.what for each in await store.read(lambda tx: tx.journal.recent("leaf-1", limit=1))] == ["renew"]


async def test_settings_are_set_and_set_again(store: SqliteStore) -> None:
    await store.write(lambda tx: tx.settings.set("registrar-key", "01"))
    await store.write(lambda tx: tx.settings.set("registrar-key", "02"))
    assert await store.read(lambda tx: (tx.settings.get("registrar-key"), tx.settings.get("else"))) == ("02", None)


async def test_devices_are_counted_as_they_stand(store: SqliteStore) -> None:
    over = replace(full_credential("leaf-1"), not_after=NOW)
    failing = replace(credential("leaf-2"), last_error="IssuerUnconfigured: no.")

    def work(tx: Tx) -> None:
        tx.devices.add(device("gw", DeviceKind.GATEWAY))
        for i in range(5):
            tx.devices.add(device(f"leaf-{i}"))
        for each in (full_credential("leaf-0"), over, failing):
            tx.credentials.add(each)
        for i in range(2):
            tx.devices.put(replace(device(f"leaf-{i}"), current=1))
        tx.devices.put(replace(device("leaf-3"), state=DeviceState.REVOKED))

    await store.write(work)

    def look(tx: Tx) -> None:
        active, revoked = DeviceState.ACTIVE, DeviceState.REVOKED
        assert dict(tx.devices.census(NOW)) == {
            Standing(active, has_certificate=True, valid=True, under_way=False): 1,
            Standing(active, has_certificate=True, valid=False, under_way=False): 1,
            Standing(active, has_certificate=False, valid=False, under_way=True): 1,
            Standing(active, has_certificate=False, valid=False, under_way=False): 1,
            Standing(revoked, has_certificate=False, valid=False, under_way=False): 1,
        }
        assert tx.devices.count_leaves() == {active: 4, DeviceState.REPLACING: 0, revoked: 1}
        assert tx.devices.expired(NOW, 10) == [("leaf-1", NOW, False)]
        assert tx.devices.expired(NOW, 0) == []
        assert [each.device_id for each in tx.devices.of_kind(DeviceKind.GATEWAY)] == ["gw"]
        assert tx.credentials.in_trouble() == [failing]

    await store.read(look)


async def test_the_latest_closed_revocations_come_first(store: SqliteStore) -> None:
    done = {each: MilestoneProgress(done_at=NOW) for each in Milestone}

    def work(tx: Tx) -> None:
        tx.devices.add(device())
        tx.revocations.add(revocation(serial="a"))
        for minute in range(1, 4):
            closed = revocation(serial=f"{minute}", known_at=NOW + minute * MINUTE)
            tx.revocations.add(replace(closed, progress=done))

    await store.write(work)
    found = await store.read(lambda tx: tx.revocations.closed(2))
    assert [each.serial for each in found] == ["3", "2"]


@pytest.mark.parametrize(
    ("rest", "wanted"), [(0, Left.EXPIRED), (2, Left.TENTH), (3, Left.THIRD), (9, Left.THIRD), (10, Left.MORE)]
)
async def test_a_fleet_is_counted_as_each_is_judged(store: SqliteStore, rest: int, wanted: Left) -> None:
    one = replace(full_credential(), not_before=NOW - (30 - rest) * MINUTE, not_after=NOW + rest * MINUTE)
    assert one.not_before is not None
    assert one.not_after is not None

    def work(tx: Tx) -> None:
        tx.devices.add(device("gw", DeviceKind.GATEWAY))
        tx.credentials.add(one)

    await store.write(work)
    fleet = await store.read(lambda tx: tx.credentials.fleet(NOW))
    assert {each for each, count in fleet.counts.items() if count} == {wanted}
    assert left(one.not_before, one.not_after, NOW) is wanted


async def test_a_list_is_narrowed_down_by_what_is_written(store: SqliteStore) -> None:
    def work(tx: Tx) -> None:
        for name in ("pump-1", "pump-2", "valve-1", "Pump-3"):
            tx.devices.add(device(name))
        tx.devices.add(device("gw", DeviceKind.GATEWAY))
        tx.credentials.add(full_credential("gw", 2))
        tx.devices.put(replace(device("gw", DeviceKind.GATEWAY), current=2))
        tx.credentials.add(credential("pump-1"))
        reached = done(MilestoneProgress(), NOW, "seen")
        tx.revocations.add(replace(revocation("valve-1", "1a"), progress={Milestone.VERIFIED: reached}))

    await store.write(work)

    async def listed(wanted: Wanted) -> list[str]:
        found = await store.read(lambda tx: list(tx.devices.overviews(wanted, NOW)))
        return [each.device.device_id for each in found]

    assert await listed(Wanted()) == ["gw", "Pump-3", "pump-1", "pump-2", "valve-1"]
    assert await listed(Wanted(id="pump-*")) == ["pump-1", "pump-2"]
    assert await listed(Wanted(id="*-[!1]")) == ["Pump-3", "pump-2"]
    assert await listed(Wanted(kind=DeviceKind.GATEWAY)) == ["gw"]
    assert await listed(Wanted(expiring_within=30 * MINUTE)) == ["gw"]
    assert await listed(Wanted(expiring_within=29 * MINUTE)) == []
    gateway = await store.read(lambda tx: tx.devices.overview("gw"))
    pump = await store.read(lambda tx: tx.devices.overview("pump-1"))
    valve = await store.read(lambda tx: tx.devices.overview("valve-1"))
    assert gateway is not None
    assert gateway.live is not None
    assert (gateway.live.generation, gateway.live.not_after) == (2, full_credential().not_after)
    assert pump is not None
    assert (pump.live, pump.under_way, pump.shut_out) == (None, True, False)
    assert valve is not None
    assert (valve.under_way, valve.shut_out) == (False, True)
    assert await store.read(lambda tx: tx.devices.overview("nobody")) is None


async def test_what_was_sent_long_ago_is_forgotten_and_what_was_not_sent_never(store: SqliteStore) -> None:
    sent = {"old": NOW - MINUTE, "new": NOW, "unsent": None}

    def work(tx: Tx) -> int:
        for key, at in sent.items():
            tx.outbox.add(message(key))
            tx.outbox.put(replace(message(key), sent_at=at))
        return tx.outbox.purge(NOW)

    assert await store.write(work) == 1
    left = await store.read(lambda tx: [each for each in sent if tx.outbox.get(each) is not None])
    assert left == ["new", "unsent"]
