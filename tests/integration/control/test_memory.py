"""The two leaks of the layers below, mended: the service's memory is flat."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gatewayd.control.client import Client
from gatewayd.control.jobs import MAX_JOBS
from gatewayd.control.wrapper import leaves_invocation_referenced
from tests.support.bus import Bus
from tests.support.control_daemon import Daemon

CALLS = 10_000
OBJECTS = 2_000


@pytest.fixture
def daemon(bus: Bus) -> Iterator[Daemon]:
    with Daemon(bus.address) as running:
        yield running


def resident(pid: int) -> int:
    """KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def call(address: str, count: int) -> None:
    client = Client(address)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.call("ListDevices", "(a{sv})", {}), range(count)))


def begin(address: str, jobs: int) -> None:
    client = Client(address)
    for _ in range(jobs):
        client.call("Renew", "(sa{sv})", "", {})


def test_calls_leave_nothing_behind(bus: Bus, daemon: Daemon) -> None:
    """Unmended, 2 KB each: 20 MB."""
    call(bus.address, 1_000)
    before = resident(daemon.pid)
    call(bus.address, CALLS)
    assert resident(daemon.pid) - before < 2_000


def test_jobs_that_were_withdrawn_leave_nothing_behind(bus: Bus, daemon: Daemon) -> None:
    """Unmended, 1.2 KB for each of a job's signals. There are never more than MAX_JOBS of them at a time."""
    begin(bus.address, MAX_JOBS + 200)
    before = resident(daemon.pid)
    begin(bus.address, OBJECTS)
    assert resident(daemon.pid) - before < 2_000


@pytest.mark.parametrize(
    ("version", "leaves"),
    [((2, 74, 6), True), ((2, 82, 2), True), ((2, 82, 3), False), ((2, 82, 4), True), ((2, 84, 0), False)],
)
def test_only_a_glib_that_keeps_a_reference_is_given_one_less(version: tuple[int, int, int], leaves: bool) -> None:
    assert leaves_invocation_referenced(version) is leaves
