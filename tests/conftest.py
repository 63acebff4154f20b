"""For all tests: Hypothesis measures no time, because how long one example takes says more about the machine."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="how often the daemon is killed (%(default)s)")
