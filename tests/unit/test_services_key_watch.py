"""The token goes and comes back, with its keys and without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd.core.model import CredentialState
from gatewayd.errors import InvalidArgument, RegistrarRefused, TokenFault, TokenNotFound
from gatewayd.keys.base import TokenState
from tests.support.plant import GATEWAY, Plant, Someone


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        yield plant


async def waiting(plant: Plant) -> list[str]:
    return [each["error"] for each in (await plant.reader.status())["waiting"]]


async def test_a_token_that_comes_back_is_told_once(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gatewayd.services.token_keeper")
    await plant.token_keeper.look()
    assert plant.token_opened == 1
    plant.fake_keys.faults.fail("open", TokenNotFound("No token matches pkcs11:token=gatewayd."), times=3)
    plant.fake_keys.say(TokenState.FAULTY)
    for _ in range(3):
        await plant.token_keeper.look()
    plant.fake_keys.say(TokenState.READY)
    assert plant.token_opened == 1
    for _ in range(3):
        await plant.token_keeper.look()
    assert plant.token_opened == 2
    assert [each.message for each in caplog.records if each.name == "gatewayd.services.token_keeper"] == [
        "the token is ready",
        f"the token: TokenNotFound: No token matches pkcs11:token=gatewayd. {TokenNotFound.remedy}",
        "the token is ready",
    ]


async def test_what_failed_for_want_of_the_token_is_tried_when_it_is_back(plant: Plant) -> None:
    await plant.bootstrap()
    plant.clock.advance(days=1)
    plant.fake_keys.faults.fail("generate", TokenFault("CKR_GENERAL_ERROR"))
    plant.fake_keys.faults.fail("open", TokenFault("CKR_GENERAL_ERROR"))
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.settle()
    await plant.token_keeper.look()
    assert (await plant.newest()).next_attempt_at is not None
    await plant.token_keeper.look()
    await plant.settle()
    current = await plant.current()
    assert current is not None
    assert current.generation == 2


@pytest.mark.parametrize("how", ["cleared", "deleted", "replaced"])
async def test_a_lost_key_is_replaced_through_the_registrar(plant: Plant, how: str) -> None:
    first = await plant.bootstrap()
    plant.clock.advance(days=1)
    assert first.key is not None
    if how == "cleared":
        plant.fake_keys.clear()
    elif how == "deleted":
        await plant.keys.destroy(first.key.id)
    else:
        await plant.keys.destroy(first.key.id)
        await plant.keys.generate(first.key.id, "another", first.key.algorithm)
    await plant.token_keeper.look()
    assert plant.key_watch.status().state is TokenState.READY  # once may be by chance
    await plant.token_keeper.look()
    assert plant.key_watch.status().state is TokenState.KEY_MISSING
    assert await waiting(plant) == ["KeyMissing"]
    await plant.settle()
    current = await plant.current()
    assert current is not None
    assert current.generation == 2
    assert plant.issuer.faults.count("renew") == 0
    await plant.token_keeper.look()
    assert plant.key_watch.status().state is TokenState.READY
    assert await waiting(plant) == []


async def test_a_revocation_that_comes_while_the_key_is_looked_for_stands(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await plant.bootstrap()
    plant.fake_keys.clear()
    await plant.token_keeper.look()
    read = plant.store.read

    async def overtaken(work: Any) -> Any:
        found = await read(work)
        monkeypatch.setattr(plant.store, "read", read)
        await plant.operations.revoke(Someone(), GATEWAY, "keyCompromise")
        return found

    monkeypatch.setattr(plant.store, "read", overtaken)
    await plant.token_keeper.look()
    assert (await plant.newest()).state is CredentialState.REVOKED


async def test_a_lost_key_is_replaced_by_a_person_where_the_registrar_is_lost_too(plant: Plant) -> None:
    await plant.bootstrap()
    plant.clock.advance(days=1)
    with pytest.raises(InvalidArgument, match="valid certificate"):
        await plant.operations.bootstrap(Someone(), "token")
    plant.fake_keys.clear()
    plant.issuer.faults.fail("issue", RegistrarRefused("Entra does not know this certificate."), times=None)
    await plant.token_keeper.look()
    await plant.token_keeper.look()
    await plant.settle()
    assert set(await waiting(plant)) == {"KeyMissing", "RegistrarRefused"}
    await plant.bootstrap()
    await plant.token_keeper.look()
    assert plant.key_watch.status().state is TokenState.READY
    assert await waiting(plant) == []


async def test_the_registrar_makes_another_key_when_its_own_is_lost(plant: Plant) -> None:
    first = await plant.registrar.certificate()
    assert await plant.registrar.certificate() == first
    plant.fake_keys.clear()
    second = await plant.registrar.certificate()
    assert second.public_key() != first.public_key()
    await plant.restart()
    assert await plant.registrar.certificate() == second
    plant.fake_keys.clear()
    await plant.restart()
    assert (await plant.registrar.certificate()).public_key() != second.public_key()
