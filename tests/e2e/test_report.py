"""The way ``report``, with real parts: a gateway without rights on the hub, and the responder in the cloud."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gatewayd.lab.demo.leaf import Leaf
from gatewayd.lab.demo.stage import Stage

GATEWAY = "gw-1"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A bootstrapped gateway whose Entra application may do nothing at the hub, and a responder that may."""
    upstream = 'way = "report"\ndeadline = 3'
    with Stage(tmp_path_factory.mktemp("report") / "stage", upstream=upstream) as stage:
        stage.create_gateway_identity()
        stage.start_responder()
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        stage.wait_for("the link", lambda: stage.ctl_json("status")["hub"]["state"] == "connected")
        yield stage


def enroll(stage: Stage, device_id: str) -> Leaf:
    added = stage.ctl_json("device", "add", device_id)
    leaf = Leaf(stage.directory / device_id, device_id, added["est_url"], stage.lab.web_root, stage.environment)
    leaf.curl_enroll(added["code"], stage.lab.ca_root)
    return leaf


def identity(stage: Stage, device_id: str) -> dict[str, Any]:
    found: dict[str, Any] = stage.lab.hub("GET", f"/devices/{device_id}")
    return found


def milestones(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (revocation,) = shown["revocations"]
    return {each["name"]: each for each in revocation["milestones"]}


def test_the_responder_creates_a_leaf_as_the_gateways_child_and_disables_it_on_a_report(stage: Stage) -> None:
    leaf = enroll(stage, "leaf-1")
    made = identity(stage, "leaf-1")
    assert made["status"] == "enabled"
    assert made["deviceScope"] == identity(stage, GATEWAY)["deviceScope"] != ""
    client = leaf.hub_client(stage.address)
    assert client.connect() == 0

    revoked = stage.ctl_json("revoke", "leaf-1", "--reason", "keyCompromise", "--yes")
    assert identity(stage, "leaf-1")["status"] == "disabled"
    assert client.dropped.wait(5)
    assert leaf.hub_client(stage.address).connect() == 5
    proof = milestones(revoked["result"])
    etag = identity(stage, "leaf-1")["etag"]
    assert (
        proof["disabled"]["evidence"] == proof["verified"]["evidence"] == f"responder read back: disabled, etag {etag}"
    )
