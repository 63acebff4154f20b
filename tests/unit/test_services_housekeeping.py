"""What is forgotten in time, and what is not."""

from __future__ import annotations

from pathlib import Path

from gatewayd.errors import HubUnreachable
from gatewayd.services.housekeeping import Housekeeping
from tests.support.plant import GATEWAY, LEAF, Plant, request


async def test_what_the_hub_has_acknowledged_goes_after_a_month_and_what_it_has_not_never(tmp_path: Path) -> None:
    async with Plant(tmp_path) as plant:
        housekeeping = Housekeeping(store=plant.store, clock=plant.clock, inventory=plant.inventory)
        plant.registry.write(GATEWAY, enabled=True)
        await plant.bootstrap()
        current = await plant.enrollments.enroll(request(await plant.add_leaf()))
        await plant.settle()
        written = await plant.read(lambda tx: tx.journal.written())
        leaf = await plant.current(LEAF)
        assert leaf is not None, current
        key = f"certificate/{LEAF}/{leaf.serial}"

        async def kept() -> bool:
            await housekeeping.round()
            return await plant.read(lambda tx: tx.outbox.get(key)) is not None

        plant.clock.advance(days=29)
        assert await kept()
        plant.link.faults.fail("send", HubUnreachable("no PUBACK"), times=1000)
        await plant.revoke()
        await plant.settle()
        plant.clock.advance(days=2)
        assert not await kept()
        plant.clock.advance(days=365)
        await housekeeping.round()
        assert await plant.read(lambda tx: tx.outbox.get(f"revocation:{LEAF}:{leaf.serial}")) is not None
        assert len(await plant.read(lambda tx: tx.journal.records(1, 1000))) > written, "the audit trail stays"
