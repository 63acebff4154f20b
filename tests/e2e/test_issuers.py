"""A gateway whose CA is asked over EST alone: against the stand-in's EST server, which knows only holders."""

from __future__ import annotations

from pathlib import Path

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import check_books, connected, ezca_calls, gateway, show


def over_est(stage: Stage) -> None:
    url = stage.lab.ready("ezca")["est_url"]
    tables = f'[issuer]\nkind = "est"\n\n[est_issuer]\nurl = "{url}"\nreenroll = false\n'
    stage.config.write_text(stage.config.read_text() + tables)


def test_the_gateway_renews_over_est_and_a_revocation_there_is_seen_in_the_crl(tmp_path: Path) -> None:
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
