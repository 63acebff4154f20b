"""The way ``ca``: EZCA's own link disables the device, gatewayd sees to it that it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import gateway, identity, show
from tests.e2e.test_replacement import ACCEPTED, REFUSED, connack, hardware, in_service, reaches, replace

ATTEMPTS = 3
"""Of the stand-in's link, a second apart."""
BY_THE_LINK = "certificate revoked at EZCA"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    upstream = 'way = "ca"\nfallback = "registry"\ndeadline = 4'
    with gateway(tmp_path_factory.mktemp("ca") / "stage", upstream=upstream, hub_link=True) as stage:
        yield stage


def proof(stage: Stage, device_id: str) -> dict[str, Any]:
    (revocation,) = show(stage, device_id)["revocations"]
    return {each["name"]: each["evidence"] for each in revocation["milestones"]}


def test_the_cas_link_disables_the_device_and_gatewayd_reads_it_back(stage: Stage) -> None:
    leaf = in_service(stage, "leaf-1")
    stage.ctl("revoke", "leaf-1", "--reason", "keyCompromise", "--yes")
    found = identity(stage, "leaf-1")
    assert (found["status"], found["statusReason"]) == ("disabled", BY_THE_LINK)
    evidence = proof(stage, "leaf-1")
    assert evidence["disabled"].startswith("by the CA's link")
    assert evidence["verified"] == f"read back: disabled, etag {found['etag']}"
    assert connack(stage, leaf) == REFUSED


def test_when_the_link_has_failed_the_other_way_is_gone_after_the_deadline(stage: Stage) -> None:
    leaf = in_service(stage, "leaf-2")
    fault = {"where": "registry", "match": "PUT /devices/leaf-2", "mode": "500", "times": ATTEMPTS}
    stage.lab.post("hub", "/lab/faults", fault)
    stage.ctl("revoke", "leaf-2", "--reason", "keyCompromise", "--yes")
    found = identity(stage, "leaf-2")
    assert found["status"] == "disabled"
    assert found["statusReason"] != BY_THE_LINK
    assert proof(stage, "leaf-2")["verified"] == f"read back: disabled, etag {found['etag']}"
    assert connack(stage, leaf) == REFUSED


def test_the_link_does_not_hit_the_new_hardware(stage: Stage) -> None:
    old = in_service(stage, "leaf-3")
    new = hardware(stage, "leaf-3", "new")
    code = replace(stage, "leaf-3")
    reaches(stage, "leaf-3", "awaiting")
    new.enroll(code)
    assert connack(stage, new) == ACCEPTED
    assert connack(stage, old) == REFUSED
    new.reenroll()  # what is superseded is not revoked, or the link would disable a healthy device
    assert connack(stage, new) == ACCEPTED
    assert identity(stage, "leaf-3")["status"] == "enabled"
