"""The technician's page on the whole plant, without a screen. (With one: make test-page.)"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import show
from tests.e2e.test_replacement import ACCEPTED, REFUSED, connack, hardware, in_service
from tests.support.page_client import Browser, Seen


def test_a_swap_on_the_page(stage: Stage) -> None:
    old = in_service(stage, "leaf-20")
    opened = stage.ctl_json("page", "open", "--for", "10m")
    browser = Browser(opened["url"], stage.lab.ca_root)
    devices = browser.open(opened["url"])
    ask = browser.get(browser.get(devices.links["leaf-20"]).links["Replace its hardware"])
    scan = browser.submit(ask.forms["/replace"], reason="superseded")
    assert "let it scan this code" in scan.text

    url, device_id, code = scan.codes
    new = hardware(stage, unquote(device_id), "new")
    assert urlsplit(url).netloc == urlsplit(new.est_url).netloc
    new.enroll(code)

    def done() -> Seen | None:
        seen = browser.get("/device?id=leaf-20")
        return seen if "Done. The new hardware is in service." in seen.text else None

    assert "5 of 5 steps done." in stage.wait_for("the last step", done).text
    assert connack(stage, new) == ACCEPTED
    assert connack(stage, old) == REFUSED
    who = {each["what"]: each["who"] for each in show(stage, "leaf-20")["history"]}
    assert who["replacement"] == f"page:{opened['session']}"
    whose = {each["what"]: each["who"] for each in show(stage, stage.gateway_id)["history"]}
    assert whose["page entered"] == f"page:{opened['session']}"
    for secret in (opened["url"].rpartition("/")[2], browser.cookie.partition("=")[2], code):
        assert secret not in stage.log_text()
        assert secret.encode() not in (stage.state / "gatewayd.db").read_bytes()


def test_a_session_outlives_the_daemon_and_ends_when_it_is_closed(stage: Stage) -> None:
    opened = stage.ctl_json("page", "open")
    browser = Browser(opened["url"], stage.lab.ca_root)
    browser.open(opened["url"])
    stage.kill_daemon()
    stage.start_daemon()
    stage.wait_for("the page", lambda: stage.ctl("page", "open", check=False).returncode == 0)
    assert browser.get("/").status == 200
    assert stage.ctl_json("page", "close")["ended"] >= 1
    assert browser.get("/").status == 401
