"""Hardware swaps under ``kill -9`` at every durable step, while the CA and the hub fail at random a fifth of the time.

``make test-kill`` kills some 100 times, in both ways (``--kills``); otherwise it is a few times, in one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from gatewayd.control.client import Client
from gatewayd.errors import DaemonUnreachable, DeviceExists
from tests.e2e.support import EstLeaf, check_books, connected, identity
from tests.integration.lab_hub.clients import Credential, connack
from tests.support.fleet import Fleet
from tests.support.mortal import Mortal, behave, enabled, fates, misbehave, open_ones

ACCEPTED, REFUSED = 0, 5
STEPS = 24
"""Commits of a swap, from the old hardware's first certificate to the new one's renewal under the pin, and more."""
FATES = fates(STEPS)
SHORT = 25
"""Seconds that every other old certificate is valid: so long its pin lasts."""
HEALTHY = "healthy"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both ways when there is time for many kills."""
    ways = ["registry", "report"] if metafunc.config.getoption("--kills") >= 100 else ["report"]
    metafunc.parametrize("way", ways)


@pytest.fixture
def stage(way: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    directory = tmp_path_factory.mktemp("swap") / "stage"
    with Mortal(directory, upstream=f'way = "{way}"\ndeadline = 1') as stage:
        stage.create_gateway_identity()
        stage.start_responder()
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        stage.wait_for("the link", lambda: connected(stage))
        yield stage


@dataclass
class Swap:
    """One device's, as the person sees it who does it: after a sudden end each step is taken again."""

    stage: Mortal
    device_id: str
    short: bool
    codes: list[str] = field(default_factory=list)
    old: EstLeaf | None = None
    new: EstLeaf | None = None
    done: int = 0
    """Steps."""
    shut: bool = False
    """Whether the hub was seen to refuse the old certificate since the swap began."""

    def advance(self, client: Client) -> bool:
        """Whether a step was taken. Raises DaemonUnreachable, OSError."""
        steps: tuple[Callable[[Client], bool], ...] = (
            self._add,
            self._enroll_old,
            self._begin,
            self._enroll_new,
            self._renew_new,
        )
        if not steps[self.done](client):
            return False
        self.done += 1
        return True

    @property
    def begun(self) -> bool:
        return self.done >= 3

    @property
    def in_service(self) -> bool:
        return self.done == 5

    def _add(self, client: Client) -> bool:
        try:
            added = client.call("AddDevice", "(sa{sv})", self.device_id, {})
        except DeviceExists:  # the answer was lost
            added = client.call("NewCode", "(sa{sv})", self.device_id, {})
        self.old = EstLeaf(self.stage, self.device_id, added["code"], f"{self.device_id}-old")
        return True

    def _enroll_old(self, _: Client) -> bool:
        assert self.old is not None
        self.stage.lab.post("ezca", "/lab/lifetime", {"seconds": SHORT if self.short else None})
        if self.old.post() != 200:
            return False
        self.stage.lab.post("ezca", "/lab/lifetime", {"seconds": None})
        self.old.show_certificate(self.old.certificate)
        return True

    def _begin(self, client: Client) -> bool:
        code = client.call("ReplaceDevice", "(sa{sv})", self.device_id, {})["code"]
        self.new = EstLeaf(self.stage, self.device_id, code, f"{self.device_id}-new")
        return True

    def _enroll_new(self, _: Client) -> bool:
        assert self.new is not None
        if self.new.post() != 200:
            return False
        self.new.show_certificate(self.new.certificate)
        return True

    def _renew_new(self, _: Client) -> bool:
        assert self.new is not None
        if self.new.post("simplereenroll") != 200:
            return False
        self.new.show_certificate(self.new.certificate)
        return True

    def probe(self) -> None:
        """The old hardware tries its luck: once it was shut out, never again."""
        if not self.begun or self.old is None:
            return
        if self._connack(self.old) == REFUSED:
            self.shut = True
        else:
            assert not self.shut, f"the old certificate of {self.device_id} got in again"

    def _connack(self, leaf: EstLeaf) -> int:
        return connack(self.stage.lab, self.device_id, Credential(leaf.certificate, leaf.pem, leaf.pem))

    def check(self) -> None:
        """The legal end: the new hardware in service, pinned, or let go because the old certificate has expired."""
        assert self.old is not None
        assert self.new is not None
        shown = check_books(self.stage, self.device_id)
        assert shown["device"]["state"] == "active"
        found = identity(self.stage, self.device_id)
        assert found["status"] == "enabled"
        if self.short:
            assert shown["replacement"]["state"] == "lifted"
            assert found["authentication"]["type"] == "certificateAuthority"
        else:
            assert shown["replacement"]["state"] == "pinned"
            assert found["authentication"]["type"] == "selfSigned"
            assert shown["device"]["thumbprint"] in found["authentication"]["x509Thumbprint"].values()
        assert self._connack(self.new) == ACCEPTED
        self.probe()
        assert self.shut


def test_every_swap_ends_well_and_no_old_certificate_gets_in_again(
    stage: Mortal, request: pytest.FixtureRequest
) -> None:
    kills = max(request.config.getoption("--kills") // 4, 1)
    Fleet(stage).add(HEALTHY)
    stage.stop_daemon()
    misbehave(stage, "RevokeCertificateV2", "RequestSSLCertificateV2")
    swaps: list[Swap] = []
    for number in range(kills):
        stage.fate = FATES[number % len(FATES)]
        stage.spawn_daemon()
        swap_until_death(stage, swaps)
        swaps[-1].probe()

    behave(stage)
    stage.live_on()
    client = Client(stage.bus)
    stage.wait_for("the last swap", lambda: finished(swaps[-1], client), within=60)
    stage.wait_for("all revocations to be closed", lambda: not open_ones(client), within=120)

    def lifted() -> bool:
        shown = [client.call("GetDevice", "(s)", each.device_id) for each in swaps if each.short]
        return all(each["replacement"]["state"] == "lifted" for each in shown)

    stage.wait_for("the pins' end", lifted, within=2 * SHORT)
    print(f"kills = {kills}, swaps = {len(swaps)}")
    for each in swaps:
        each.check()
    assert enabled(stage, HEALTHY)


def swap_until_death(stage: Mortal, swaps: list[Swap]) -> None:
    """Go on with the last swap, and then with another, until the daemon dies."""
    client: Client | None = None
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if stage.is_dead():
            return
        if not swaps or swaps[-1].in_service:
            swaps.append(Swap(stage, f"leaf-{len(swaps)}", short=len(swaps) % 2 == 1))
        pause = 0.05
        try:
            client = client or Client(stage.bus)
            if not swaps[-1].advance(client):
                pause = 0.5  # told to come back: each question is a commit, and it is not those that are to be hit
            swaps[-1].probe()
        except (DaemonUnreachable, OSError):
            pass
        time.sleep(pause)
    raise TimeoutError(f"the daemon did not come to its end: {stage.fate}")


def finished(swap: Swap, client: Client) -> bool:
    if not swap.in_service:
        swap.advance(client)
    return swap.in_service
