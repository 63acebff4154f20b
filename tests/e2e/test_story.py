"""The main job with real parts, for either kind of the gateway's key: certificates are got, kept, and lost when they
are revoked."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.lab.demo.leaf import EnrollmentFailed, Leaf
from gatewayd.lab.demo.stage import Stage
from gatewayd.lab.demo.tokens import SoftHsm, Token, Tpm
from tests.e2e.support import check_books, connected, gateway, identity, minted, show

PROTECTED = "sensitive, always sensitive, never extractable, local"


@pytest.mark.parametrize(
    ("key_algorithm", "ways", "token"),
    [
        ("ec-p256", ["simpleenroll"], SoftHsm),
        ("rsa-2048", ["RenewCertificateV3", "RenewCertificateV2", "RenewCertificate"], SoftHsm),
        ("ec-p256", ["simpleenroll", "simpleenroll"], Tpm),
    ],
)
def test_from_bootstrap_to_revocation(
    tmp_path: Path, key_algorithm: str, ways: list[str], token: Callable[[Path], Token]
) -> None:
    with gateway(tmp_path / "stage", key_algorithm=key_algorithm, token=token) as stage:
        for way in ways:
            gateway_renews(stage, way)
        leaf = Leaf(stage.directory / "leaf-1", "leaf-1", est_url(stage), stage.lab.web_root, stage.environment)
        leaf_enrolls_and_renews(stage, leaf)
        leaf_is_revoked(stage, leaf)
        keys = stage.token_objects()
        assert 0 < keys.count("Private Key Object") == keys.count(PROTECTED)
        assert not [each for each in stage.state.rglob("*") if each.is_file() and b"PRIVATE KEY" in each.read_bytes()]
        assert stage.stop_daemon() == 0


def est_url(stage: Stage) -> str:
    return str(stage.ctl_json("status")["est"]["url"])


def gateway_renews(stage: Stage, way: str) -> None:
    """By the newest call that the server knows."""
    versions = ["RenewCertificateV3", "RenewCertificateV2", "RenewCertificate"]
    unknown = versions[: versions.index(way)] if way in versions else []
    stage.lab.post("ezca", "/lab/unknown", {"calls": unknown})
    before = show(stage, stage.gateway_id)["device"]
    after = stage.ctl_json("renew")["result"]
    assert minted(stage)[-1]["call"] == way
    assert after["generation"] == before["generation"] + 1
    assert after["thumbprint"] != before["thumbprint"]
    assert stage.wait_for("the link", lambda: connected(stage)) == after["serial"]
    assert not any(each["revoked"] for each in minted(stage))  # a superseded certificate is left alone
    check_books(stage, stage.gateway_id)


def leaf_enrolls_and_renews(stage: Stage, leaf: Leaf) -> None:
    code = stage.ctl_json("device", "add", "leaf-1")["code"]
    leaf.make_key()
    leaf.fetch_anchors(stage.lab.ca_root)
    first = leaf.enroll(code)
    time.sleep(1)
    second = leaf.reenroll()
    assert first.public_key() != second.public_key()
    shown = check_books(stage, "leaf-1")
    assert shown["device"]["serial"] == f"{second.serial_number:x}"
    assert identity(stage, "leaf-1")["authentication"]["type"] == "certificateAuthority"


def leaf_is_revoked(stage: Stage, leaf: Leaf) -> None:
    client = leaf.hub_client(stage.address)
    assert client.connect() == 0
    job = stage.ctl_json("revoke", "leaf-1", "--reason", "keyCompromise", "--yes")
    assert job["state"] == "done"
    assert len(job["result"]["revocations"]) == 2  # the present certificate, and the one before
    for revocation in job["result"]["revocations"]:
        assert all("done_at" in each for each in revocation["milestones"])
    assert all(each["revoked"] for each in minted(stage) if each["common_name"] == "leaf-1")
    assert identity(stage, "leaf-1")["status"] == "disabled"
    assert client.dropped.wait(5)
    client.close()
    assert leaf.hub_client(stage.address).connect() == 5
    with pytest.raises(EnrollmentFailed):
        leaf.reenroll()
    check_books(stage, "leaf-1")
