"""From what a CA publishes to a device that is seen disabled, with the real daemon and nobody at its command line."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gatewayd.lab.demo.leaf import Leaf
from gatewayd.lab.demo.stage import Stage

INTERVAL = 2.0
AND_TWO_SECONDS = 2.0
_DAYS = itertools.count(60)


@contextmanager
def plant(directory: Path, revocation: str) -> Iterator[Stage]:
    with Stage(directory / "stage", revocation=f"interval = {INTERVAL}\n{revocation}") as stage:
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        stage.wait_for("the EST server", lambda: stage.ctl_json("status")["est"].get("url"))
        yield stage


@pytest.fixture(scope="module")
def by_crl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with plant(tmp_path_factory.mktemp("crl"), "ocsp = false\nca_list = false") as stage:
        yield stage


@pytest.fixture(scope="module")
def without_crl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with plant(tmp_path_factory.mktemp("no-crl"), "distribution_points = false") as stage:
        yield stage


def enroll(stage: Stage, device_id: str) -> Leaf:
    added = stage.ctl_json("device", "add", device_id)
    leaf = Leaf(stage.directory / device_id, device_id, added["est_url"], stage.lab.web_root, stage.environment)
    leaf.make_key()
    leaf.fetch_anchors(stage.lab.ca_root)
    leaf.enroll(added["code"])
    return leaf


def reenroll(stage: Stage, leaf: Leaf) -> None:
    """For a certificate that ends later than the one before, as it does when days lie between."""
    stage.lab.post("ezca", "/lab/lifetime", {"seconds": 86400 * next(_DAYS)})
    leaf.reenroll()


def live_serial(stage: Stage, device_id: str) -> str:
    serial: str = stage.ctl_json("device", "show", device_id)["device"]["serial"]
    return serial


def revoke_at_ca(stage: Stage, serial: str, reason: str | None = None) -> None:
    stage.lab.post("ezca", "/lab/revoke", {"serial": serial, "reason": reason})


def disabled(stage: Stage, device_id: str) -> bool:
    status: str = stage.lab.hub("GET", f"/devices/{device_id}")["status"]
    return status == "disabled"


def revocations(stage: Stage, device_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stage.ctl_json("device", "show", device_id)["revocations"]
    return found


def closed(stage: Stage, device_id: str) -> Callable[[], dict[str, Any] | None]:
    def look() -> dict[str, Any] | None:
        return next((each for each in revocations(stage, device_id) if not each["open"]), None)

    return look


def source(stage: Stage, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in stage.ctl_json("status")["revocation_sources"] if each["kind"] == kind
    )
    return found


def test_from_the_publication_of_a_crl_to_verified_disabled_it_takes_the_interval_and_two_seconds(
    by_crl: Stage,
) -> None:
    stage = by_crl
    leaf = enroll(stage, "leaf-1")
    client = leaf.hub_client(stage.address)
    assert client.connect() == 0
    stage.wait_for("the first look", lambda: source(stage, "crl")["state"] == "fresh")

    revoke_at_ca(stage, live_serial(stage, "leaf-1"), "keyCompromise")
    published = datetime.now(UTC)
    known = stage.wait_for("the revocation to close", closed(stage, "leaf-1"))
    done = {each["name"]: each for each in known["milestones"]}
    verified_at = datetime.fromisoformat(done["verified"]["done_at"])
    assert (verified_at - published).total_seconds() < INTERVAL + AND_TWO_SECONDS
    assert disabled(stage, "leaf-1")
    assert client.dropped.wait(5)
    assert (known["origin"], known["reason"]) == ("crl", "keyCompromise")
    assert done["revoked-at-ca"]["evidence"].startswith("CRL ")
    # The CA said it: nobody asked it to revoke what it has revoked.
    assert "RevokeCertificateV2" not in [each["call"] for each in stage.lab.get("ezca", "/lab/log")]


def test_the_gateways_own_certificate_revoked_at_the_ca_ends_its_link(by_crl: Stage) -> None:
    stage = by_crl
    stage.wait_for("the link", lambda: stage.ctl_json("status")["hub"]["state"] == "connected")
    revoke_at_ca(stage, live_serial(stage, stage.gateway_id))
    stage.wait_for("the revocation to close", closed(stage, stage.gateway_id))
    assert disabled(stage, stage.gateway_id)
    stage.wait_for("the link to end", lambda: stage.ctl_json("status")["hub"]["state"] != "connected")
    assert stage.ctl_json("status")["gateway"]["state"] == "revoked"


def test_a_superseded_certificate_revoked_at_the_ca_disables_no_healthy_device(without_crl: Stage) -> None:
    stage = without_crl
    leaf = enroll(stage, "leaf-1")
    old = live_serial(stage, "leaf-1")
    reenroll(stage, leaf)
    client = leaf.hub_client(stage.address)
    assert client.connect() == 0

    revoke_at_ca(stage, old)
    known = stage.wait_for("the revocation to close", closed(stage, "leaf-1"))
    assert (known["serial"], known["scope"]) == (old, "certificate")
    time.sleep(INTERVAL)
    assert not disabled(stage, "leaf-1")
    assert not client.dropped.is_set()
    reenroll(stage, leaf)
    # The hub does not ask, and lets it in: that is said, because only a person can weigh it.
    (waiting,) = stage.ctl_json("status")["waiting"]
    assert (waiting["error"], waiting["device_id"]) == ("RevokedStillAdmitted", "leaf-1")


def test_ocsp_tells_while_the_list_is_away_and_status_says_so(without_crl: Stage) -> None:
    stage = without_crl
    enroll(stage, "leaf-2")
    stage.lab.post("ezca", "/lab/faults", {"call": "GetMyCertificatesV2Paginated", "mode": "503", "times": None})
    stage.wait_for("the list to fail", lambda: "IssuerUnreachable" in source(stage, "ca-list").get("last_error", ""))
    revoke_at_ca(stage, live_serial(stage, "leaf-2"), "keyCompromise")
    known = stage.wait_for("the revocation to close", closed(stage, "leaf-2"))
    assert (known["origin"], known["reason"], known["scope"]) == ("ocsp", "keyCompromise", "device")
    assert disabled(stage, "leaf-2")
    assert "fresh" in stage.ctl("status").stdout
