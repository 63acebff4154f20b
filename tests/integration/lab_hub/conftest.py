from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import Lab

from .clients import Service


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("hub") / "lab") as lab:
        lab.start("hub")
        yield lab


@pytest.fixture(scope="module")
def service(lab: Lab) -> Service:
    return Service(lab)
