from __future__ import annotations

from collections.abc import Iterator

import pytest

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import gateway


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests that leave the gateway as they found it."""
    with gateway(tmp_path_factory.mktemp("gateway") / "stage") as stage:
        yield stage
