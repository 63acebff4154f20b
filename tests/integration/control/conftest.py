"""A private bus with the real service on it, around the fake operations."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from gatewayd.config import ControlSettings
from gatewayd.control.service import ControlService
from tests.support.bus import Bus, private_bus
from tests.support.fake_operations import GATEWAY, FakeOperations


@pytest.fixture
def bus() -> Iterator[Bus]:
    with private_bus() as started:
        yield started


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def settings(bus: Bus) -> ControlSettings:
    return ControlSettings(bus=bus.address)


@pytest_asyncio.fixture
async def service(operations: FakeOperations, settings: ControlSettings) -> AsyncIterator[ControlService]:
    running = ControlService(operations, settings, GATEWAY)
    await running.start()
    yield running
    await running.stop()
