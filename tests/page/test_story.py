"""The technician's story on a phone of 390 by 844: from the link to a connected new leaf."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gatewayd.lab.demo.leaf import Leaf
from gatewayd.lab.demo.stage import Stage
from tests.e2e.test_replacement import ACCEPTED, REFUSED, connack, in_service
from tests.page.chromium import Chromium

LOOKS = (Path(__file__).parent / "looks.js").read_text()
Picture = Callable[[str], None]


def enter(stage: Stage, phone: Chromium) -> None:
    phone.go(stage.ctl_json("page", "open")["url"])
    looks_well(phone)
    phone.tap("button", "Start")
    phone.until("Which device?")


def looks_well(phone: Chromium) -> None:
    assert phone.evaluate(LOOKS) == []
    nameless = [
        role for role, name, _ in phone.nodes() if role in ("button", "link", "searchbox", "radio") and not name.strip()
    ]
    assert nameless == []


def scan(phone: Chromium, directory: Path) -> str:
    """What a camera reads off the phone's screen."""
    phone.box(phone.find("image", "QR code"))
    picture = directory / "screen.png"
    picture.write_bytes(phone.screenshot())
    command = ["zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", str(picture)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def hardware(stage: Stage, scanned: str) -> tuple[Leaf, str]:
    """New hardware that knows what it has scanned, and which CA to trust."""
    parts = urlsplit(scanned)
    assert parts.username is not None
    assert parts.password is not None
    device_id, url = unquote(parts.username), f"https://{parts.hostname}:{parts.port}"
    leaf = Leaf(stage.directory / f"{device_id}-new", device_id, url, stage.lab.web_root, stage.environment)
    leaf.make_key()
    leaf.fetch_anchors(stage.lab.ca_root)
    return leaf, parts.password


def test_the_story(stage: Stage, phone: Chromium, picture: Picture, tmp_path: Path) -> None:
    for name in ("fan-1", "fan-2", "pump-1", "pump-3", "valve-4"):
        stage.ctl("device", "add", name)
    old = in_service(stage, "pump-2")

    enter(stage, phone)
    looks_well(phone)
    picture("1-devices")
    phone.tap("searchbox", "A part of its name")
    phone.type("pump")
    phone.tap("button", "Find")
    phone.until("3 devices")
    looks_well(phone)
    phone.tap("link", "pump-2")
    phone.until("In service")
    looks_well(phone)
    phone.tap("link", "Replace its hardware")
    phone.until("What is the matter with the old one?")
    looks_well(phone)
    picture("2-replace")
    phone.tap("radio", "It was stolen or lost")
    phone.tap("button", "Lock the old one out")
    phone.until("3 of 5 steps done.")
    looks_well(phone)
    picture("3-scan")

    leaf, code = hardware(stage, scan(phone, tmp_path))
    phone.evaluate("window.here = true")
    leaf.enroll(code)
    phone.until("Done. The new hardware is in service.")
    assert phone.evaluate("window.here"), "the steps come without a reload"
    assert "5 of 5 steps done." in phone.text()
    looks_well(phone)
    phone.evaluate("scrollTo(0, 0)")
    picture("4-done")
    assert connack(stage, leaf) == ACCEPTED
    assert connack(stage, old) == REFUSED
    (reason,) = {each["reason"] for each in stage.ctl_json("device", "show", "pump-2")["revocations"]}
    assert reason == "keyCompromise"


def test_with_a_keyboard_alone_and_without_javascript(stage: Stage, phone: Chromium, tmp_path: Path) -> None:
    in_service(stage, "pump-6")
    phone.call("Emulation.setScriptExecutionDisabled", value=True)
    phone.go(stage.ctl_json("page", "open")["url"])

    def press_on(what: str) -> None:
        """Tab to it, and Enter."""
        for _ in range(30):
            phone.press("Tab")
            if phone.evaluate("document.activeElement.innerText").startswith(what):
                phone.press("Enter")
                return
        raise AssertionError(f"Tab does not lead to {what}")

    press_on("Start")
    phone.until("Which device?")
    press_on("pump-6")
    phone.until("In service")
    press_on("Replace its hardware")
    phone.until("What is the matter with the old one?")
    press_on("Lock the old one out")
    phone.until("3 of 5 steps done.")
    leaf, code = hardware(stage, scan(phone, tmp_path))
    leaf.enroll(code)
    phone.until("Done. The new hardware is in service.", within=30)


def test_the_phone_says_so_when_the_gateway_is_gone(stage: Stage, phone: Chromium) -> None:
    in_service(stage, "pump-7")
    enter(stage, phone)
    phone.tap("link", "pump-7")
    phone.tap("link", "Replace its hardware")
    phone.tap("button", "Lock the old one out")
    phone.until("3 of 5 steps done.")
    stage.kill_daemon()
    phone.until("The gateway does not answer.")
    stage.start_daemon()
    phone.until("The code is shown only on the phone that made it", within=30)
    phone.tap("button", "Show a new code")
    phone.find("image", "QR code")


def test_the_reason_when_a_step_does_not_turn_green(stage: Stage, phone: Chromium, picture: Picture) -> None:
    in_service(stage, "pump-5")
    stage.lab.post("ezca", "/lab/faults", {"call": "RevokeCertificateV2", "mode": "503", "times": None})
    enter(stage, phone)
    phone.tap("link", "pump-5")
    phone.tap("link", "Replace its hardware")
    phone.tap("button", "Lock the old one out")
    phone.until("Not yet: Old hardware locked out")
    looks_well(phone)
    picture("5-trouble")
    phone.tap("link", "Give up")
    phone.until("Give up the replacement of pump-5?")
    looks_well(phone)
    stage.lab.delete("ezca", "/lab/faults")
    phone.tap("button", "Give up")
    phone.until("The device stays locked out")
    looks_well(phone)
