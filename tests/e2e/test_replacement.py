"""A hardware swap on the whole plant: the hole it closes, what it goes through, and that nothing interrupts it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from gatewayd.lab.demo.leaf import EnrollmentFailed, Leaf
from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import Held, check_books, identity, meanwhile
from tests.integration.lab_hub.clients import Service

ACCEPTED, REFUSED = 0, 5


def hardware(stage: Stage, device_id: str, name: str) -> Leaf:
    """One piece of hardware: a key of its own, and what it was given to trust its gateway by."""
    url = stage.ctl_json("status")["est"]["url"]
    leaf = Leaf(stage.directory / f"{device_id}-{name}", device_id, url, stage.lab.web_root, stage.environment)
    leaf.make_key()
    leaf.fetch_anchors(stage.lab.ca_root)
    return leaf


def in_service(stage: Stage, device_id: str) -> Leaf:
    leaf = hardware(stage, device_id, "old")
    leaf.enroll(stage.ctl_json("device", "add", device_id)["code"])
    assert connack(stage, leaf) == ACCEPTED
    return leaf


def connack(stage: Stage, leaf: Leaf) -> int:
    """As the hub decides it, and as its own log has it."""
    client = leaf.hub_client(stage.address)
    code = client.connect()
    client.close()
    last = [each for each in stage.lab.get("hub", "/lab/connections")["history"] if each["deviceId"] == leaf.device_id]
    assert last[-1]["code"] == code
    return code


def replace(stage: Stage, device_id: str, *more: str) -> str:
    code: str = stage.ctl_json("device", "replace", device_id, "--yes", *more)["code"]
    return code


def shown(stage: Stage, device_id: str) -> dict[str, Any]:
    data: dict[str, Any] = stage.ctl_json("device", "show", device_id)
    return data


def reaches(stage: Stage, device_id: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = shown(stage, device_id)["replacement"]
        return found if found["state"] == state else None

    return stage.wait_for(f"{device_id} {state}", look)


def test_the_hole_and_the_swap_that_closes_it(stage: Stage) -> None:
    old, hub = in_service(stage, "leaf-7"), Service(stage.lab)
    stage.ctl("revoke", "leaf-7", "--reason", "keyCompromise", "--yes")
    assert connack(stage, old) == REFUSED
    hub.change("leaf-7", status="enabled")
    assert connack(stage, old) == ACCEPTED, "the hub never looks at revocation"

    new = hardware(stage, "leaf-7", "new")
    code = replace(stage, "leaf-7")
    reaches(stage, "leaf-7", "awaiting")
    (waiting,) = [each for each in stage.ctl_json("status")["waiting"] if each.get("device_id") == "leaf-7"]
    assert waiting["error"] == "ReplacementWaiting"
    new.enroll(code)

    assert connack(stage, new) == ACCEPTED
    assert connack(stage, old) == REFUSED
    identity = hub.get("leaf-7")
    thumbprint = shown(stage, "leaf-7")["device"]["thumbprint"]
    assert identity["status"] == "enabled"
    assert identity["authentication"]["type"] == "selfSigned"
    assert set(identity["authentication"]["x509Thumbprint"].values()) == {thumbprint}
    data = shown(stage, "leaf-7")
    assert [each["name"] for each in data["replacement"]["steps"] if "done_at" not in each] == ["pin-lifted"]
    assert data["replacement"]["lift_at"] > max(
        each["not_after"] for each in data["credentials"] if each["state"] == "revoked"
    )
    with pytest.raises(EnrollmentFailed):
        old.reenroll()


def test_renewals_while_pinned_leave_no_moment_without_a_way_in(stage: Stage) -> None:
    old, hub = in_service(stage, "leaf-8"), Service(stage.lab)
    new = hardware(stage, "leaf-8", "new")
    new.enroll(replace(stage, "leaf-8"))
    first = hardware(stage, "leaf-8", "first")  # what the device still has when it has not taken up the next one
    first.key.write_bytes(new.key.read_bytes())
    first.certificate.write_bytes(new.certificate.read_bytes())

    new.reenroll()
    assert connack(stage, first) == ACCEPTED
    assert connack(stage, new) == ACCEPTED
    assert hub.get("leaf-8")["authentication"]["type"] == "selfSigned"
    new.reenroll()
    assert connack(stage, new) == ACCEPTED
    assert connack(stage, first) == REFUSED
    assert connack(stage, old) == REFUSED


def test_the_old_hardware_does_not_come_back_by_the_door(stage: Stage) -> None:
    """Neither with the code that it once used, nor with the new one and its old key."""
    old = hardware(stage, "leaf-9", "old")
    first_code = stage.ctl_json("device", "add", "leaf-9")["code"]
    old.enroll(first_code)
    code = replace(stage, "leaf-9")
    for used in (first_code, code):
        with pytest.raises(EnrollmentFailed):
            old.enroll(used)
    new = hardware(stage, "leaf-9", "new")
    new.enroll(code)
    for used in (first_code, code):
        with pytest.raises(EnrollmentFailed):
            old.enroll(used)
    assert connack(stage, old) == REFUSED
    assert connack(stage, new) == ACCEPTED


def test_a_cancelled_swap_leaves_the_device_revoked_until_it_is_replaced(stage: Stage) -> None:
    old, hub = in_service(stage, "leaf-10"), Service(stage.lab)
    code = replace(stage, "leaf-10")
    cancelled = stage.ctl_json("device", "replace", "leaf-10", "--cancel", "--yes")
    assert (cancelled["device"]["state"], cancelled["replacement"]["state"]) == ("revoked", "cancelled")
    with pytest.raises(EnrollmentFailed):
        hardware(stage, "leaf-10", "late").enroll(code)
    stage.wait_for("the disabled id", lambda: shown(stage, "leaf-10")["device"]["hub_state"] == "disabled")
    assert hub.get("leaf-10")["status"] == "disabled"
    again = stage.ctl("device", "replace", "leaf-10", "--cancel", "--yes", check=False)
    assert again.returncode == 66

    new = hardware(stage, "leaf-10", "new")
    new.enroll(replace(stage, "leaf-10"))
    assert connack(stage, new) == ACCEPTED
    assert connack(stage, old) == REFUSED


def test_asked_again_it_is_the_same_swap_with_a_new_code(stage: Stage) -> None:
    in_service(stage, "leaf-11")
    lost = replace(stage, "leaf-11")
    code = replace(stage, "leaf-11")
    new = hardware(stage, "leaf-11", "new")
    with pytest.raises(EnrollmentFailed):
        new.enroll(lost)
    new.enroll(code)
    assert connack(stage, new) == ACCEPTED
    assert len(shown(stage, "leaf-11")["revocations"]) == 1


def test_a_healthy_device_is_not_revoked_for_being_superseded(stage: Stage) -> None:
    leaf = in_service(stage, "leaf-12")
    refused = stage.ctl("revoke", "leaf-12", "--reason", "superseded", "--yes", check=False)
    assert refused.returncode == 64
    assert "device replace" in refused.stderr
    assert connack(stage, leaf) == ACCEPTED


@pytest.mark.parametrize("moment", ["revoked", "disabled", "pinned"])
def test_kill_9_in_the_middle(stage: Stage, moment: str) -> None:
    """Of the call to the CA, of the write that disables the id, and of the one that enables it again."""
    device_id = f"leaf-killed-{moment}"
    old = in_service(stage, device_id)
    new = hardware(stage, device_id, "new")
    held = Held(stage)
    if moment == "revoked":
        held.ezca("RevokeCertificateV2", done=True)
    elif moment == "disabled":
        held.hub("registry", f"PUT /devices/{device_id}")
    code = replace(stage, device_id)
    if moment == "pinned":
        reaches(stage, device_id, "awaiting")
        held.hub("registry", f"PUT /devices/{device_id}")

    def enroll() -> None:
        with contextlib.suppress(EnrollmentFailed):
            new.enroll(code)

    with meanwhile(enroll):
        held.wait()
        stage.kill_daemon()
        stage.start_daemon()
        stage.wait_for("the EST server", lambda: stage.ctl_json("status")["est"].get("url"))
    new.enroll(code)
    assert connack(stage, new) == ACCEPTED
    assert connack(stage, old) == REFUSED
    assert identity(stage, device_id)["authentication"]["type"] == "selfSigned"
    check_books(stage, device_id)
