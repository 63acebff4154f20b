"""The way ``report``, with real parts: a gateway without rights on the hub, and the responder in the cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gatewayd.lab.demo.leaf import Leaf
from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import gateway

GATEWAY = "gw-1"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A bootstrapped gateway whose Entra application may do nothing at the hub, and a responder that may."""
    upstream = 'way = "report"\ndeadline = 3'
    with gateway(tmp_path_factory.mktemp("report") / "stage", upstream=upstream) as stage:
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


def test_what_a_leaf_says_about_another_is_logged_and_does_nothing(stage: Stage) -> None:
    liar, victim = enroll(stage, "liar"), enroll(stage, "victim")
    body = {"type": "revocation", "deviceId": "victim", "serial": "1", "reason": "keyCompromise"}
    client = liar.hub_client(stage.address)
    assert client.connect() == 0
    client.publish(json.dumps(body), "$.ct=application%2Fjson&$.ce=utf-8&type=revocation")
    client.close()
    stage.wait_for("the responder", lambda: "revocation of victim, serial 1, by liar: ignored" in responder_log(stage))
    assert identity(stage, "victim")["status"] == "enabled"
    assert "gatewayd" not in stage.lab.get("hub", "/lab/twins/liar")["properties"]["desired"]
    assert victim.hub_client(stage.address).connect() == 0


def test_a_report_that_nobody_answers_is_sent_again(stage: Stage) -> None:
    enroll(stage, "leaf-2")
    stage.stop_responder()
    stage.ctl("revoke", "leaf-2", "--reason", "unspecified", "--yes", "--no-wait")
    stage.wait_for("the second report", lambda: len(reports(stage, "leaf-2")) >= 2, within=15)
    assert identity(stage, "leaf-2")["status"] == "enabled"
    stage.start_responder()
    stage.wait_for("the answer", lambda: not stage.ctl_json("device", "show", "leaf-2")["revocations"][0]["open"])
    assert identity(stage, "leaf-2")["status"] == "disabled"


def test_the_cloud_may_order_a_revocation(stage: Stage) -> None:
    enroll(stage, "leaf-3")
    call = {"deviceId": GATEWAY, "methodName": "revoke"}
    superseded = {"deviceId": "leaf-3", "reason": "superseded"}
    refused = stage.lab.post("hub", "/lab/methods", call | {"payload": superseded})
    assert (refused["status"], refused["payload"]["error"]) == (409, "DeviceHealthy")
    ended = {"deviceId": "leaf-3", "reason": "cessationOfOperation"}
    answer = stage.lab.post("hub", "/lab/methods", call | {"payload": ended})
    assert answer == {"status": 200, "payload": {"deviceId": "leaf-3", "outcome": "verified"}}
    assert identity(stage, "leaf-3")["status"] == "disabled"
    (revocation,) = stage.ctl_json("device", "show", "leaf-3")["revocations"]
    assert (revocation["origin"], revocation["reason"]) == ("hub", "cessationOfOperation")
    for payload, status in (({"deviceId": "nobody"}, 404), ({"deviceId": "leaf-1", "reason": "fun"}, 400), (7, 400)):
        assert stage.lab.post("hub", "/lab/methods", call | {"payload": payload})["status"] == status


def test_an_order_is_carried_out_once_also_when_it_came_while_the_gateway_was_away(stage: Stage) -> None:
    enroll(stage, "leaf-4")
    stage.stop_daemon()
    orders = {"a1": {"deviceId": "leaf-4", "reason": "keyCompromise"}, "a2": {"deviceId": "nobody"}}
    stage.lab.post("hub", "/lab/desired", {"deviceId": GATEWAY, "desired": {"gatewayd": {"revoke": orders}}})
    stage.start_daemon()
    done = stage.wait_for("the outcome", lambda: reported_orders(stage, "a1") if verified(stage, "a1") else None)
    assert done["a1"] == {"deviceId": "leaf-4", "outcome": "verified"}
    assert done["a2"]["outcome"].startswith("DeviceUnknown: ")
    assert identity(stage, "leaf-4")["status"] == "disabled"
    stage.lab.post("hub", "/lab/desired", {"deviceId": GATEWAY, "desired": {"gatewayd": {"revoke": {"a1": None}}}})
    stage.wait_for("the outcome to go", lambda: "a1" not in reported_orders(stage, "a2"))


def silent(stage: Stage) -> dict[str, Any] | None:
    status: dict[str, Any] = stage.ctl_json("status")
    return status if status["hub"]["state"] == "off" and not status["est"]["listening"] else None


def reports(stage: Stage, device_id: str) -> list[dict[str, Any]]:
    messages = stage.lab.get("hub", "/lab/messages")
    return [
        each for each in messages if each["body"].get("type") == "revocation" and each["body"]["deviceId"] == device_id
    ]


def reported_orders(stage: Stage, which: str) -> dict[str, Any]:
    reported = stage.lab.get("hub", f"/lab/twins/{GATEWAY}")["properties"]["reported"]
    found: dict[str, Any] = reported.get("gatewayd", {}).get("revoke", {})
    return found if which in found else {}


def verified(stage: Stage, order: str) -> bool:
    return bool(reported_orders(stage, order).get(order, {}).get("outcome") == "verified")


def responder_log(stage: Stage) -> str:
    return stage.log_text("responder")


def test_new_hardware_gets_in_by_the_responders_hand_and_the_old_stays_out(stage: Stage) -> None:
    old = enroll(stage, "leaf-swap")
    code = stage.ctl_json("device", "replace", "leaf-swap", "--yes")["code"]
    new = Leaf(stage.directory / "leaf-swap-new", "leaf-swap", old.est_url, stage.lab.web_root, stage.environment)
    new.curl_enroll(code, stage.lab.ca_root)
    assert new.hub_client(stage.address).connect() == 0
    assert old.hub_client(stage.address).connect() == 5
    found = identity(stage, "leaf-swap")
    thumbprint = stage.ctl_json("device", "show", "leaf-swap")["device"]["thumbprint"]
    assert set(found["authentication"]["x509Thumbprint"].values()) == {thumbprint}
    assert found["deviceScope"] == identity(stage, GATEWAY)["deviceScope"]


def test_the_gateway_says_what_it_must_before_it_goes(stage: Stage) -> None:
    revoked = stage.ctl_json("revoke", GATEWAY, "--reason", "cessationOfOperation", "--yes")
    assert identity(stage, GATEWAY)["status"] == "disabled"
    for each in revoked["result"]["revocations"]:
        at = {name: milestone["done_at"] for name, milestone in milestones({"revocations": [each]}).items()}
        assert at["reported"] <= at["disabled"] <= at["verified"]
        assert "the hub refuses the gateway" in milestones({"revocations": [each]})["verified"]["evidence"]
    status = stage.wait_for("silence", lambda: silent(stage))
    assert status["gateway"]["state"] == "revoked"
    stage.stop_daemon()
    stage.start_daemon()
    attempts = len(stage.lab.get("hub", "/lab/connections")["history"])
    assert silent(stage)
    assert len(stage.lab.get("hub", "/lab/connections")["history"]) == attempts
