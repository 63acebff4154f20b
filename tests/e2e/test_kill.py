"""``kill -9`` of the daemon in the middle of a step: a restart finishes it, with one certificate in use and all of
those that the CA has minted on record."""

from __future__ import annotations

import pytest

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import EstLeaf, Held, check_books, connected, identity, meanwhile, show

BEFORE, AFTER = False, True


def kill_and_restart(stage: Stage) -> None:
    stage.kill_daemon()
    stage.start_daemon()


@pytest.mark.parametrize("moment", ["asked", "issued", "hub"])
def test_while_a_leaf_enrolls(stage: Stage, moment: str) -> None:
    leaf = EstLeaf(stage, f"enrolling-{moment}")
    held = Held(stage)
    if moment == "hub":
        held.hub("registry", f"PUT /devices/{leaf.device_id}")
    else:
        held.ezca("RequestSSLCertificateV2", done=moment == "issued")
    with meanwhile(leaf.post):
        held.wait()
        kill_and_restart(stage)
    certificate = leaf.ask_until_answered()
    assert check_books(stage, leaf.device_id)["device"]["serial"] == f"{certificate.serial_number:x}"
    assert identity(stage, leaf.device_id)["status"] == "enabled"


@pytest.mark.parametrize("done", [BEFORE, AFTER])
def test_while_a_leaf_renews(stage: Stage, done: bool) -> None:
    leaf = EstLeaf(stage, f"renewing-{done}")
    first = leaf.ask_until_answered()
    leaf.show_certificate(first)
    held = Held(stage).ezca("RequestSSLCertificateV2", done=done)
    with meanwhile(lambda: leaf.post("simplereenroll")):
        held.wait()
        kill_and_restart(stage)
    second = leaf.ask_until_answered("simplereenroll")
    assert second.serial_number != first.serial_number
    states = [each["state"] for each in check_books(stage, leaf.device_id)["credentials"]]
    assert states == ["current", "previous"]


@pytest.mark.parametrize("moment", ["asked", "issued", "hub"])
def test_while_the_gateway_renews(stage: Stage, moment: str) -> None:
    before = show(stage, stage.gateway_id)["device"]
    held = Held(stage)
    if moment == "hub":
        held.hub("mqtt", f"CONNECT {stage.gateway_id}")
    else:
        held.ezca("simpleenroll", done=moment == "issued")
    stage.ctl("renew", "--no-wait")
    held.wait()
    kill_and_restart(stage)
    serial = stage.wait_for(
        "the link with the new certificate", lambda: ((now := connected(stage)) != before["serial"] and now) or None
    )
    after = check_books(stage, stage.gateway_id)["device"]
    assert (after["serial"], after["generation"]) == (serial, before["generation"] + 1)


@pytest.mark.parametrize("moment", ["asked", "revoked", "hub"])
def test_while_a_device_is_revoked(stage: Stage, moment: str) -> None:
    leaf = EstLeaf(stage, f"revoked-{moment}")
    leaf.ask_until_answered()
    held = Held(stage)
    if moment == "hub":
        held.hub("registry", f"PUT /devices/{leaf.device_id}")
    else:
        held.ezca("RevokeCertificateV2", done=moment == "revoked")
    stage.ctl("revoke", leaf.device_id, "--reason", "keyCompromise", "--yes", "--no-wait")
    held.wait()
    kill_and_restart(stage)

    def closed() -> bool:
        (revocation,) = show(stage, leaf.device_id)["revocations"]
        return not revocation["open"]

    stage.wait_for("every milestone", lambda: closed() or None)
    assert identity(stage, leaf.device_id)["status"] == "disabled"
    assert leaf.post() in (401, 403)
    check_books(stage, leaf.device_id)
