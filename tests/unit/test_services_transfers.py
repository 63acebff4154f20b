"""What the new hardware does not take over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.core.model import DeviceState
from gatewayd.errors import AdoptionRefused, NotBootstrapped
from gatewayd.services.transfers import Transfers
from gatewayd.store.restoring import RESTORED
from tests.support.plant import GATEWAY, LEAF, Plant, Someone, request


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


async def test_what_was_revoked_since_the_export_is_to_be_heard_first(plant: Plant, tmp_path: Path) -> None:
    """A leaf that was revoked on the old hardware meanwhile would renew, and go on with a certificate that nobody has
    revoked."""
    plant.registry.write(GATEWAY, enabled=True)
    await plant.bootstrap()
    await plant.enrollments.enroll(request(await plant.add_leaf()))
    text = await plant.operations.export(Someone())
    told: list[bool] = []
    (tmp_path / "new").mkdir()
    async with Plant(tmp_path / "new") as new:
        transfers = Transfers(
            store=new.store,
            clock=plant.clock,
            events=new.events,
            steps=new.steps,
            anchors=plant.anchors,
            gateway_id=GATEWAY,
            ring=lambda: None,
            taken_over=lambda: told.append(True),
        )
        await transfers.adopt("uid:0", text, "", 0)
        assert (await new.device(LEAF)).state is DeviceState.ACTIVE
        assert await new.read(lambda tx: tx.settings.get(RESTORED))
    assert told == [True]
