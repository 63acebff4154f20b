"""Revocations under ``kill -9`` at every durable step, while the CA and the hub fail at random a fifth of the time.

``make test-kill`` kills some 200 times (``--kills``); otherwise it is ten.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gatewayd.control.client import Client
from gatewayd.errors import DaemonUnreachable
from gatewayd.lab.demo.stage import Stage
from tests.support.fleet import Fleet

STEPS = 14
"""Commits from the start of the daemon to the end of a revocation, and some more."""
FATES = [(str(number), when) for number in range(1, STEPS + 1) for when in ("before", "after")]
STRIDE = 5
"""Has no divisor in common with the number of fates: all come in turn, and the first few are far apart."""
HEALTHY = ("healthy-1", "healthy-2", "healthy-3")
CHANCE = 0.05
"""Of each of four faults: together they strike a fifth of the calls."""
CA_FAULTS = ("500", "500-after-issuing", "reset", "reset-after-issuing")
HUB_FAULTS = ("500", "503", "503-after", "drop")
LINK_FAULTS = ("drop", "503-after")


class Mortal(Stage):
    """Its daemon may be one that kills itself."""

    fate: tuple[str, ...] = ()

    def _daemon_command(self, fd: int, *arguments: str) -> list[str]:
        command = super()._daemon_command(fd, *arguments)
        if not self.fate:
            return command
        return [sys.executable, "-m", "tests.support.dying", *self.fate, *command[3:]]

    def is_dead(self) -> bool:
        process = self._processes["gatewayd"]
        if process.poll() is None:
            return False
        assert process.returncode == -9, self.log_text()[-3000:]
        del self._processes["gatewayd"]
        return True


@pytest.fixture(params=["registry", "report"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    directory = tmp_path_factory.mktemp("kill") / "stage"
    with Mortal(directory, upstream=f'way = "{request.param}"\ndeadline = 1') as stage:
        stage.create_gateway_identity()
        stage.start_responder()
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        stage.wait_for("the link", lambda: stage.ctl_json("status")["hub"]["state"] == "connected")
        yield stage


def test_no_revocation_is_lost_and_nobody_else_is_hit(stage: Mortal, request: pytest.FixtureRequest) -> None:
    kills = max(request.config.getoption("--kills") // 2, 1)
    fleet = Fleet(stage)
    doomed = [f"leaf-{number}" for number in range(kills)]
    for device_id in (*HEALTHY, *doomed):
        fleet.add(device_id)
    stage.stop_daemon()
    misbehave(stage)
    asked: set[str] = set()
    for number in range(kills):
        stage.fate = FATES[number * STRIDE % len(FATES)]
        stage.spawn_daemon()
        asked |= revoke_until_death(stage, doomed)
    unpromised = doomed[:1]  # its call may have died unanswered: then it may be revoked, and may be not

    for cloud in ("ezca", "hub"):
        stage.lab.delete(cloud, "/lab/faults")
    stage.fate = ("0", "never")  # no sudden end, but no waiting for minutes either
    stage.start_daemon()
    client = Client(stage.bus)
    lost = [device_id for device_id in asked if not client.call("GetDevice", "(s)", device_id)["revocations"]]
    stage.wait_for("all revocations to be closed", lambda: not open_ones(client), within=120)
    revoked = {each["common_name"] for each in stage.lab.get("ezca", "/lab/certificates") if each["revoked"]}
    left = [device_id for device_id in asked if device_id not in revoked or enabled(stage, device_id)]
    hit = [each for each in (*HEALTHY, *doomed[len(unpromised) :]) if each in revoked or not enabled(stage, each)]
    print(f"kills = {kills}, revocations = {len(asked)}")
    print(f"revocations lost = {len(lost)}, devices left enabled = {len(left)}, healthy devices disabled = {len(hit)}")
    assert (lost, left, hit) == ([], [], [])


def misbehave(stage: Mortal) -> None:
    for mode in CA_FAULTS:
        rule = {"call": "RevokeCertificateV2", "mode": mode, "times": None, "chance": CHANCE}
        stage.lab.post("ezca", "/lab/faults", rule)
    for where, match, modes in (("registry", "", HUB_FAULTS), ("mqtt", "PUBLISH", LINK_FAULTS)):
        for mode in modes:
            rule = {"where": where, "match": match, "mode": mode, "times": 10**9, "chance": CHANCE * 4 / len(modes)}
            stage.lab.post("hub", "/lab/faults", rule)


def revoke_until_death(stage: Mortal, doomed: list[str]) -> set[str]:
    """Give the daemon revocations until it dies; which of them it has promised to carry through."""
    promised: set[str] = set()
    client: Client | None = None
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if stage.is_dead():
            return promised
        try:
            client = client or Client(stage.bus)
            if doomed:
                client.call("Revoke", "(ssa{sv})", doomed[0], "keyCompromise", {})
                promised.add(doomed.pop(0))
            await_closing(stage, client)
        except DaemonUnreachable:
            time.sleep(0.05)
    raise TimeoutError(f"the daemon did not come to its end: {stage.fate}")


def await_closing(stage: Mortal, client: Client) -> None:
    """Until nothing is open any more, or for a while: then there is more to do for the daemon."""
    end = time.monotonic() + 3
    while time.monotonic() < end and open_ones(client):
        time.sleep(0.05)


def open_ones(client: Client) -> list[dict[str, Any]]:
    return [each for each in client.call("GetStatus")["revocations"] if each["open"]]


def enabled(stage: Mortal, device_id: str) -> bool:
    return bool(stage.lab.hub("GET", f"/devices/{device_id}")["status"] == "enabled")
