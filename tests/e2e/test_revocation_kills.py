"""Revocations under ``kill -9`` at every durable step, while the CA and the hub fail at random a fifth of the time.

``make test-kill`` kills some 200 times (``--kills``); otherwise it is ten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from gatewayd.control.client import Client
from gatewayd.errors import DaemonUnreachable
from tests.support.fleet import Fleet
from tests.support.mortal import Mortal, behave, enabled, fates, misbehave, open_ones

STEPS = 14
"""Commits from the start of the daemon to the end of a revocation, and some more."""
FATES = fates(STEPS)
HEALTHY = ("healthy-1", "healthy-2", "healthy-3")


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
    misbehave(stage, "RevokeCertificateV2")
    asked: set[str] = set()
    for number in range(kills):
        stage.fate = FATES[number % len(FATES)]
        stage.spawn_daemon()
        asked |= revoke_until_death(stage, doomed)
    unpromised = doomed[:1]  # its call may have died unanswered: then it may be revoked, and may be not

    behave(stage)
    stage.live_on()
    client = Client(stage.bus)
    lost = [device_id for device_id in asked if not client.call("GetDevice", "(s)", device_id)["revocations"]]
    stage.wait_for("all revocations to be closed", lambda: not open_ones(client), within=120)
    revoked = {each["common_name"] for each in stage.lab.get("ezca", "/lab/certificates") if each["revoked"]}
    left = [device_id for device_id in asked if device_id not in revoked or enabled(stage, device_id)]
    hit = [each for each in (*HEALTHY, *doomed[len(unpromised) :]) if each in revoked or not enabled(stage, each)]
    print(f"kills = {kills}, revocations = {len(asked)}")
    print(f"revocations lost = {len(lost)}, devices left enabled = {len(left)}, healthy devices disabled = {len(hit)}")
    assert (lost, left, hit) == ([], [], [])


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
