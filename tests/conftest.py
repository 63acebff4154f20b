"""For all tests: Hypothesis measures no time, because how long one example takes says more about the machine; and what
they start takes Ctrl-C, even where the tests themselves run in a shell's background, which ignores it."""

import signal

import pytest
from hypothesis import settings

signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="how often the daemon is killed (%(default)s)")
