"""A gateway whose CA is asked over EST alone: against the stand-in's EST server, which knows only holders. And what it
does for other services of its machine after a renewal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from gatewayd.lab.demo.leaf import Leaf
from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import check_books, connected, ezca_calls, gateway, show

PLANT = "/.well-known/est/plant"
REST = {"RequestSSLCertificateV2", "RenewCertificateV3", "simpleenroll", "GetMyCertificatesV2Paginated"}


def over_est(stage: Stage) -> None:
    url = stage.lab.ready("ezca")["est_url"]
    tables = f'[issuer]\nkind = "est"\n\n[est_issuer]\nurl = "{url}"\nreenroll = false\n'
    tables += f'[[hooks]]\nname = "local"\ncertificate = "{stage.directory}/own.pem"\ncommand = ["true"]\n'
    stage.config.write_text(stage.config.read_text() + tables)


def test_the_gateway_renews_over_est_and_local_services_get_its_certificate(tmp_path: Path) -> None:
    with gateway(tmp_path / "stage") as stage:
        before = show(stage, stage.gateway_id)["device"]
        over_est(stage)
        stage.stop_daemon()
        stage.start_daemon()
        stage.wait_for("the link", lambda: connected(stage))
        asked = len(ezca_calls(stage))
        stage.ctl("renew")
        after = check_books(stage, stage.gateway_id)["device"]
        assert after["generation"] == before["generation"] + 1
        assert connected(stage) == after["serial"]
        assert set(ezca_calls(stage)[asked:]) == {"simpleenroll"}
        assert stage.ctl_json("status")["issuer"]["name"] == "est"
        stage.wait_for("the hook", lambda: serial_in(stage.directory / "own.pem") == after["serial"] or None)
        stage.wait_for("its end", lambda: stage.ctl_json("status")["hooks"][0]["state"] == "done" or None)


def plant_over_est(stage: Stage) -> str:
    """Its EST server takes gateways for registration authorities."""
    url = str(stage.lab.ready("ezca")["est_url"]).partition("/EST/")[0] + PLANT
    stage.config.write_text(stage.config.read_text() + f'[issuer]\nkind = "est"\n\n[est_issuer]\nurl = "{url}"\n')
    return url


def later(stage: Stage, call: str) -> None:
    """The CA takes its time with the next ``call``."""
    stage.lab.post("ezca", "/lab/faults", {"call": call, "mode": "202", "retry_after": 1})


def test_leaves_and_their_gateway_live_by_a_ca_that_is_asked_over_est_alone(tmp_path: Path) -> None:
    with gateway(tmp_path / "stage") as stage:
        plant_over_est(stage)
        stage.stop_daemon()
        stage.start_daemon()
        stage.wait_for("the link", lambda: connected(stage))
        asked = len(ezca_calls(stage))
        added = stage.ctl_json("device", "add", "leaf-1")
        leaf = Leaf(stage.directory / "leaf-1", "leaf-1", added["est_url"], stage.lab.web_root, stage.environment)
        leaf.make_key()
        leaf.fetch_anchors(stage.lab.ca_root)
        later(stage, "plant.simpleenroll")
        first = leaf.enroll(added["code"])
        over = first.not_valid_before_utc + timedelta(seconds=1)  # or the next one would end with it
        stage.wait_for("the next second", lambda: datetime.now(UTC) >= over or None)
        second = leaf.reenroll()
        assert first.serial_number != second.serial_number
        assert leaf.hub_client(stage.address).connect() == 0
        later(stage, "plant.simplereenroll")
        stage.ctl("renew", check=False)  # the CA is at work: the command says so and the daemon goes on
        stage.wait_for("the renewal", lambda: show(stage, stage.gateway_id)["device"]["generation"] == 2 or None)
        calls = ezca_calls(stage)[asked:]
        assert calls.count("plant.simpleenroll") == 3
        assert calls.count("plant.simplereenroll") == 2
        assert not {each for each in calls if each not in ("plant.simpleenroll", "plant.simplereenroll")} & REST
        check_books(stage, "leaf-1")
        check_books(stage, stage.gateway_id)


def serial_in(file: Path) -> str:
    return f"{x509.load_pem_x509_certificates(file.read_bytes())[0].serial_number:x}"
