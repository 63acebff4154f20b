"""The inventory on the real store: what goes, what stays, and what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gatewayd.core.inventory import GRACE, Role
from gatewayd.core.model import KeyAlgorithm
from gatewayd.errors import AlgorithmUnsupported, IssuerRejected, TokenFault
from gatewayd.services.key_inventory import KeyInventory
from gatewayd.services.steps import FACTORY
from tests.support.fakes import FakeKeyStore
from tests.support.plant import GATEWAY, Plant, Someone


@pytest_asyncio.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        await plant.bootstrap()
        yield plant


async def renew(plant: Plant) -> None:
    plant.clock.advance(days=1)
    work = await plant.operations.renew(Someone(), GATEWAY, "")
    await work(lambda step, state, detail="": None)


async def roles(plant: Plant) -> dict[str, Role]:
    ((listing,), _) = await plant.inventory.list()
    return {item.label: claim.role for item, claim in listing.objects}


async def test_a_superseded_key_goes_and_one_that_comes_back_goes_again(plant: Plant) -> None:
    first = dict(plant.fake_keys.keys)
    await renew(plant)
    await renew(plant)
    assert await roles(plant) == {
        f"gatewayd {GATEWAY} 1": Role.ORPHAN,
        f"gatewayd {GATEWAY} 2": Role.PREVIOUS,
        f"gatewayd {GATEWAY} 3": Role.LIVE,
    }
    await plant.inventory.collect()
    assert len(plant.fake_keys.keys) == 2
    plant.fake_keys.keys |= first  # the token was restored from an old backup
    await plant.inventory.collect()
    assert sorted(await roles(plant)) == [f"gatewayd {GATEWAY} 2", f"gatewayd {GATEWAY} 3"]


async def test_a_rejected_key_goes_after_the_time_of_grace(plant: Plant) -> None:
    plant.faults("issuer").fail("renew", IssuerRejected("No."))
    with pytest.raises(IssuerRejected):
        await renew(plant)
    await plant.inventory.collect()
    assert (await roles(plant))[f"gatewayd {GATEWAY} 2"] is Role.ORPHAN
    plant.clock.advance(seconds=GRACE.total_seconds())
    await plant.inventory.collect()
    assert await roles(plant) == {f"gatewayd {GATEWAY} 1": Role.LIVE}


async def test_a_key_that_is_not_on_record_is_left_whatever_its_label(plant: Plant) -> None:
    """As after the state directory was restored from a backup: it may be the key that serves."""
    await plant.keys.generate(b"newer", f"gatewayd {GATEWAY} 2", KeyAlgorithm.EC_P256)
    plant.clock.advance(days=1000)
    await plant.inventory.collect()
    assert (await roles(plant))[f"gatewayd {GATEWAY} 2"] is Role.FOREIGN


async def test_a_revoked_gateways_key_stays_until_the_revocation_is_closed(plant: Plant) -> None:
    plant.faults("registry").fail("disable", TokenFault("Later."), times=None)
    await plant.revoke(GATEWAY)
    await plant.settle()
    await plant.pass_time(days=1)
    await plant.inventory.collect()
    assert len(plant.fake_keys.keys) == 1
    plant.faults("registry").mend()
    for _ in range(4):
        await plant.pass_time(days=1)
    assert not await plant.read(lambda tx: tx.revocations.open())
    await plant.inventory.collect()
    assert plant.fake_keys.keys == {}


async def test_the_registrars_and_the_factorys_keys_are_known_and_their_loss_is_seen(plant: Plant) -> None:
    await plant.registrar.certificate()
    await plant.keys.generate(b"idevid", "made at the factory", KeyAlgorithm.EC_P256)
    kept = json.dumps({"key_id": b"idevid".hex(), "algorithm": "ec-p256", "certificates": ""})
    await plant.write(lambda tx: tx.settings.set(FACTORY, kept))
    found = await roles(plant)
    assert found["made at the factory"] is Role.FACTORY
    assert found[f"gatewayd registrar {GATEWAY}"] is Role.REGISTRAR
    plant.fake_keys.clear()
    _, missing = await plant.inventory.list()
    assert sorted(each.role for each in missing.values()) == [Role.LIVE, Role.REGISTRAR]


async def test_a_token_that_does_not_answer_does_not_keep_another_from_being_tidied(plant: Plant) -> None:
    await renew(plant)
    await renew(plant)
    broken = FakeKeyStore(plant.clock)
    broken.faults.fail("objects", TokenFault("Broken."), times=None)
    tokens = [broken, plant.keys]
    inventory = KeyInventory(store=plant.store, clock=plant.clock, gateway_id=GATEWAY, tokens=tokens)
    with pytest.raises(TokenFault):
        await inventory.collect()
    assert len(plant.fake_keys.keys) == 2


async def test_a_key_that_the_token_cannot_make_is_refused_with_those_it_can(plant: Plant) -> None:
    plant.fake_keys.offer(KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048)
    with pytest.raises(AlgorithmUnsupported, match="makes no rsa-3072 keys; it offers ec-p256, rsa-2048"):
        await plant.operations.renew(Someone(), GATEWAY, "rsa-3072")
    assert len(await plant.credentials()) == 1
    plant.fake_keys.offer(KeyAlgorithm.RSA_2048)  # and the configured one is ec-p256
    waiting = [each["error"] for each in (await plant.operations.status())["waiting"]]
    assert waiting == ["AlgorithmUnsupported"]
