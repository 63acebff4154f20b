"""A gateway whose CA is asked over EST alone: against the stand-in's EST server, which knows only holders. And what it
does for other services of its machine after a renewal."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import check_books, connected, ezca_calls, gateway, show


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


def serial_in(file: Path) -> str:
    return f"{x509.load_pem_x509_certificates(file.read_bytes())[0].serial_number:x}"
