"""The gateway itself fails: new hardware takes its place, and the old one stays dead."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gatewayd.lab.demo.leaf import Leaf
from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import Held, connected, gateway, identity, minted, show
from tests.e2e.test_replacement import ACCEPTED, REFUSED, connack, hardware, in_service, reaches, replace
from tests.integration.lab_hub.clients import Device, credential

JSON_BAG = "$.ct=application%2Fjson&$.ce=utf-8"


@contextmanager
def new_hardware(directory: Path, old: Stage, upstream: str = 'way = "registry"') -> Iterator[Stage]:
    """In the place of the old one, which is switched off: the same id and address, a token and a state of its own."""
    with Stage(directory, lab=old.lab, upstream=upstream) as new:
        anchors_file = directory / "anchors.pem"
        cloud = old.lab.directory
        anchors_file.write_text((cloud / "ca-root.pem").read_text() + (cloud / "ca-issuing.pem").read_text())
        anchors = f'[trust]\nissuer_anchors = "{anchors_file}"'
        new.config.write_text(new.config.read_text().replace("[trust]", anchors))
        new.init_token()
        new.start_daemon()
        new.upload_registrar_certificate()
        yield new


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Stage]:
    with gateway(tmp_path / "old") as stage:
        yield stage


@pytest.fixture
def take(tmp_path: Path, old: Stage) -> Iterator[Callable[[], Stage]]:
    with ExitStack() as stack:

        def switch_over() -> Stage:
            old.stop_daemon()
            return stack.enter_context(new_hardware(tmp_path / "new", old))

        yield switch_over


def adopt(new: Stage, file: Path, *more: str, check: bool = True) -> Any:
    return new.ctl("adopt", str(file), "--yes", "--token-file", "-", *more, stdin=new.person_token(), check=check)


def moved(leaf: Leaf, new: Stage) -> Leaf:
    """It enrolls at the same URL; only the test's own handle is another one. As soon as it is known what was revoked
    since the export."""
    new.wait_for("what was revoked since", lambda: "RestoreUnproven" not in new.ctl("status", "--json").stdout or None)
    leaf.est_url = new.ctl_json("status")["est"]["url"]
    return leaf


def connections(stage: Stage) -> list[dict[str, Any]]:
    history = stage.lab.get("hub", "/lab/connections")["history"]
    return [each for each in history if each["deviceId"] == stage.gateway_id]


def test_new_hardware_takes_the_gateways_place(old: Stage, take: Callable[[], Stage], tmp_path: Path) -> None:
    plain, lost = in_service(old, "leaf-1"), in_service(old, "leaf-2")
    swapped_old = in_service(old, "leaf-3")
    swapped = hardware(old, "leaf-3", "new")
    swapped.enroll(replace(old, "leaf-3"))
    reaches(old, "leaf-3", "pinned")
    old_serial = connected(old)
    file = tmp_path / "gateway.export"
    # A revocation that is still open: the CA does not answer.
    old.lab.post("ezca", "/lab/faults", {"call": "RevokeCertificateV2", "mode": "reset", "times": 1000})
    old.ctl("revoke", "leaf-2", "--reason", "keyCompromise", "--yes", "--no-wait")
    old.wait_for("the disabled leaf", lambda: show(old, "leaf-2")["device"]["hub_state"] == "disabled" or None)
    old.ctl("export", str(file))
    assert "PRIVATE" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert any(each["open"] for each in show(old, "leaf-2")["revocations"])

    header, payload, signature = file.read_text().strip().split(".")
    forged = tmp_path / "forged.export"
    forged.write_text(f"{header}.{payload[:-8]}{payload[-4:]}{payload[-8:-4]}.{signature}")
    assert "has devices" in old.ctl("adopt", str(file), "--yes", check=False).stderr

    new = take()
    old.lab.delete("ezca", "/lab/faults")
    refused = adopt(new, forged, check=False)
    assert refused.returncode == 65
    assert "not an export signed by gw-1" in refused.stderr
    assert show(new, "gw-1")["credentials"] == []
    assert identity(new, "gw-1")["status"] == "enabled"
    printed = adopt(new, file).stdout
    assert "id enabled in the hub, for the new certificate alone" in printed
    serial = new.wait_for("the link", lambda: connected(new))
    assert serial != old_serial
    own = show(new, "gw-1")
    assert own["device"]["state"] == "active"
    hub = identity(new, "gw-1")
    assert hub["status"] == "enabled"
    assert hub["capabilities"]["iotEdge"] is True
    assert hub["authentication"]["type"] == "selfSigned"
    assert set(hub["authentication"]["x509Thumbprint"].values()) == {own["device"]["thumbprint"]}

    new.wait_for("the end of the old revocations", lambda: all_closed(new))
    assert next(each for each in own["credentials"] if each.get("serial") == old_serial)["state"] == "revoked"

    moved(plain, new).reenroll()
    assert connack(new, plain) == ACCEPTED
    assert connack(new, lost) == REFUSED
    moved(swapped, new).reenroll()
    assert connack(new, swapped) == ACCEPTED
    assert connack(new, swapped_old) == REFUSED

    new.ctl("renew")
    new.wait_for("the link", lambda: connected(new) not in (serial, None))
    serial = connected(new) or ""
    pinned = set(identity(new, "gw-1")["authentication"]["x509Thumbprint"].values())
    assert pinned == {own["device"]["thumbprint"], show(new, "gw-1")["device"]["thumbprint"]}

    old.start_daemon()  # somebody switches the old hardware on again
    old.wait_for("the hub's answer", lambda: old.ctl_json("status")["hub"]["state"] == "refused" or None)
    assert connections(old)[-1]["code"] == REFUSED
    assert connected(new) == serial
    assert identity(new, "gw-1")["status"] == "enabled"
    assert json.loads(new.ctl("audit", "verify", "--json").stdout)["intact"]


@pytest.mark.parametrize("moment", ["issued", "pinned"])
def test_kill_9_in_the_middle(old: Stage, take: Callable[[], Stage], tmp_path: Path, moment: str) -> None:
    leaf = in_service(old, "leaf-1")
    file = tmp_path / "gateway.export"
    old.ctl("export", str(file))
    new = take()
    held = Held(new)
    if moment == "pinned":
        held.hub("registry", "PUT /devices/gw-1")
    else:
        held.ezca("RequestSSLCertificateV2", done=True)
    adopt(new, file, "--no-wait")
    held.wait()
    new.kill_daemon()
    new.start_daemon()
    new.wait_for("the link", lambda: connected(new), within=60)
    assert show(new, "gw-1")["device"]["state"] == "active"
    assert identity(new, "gw-1")["authentication"]["type"] == "selfSigned"
    moved(leaf, new).reenroll()
    assert connack(new, leaf) == ACCEPTED


def test_without_rights_on_the_hub_the_new_hardware_asks_and_the_old_asks_in_vain(tmp_path: Path) -> None:
    """Way ``report``: both are the same device to the hub, and it is the CA that tells them apart."""
    upstream = 'way = "report"\ndeadline = 3'
    with gateway(tmp_path / "old", upstream=upstream) as old:
        leaf = in_service(old, "leaf-1")
        file = tmp_path / "gateway.export"
        old.ctl("export", str(file))
        old_serial = connected(old)
        old.ctl("renew")  # which the export does not know of
        old.wait_for("the link", lambda: connected(old) not in (old_serial, None))
        old.stop_daemon()
        (certificate,) = (each for each in minted(old) if each["serial"] == old_serial)
        old.lab.post("ezca", "/lab/revoke", {"serial": old_serial, "reason": "superseded"})
        ask_for_own_pin(old, certificate["pem"])
        with new_hardware(tmp_path / "new", old, upstream) as new:
            printed = adopt(new, file).stdout
            assert "id enabled in the hub, for the new certificate alone" in printed
            new.wait_for("the link", lambda: connected(new))
            hub = identity(new, "gw-1")
            assert hub["status"] == "enabled"
            thumbprint = show(new, "gw-1")["device"]["thumbprint"]
            assert set(hub["authentication"]["x509Thumbprint"].values()) == {thumbprint}

            new.wait_for("the end of the old revocations", lambda: all_closed(new))
            for revocation in show(new, "gw-1")["revocations"]:
                proof = {each["name"]: each["evidence"] for each in revocation["milestones"]}
                assert proof["verified"].startswith("responder read back: pinned to another certificate")
            alive = [each for each in minted(new) if each["common_name"] == "gw-1" and not each["revoked"]]
            assert [each["thumbprint_sha256"] for each in alive] == [thumbprint]
            moved(leaf, new).reenroll()
            assert connack(new, leaf) == ACCEPTED

            serial = connected(new)
            new.ctl("renew")
            new.wait_for("the link", lambda: connected(new) not in (serial, None))
            pins = set(identity(new, "gw-1")["authentication"]["x509Thumbprint"].values())
            assert pins == {thumbprint, show(new, "gw-1")["device"]["thumbprint"]}

            old.start_daemon()
            old.wait_for("the hub's answer", lambda: old.ctl_json("status")["hub"]["state"] == "refused" or None)
            assert connections(old)[-1]["code"] == REFUSED


def said(stage: Stage, why: str) -> bool:
    return f"by gw-1: refused: {why}" in stage.log_text("responder")


def all_closed(stage: Stage) -> bool | None:
    return not any(each["open"] for each in stage.ctl_json("status")["revocations"]) or None


def ask_for_own_pin(stage: Stage, revoked: str) -> None:
    """As whoever has the old hardware: in CA mode it still gets into the hub, whatever the CA says of it. It may bring
    its own certificate, or a sister of it that nobody has revoked, but that is older."""
    old = x509.load_pem_x509_certificate(revoked.encode())
    sister = credential(stage.lab, "gw-1")
    etag = identity(stage, "gw-1")["etag"]
    replaced = [base64.b64encode(old.public_bytes(Encoding.DER)).decode()]
    with Device(stage.lab, "gw-1", sister) as thief:
        assert thief.connect() == ACCEPTED
        for brought in (old, sister.certificate):
            der = brought.public_bytes(Encoding.DER)
            body = {
                "type": "pin",
                "deviceId": "gw-1",
                "serial": f"{brought.serial_number:x}",
                "certificate": base64.b64encode(der).decode(),
                "replaced": replaced,
                "thumbprints": [hashlib.sha256(der).hexdigest()] * 2,
                "enable": True,
                "etag": etag,
            }
            thief.publish(f"devices/gw-1/messages/events/{JSON_BAG}&type=pin", json.dumps(body))
    for why in ("the CA has revoked its certificate", "its certificate is older than"):
        stage.wait_for("the refusal", partial(said, stage, why))
    assert identity(stage, "gw-1")["authentication"]["type"] == "certificateAuthority"
    assert identity(stage, "gw-1")["etag"] == etag
