"""The real daemon in 1970 and in 2099 (libfaketime), with a gateway and a leaf that have certificates of today.

The stand-ins keep the right time, as the cloud does. What must hold: nothing is concluded from a date, nothing is
asked of the CA, service goes on, the wait is visible, and all goes on by itself when the clock is right.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import EstLeaf, check_books, connected, ezca_calls, gateway, identity, show

RIGHT = "+0"
WRONG = {"behind": "@1970-01-02 03:04:05", "ahead": "@2099-01-02 03:04:05"}


class FakeTime:
    """What the daemon takes for the time of day; changed while it runs. The monotonic clocks stay the machine's."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "faketime"
        self.environment = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "TZ": "UTC",
        }
        self.set(RIGHT)

    def set(self, what: str) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{what}\n")
        fresh.replace(self._file)


def _library() -> str:
    (found,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return str(found)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    # The kernel's word is about the machine's clock, not about the one that the daemon is shown here.
    with gateway(tmp_path_factory.mktemp("clock") / "stage", more="[clock]\ntrust_kernel = false") as stage:
        yield stage


@pytest.mark.parametrize("state", ["behind", "ahead"])
def test_the_wrong_time(plant: Stage, state: str) -> None:
    stage = plant
    enrolled, waiting = EstLeaf(stage, f"{state}-1"), EstLeaf(stage, f"{state}-2")
    enrolled.ask_until_answered()
    before = show(stage, stage.gateway_id)["device"]
    time = FakeTime(stage.directory)
    time.set(WRONG[state])
    stage.stop_daemon()
    asked = len(ezca_calls(stage))
    stage.start_daemon(**time.environment)

    # It serves: the hub lets it in, and is judged as of the latest time that is certain; leaves reach the EST server.
    assert stage.wait_for("the link", lambda: connected(stage)) == before["serial"]
    url = f"https://{stage.address}:9443/.well-known/est/cacerts"
    assert urllib.request.urlopen(url, context=enrolled._context, timeout=10).status == 200
    status = stage.ctl_json("status")
    clock = status["clock"]
    assert (clock["sane"], clock["state"]) == (False, state)
    assert clock["system"][:4] in ("1970", "2099")
    assert clock["floor"][:4] == clock["now"][:4] == before["not_before"][:4]
    assert [each["error"] for each in status["waiting"]] == ["ClockWrong"]

    # Nothing is concluded, nothing begun.
    assert show(stage, stage.gateway_id)["device"] == before
    assert show(stage, enrolled.device_id)["device"]["state"] == "active"
    refused = stage.ctl("renew", check=False)
    assert refused.returncode == 75
    assert "gatewayctl clock trust" in refused.stderr
    assert stage.ctl("device", "code", waiting.device_id, check=False).returncode == 75
    assert waiting.post() == 503
    assert len(ezca_calls(stage)) == asked

    # What cannot wait is taken down: it comes true as soon as the CA and Entra believe us again.
    stage.ctl("revoke", enrolled.device_id, "--reason", "keyCompromise", "--yes", "--no-wait")
    assert show(stage, enrolled.device_id)["device"]["state"] == "revoked"

    time.set(RIGHT)
    stage.wait_for("the right time", lambda: stage.ctl_json("status")["clock"]["sane"] or None, within=60)
    assert stage.wait_for("the link", lambda: connected(stage), within=60) == before["serial"]
    waiting.ask_until_answered(within=60)
    stage.wait_for(
        "the revocation",
        lambda: not any(each["open"] for each in show(stage, enrolled.device_id)["revocations"]),
        within=60,
    )
    assert identity(stage, enrolled.device_id)["status"] == "disabled"
    check_books(stage, stage.gateway_id)
    check_books(stage, waiting.device_id)
