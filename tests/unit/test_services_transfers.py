"""What the new hardware does not take over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.core.model import DeviceState
from gatewayd.errors import AdoptionRefused, NotBootstrapped
from tests.support.plant import GATEWAY, Plant, Someone


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        yield plant


async def refused(plant: Plant, text: str, max_age: int = 0) -> str:
    with pytest.raises(AdoptionRefused) as refusal:
        await plant.operations.adopt(Someone(), text, "", max_age, "")
    device = await plant.read(lambda tx: tx.devices.get(GATEWAY))
    assert device is not None
    assert device.state is DeviceState.ACTIVE
    return refusal.value.message


async def test_what_is_refused_changes_nothing(plant: Plant) -> None:
    with pytest.raises(NotBootstrapped):
        await plant.operations.export(Someone())
    assert "issuer_anchors" in await refused(plant, "e30.e30.e30")
    plant.registry.write(GATEWAY, enabled=True)
    await plant.bootstrap()
    text = await plant.operations.export(Someone())
    assert "has devices or a certificate" in await refused(plant, text)
    assert "not an export" in await refused(plant, text[:-4])
    assert "not an export" in await refused(plant, "e30.e30.e30")
    plant.clock.advance(days=2)
    assert "what was revoked since" in await refused(plant, text)
    assert "has devices or a certificate" in await refused(plant, text, max_age=3 * 86400)
