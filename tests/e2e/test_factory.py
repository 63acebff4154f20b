"""A gateway that left the factory with a certificate: its own first one needs no person's token and no registrar."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gatewayd.lab.demo.stage import APPLICATION_OBJECT, OWNER, Stage
from tests.e2e.support import connected, minted

_CSR = """
import asyncio, os, sys
from pathlib import Path
from gatewayd.core.model import KeyAlgorithm, KeyRef, San
from gatewayd.keys import pin
from gatewayd.keys.token import Pkcs11KeyStore
from gatewayd.pki import csr, pem

async def main():
    module, fd, algorithm, *sans = sys.argv[1:]
    keys = Pkcs11KeyStore(Path(module), "pkcs11:token=gatewayd", pin.from_fd(int(fd)))
    await keys.open()
    ref = KeyRef(b"\\x01", KeyAlgorithm(algorithm))
    public_key = await keys.generate(ref.id, "factory", ref.algorithm)
    key = keys.private_key(ref, public_key)
    request = await asyncio.to_thread(csr.build, key, "gw-1", [San.parse(each) for each in sans])
    print(pem.encode_csr(request))
    await keys.close()

asyncio.run(main())
"""


def programming_station(stage: Stage, key_type: str, algorithm: str) -> str:
    """Make a key in the token and have EZCA issue a certificate for it, with a token of the factory's own; PEM."""
    stage.pkcs11_tool("--keypairgen", "--key-type", key_type, "--id", "01", "--label", "factory")
    command = [sys.executable, "-c", _CSR, stage.token.module]
    names = [f"dns:{stage.gateway_id}", f"ip:{stage.address}"]
    request = stage.with_pin(
        lambda fd: (
            subprocess.run(
                [*command, str(fd), algorithm, *names],
                env=stage.environment,
                pass_fds=(fd,),
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                timeout=30,
            ).stdout
        )
    )
    which = {"CAID": stage.lab.ready("ezca")["ca_id"], "TemplateID": stage.lab.ready("ezca")["template_id"]}
    owner, requester = (
        {"ObjectId": each, "FriendlyName": "plant", "ObjectType": "User", "isValid": True}
        for each in (OWNER, APPLICATION_OBJECT)
    )
    people = {"Owners": [owner], "Requesters": [requester], "RequestersOnly": [], "NotificationEmails": []}
    _ezca(stage, "RegisterNewDomain", which | people | {"Domain": stage.gateway_id})
    wanted = {
        "SubjectName": f"CN={stage.gateway_id}",
        "SubjectAltNames": [
            {"SubjectAltType": 2, "ValueSTR": stage.gateway_id},
            {"SubjectAltType": 7, "ValueSTR": stage.address},
        ],
        "CSR": request,
        "ValidityInDays": 10,
        "EKUs": ["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"],
        "KeyUsages": ["Digital Signature"],
        "SelectedLocation": "IoT Device",
    }
    return str(_ezca(stage, "RequestSSLCertificateV2", which | wanted)["CertificatePEM"])


def _ezca(stage: Stage, call: str, body: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {stage.person_token()}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{stage.lab.url('ezca')}/api/CA/{call}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, context=stage.lab.tls, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    ("key_type", "algorithm", "way"),
    [("EC:prime256v1", "ec-p256", "simpleenroll"), ("rsa:2048", "rsa-2048", "RenewCertificateV3")],
)
def test_bootstrap_from_a_factory_certificate(tmp_path: Path, key_type: str, algorithm: str, way: str) -> None:
    with Stage(tmp_path / "stage") as stage:
        stage.init_token()
        factory = programming_station(stage, key_type, algorithm)
        stage.create_gateway_identity()
        stage.start_daemon()
        (tmp_path / "other.pem").write_text(stage.lab.ca_root.read_text())
        refused = stage.ctl("bootstrap", "--certificate", str(tmp_path / "other.pem"), check=False)
        assert refused.returncode == 74  # the token holds no key for it
        assert "token" in refused.stderr
        (tmp_path / "factory.pem").write_text(factory)
        stage.ctl("bootstrap", "--certificate", str(tmp_path / "factory.pem"))
        assert minted(stage)[-1]["call"] == way
        device = stage.ctl_json("status")["gateway"]
        assert (device["state"], device["generation"], device["key_algorithm"]) == ("active", 1, "ec-p256")
        assert stage.wait_for("the link", lambda: connected(stage)) == device["serial"]
        assert stage.ctl_json("status")["est"]["listening"]
