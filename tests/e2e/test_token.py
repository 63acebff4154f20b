"""The token, as an administrator meets it: no PIN, a wrong one, the right one; a token made by the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gatewayd.lab.demo.stage import Stage
from gatewayd.lab.demo.tokens import SoftHsm
from tests.support.softhsm import MODULE, SPY

REGISTRAR_TOKEN = f"""
[registrar_token]
module = "{MODULE}"
uri = "pkcs11:token=registrar"
"""


class SpiedToken(SoftHsm):
    """SoftHSM through OpenSC's pkcs11-spy, which writes down each call."""

    module = str(SPY)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._log = directory / "calls.log"

    def start(self) -> Mapping[str, str]:
        return {**super().start(), "PKCS11SPY": str(MODULE), "PKCS11SPY_OUTPUT": str(self._log)}

    @property
    def logins(self) -> int:
        return self._log.read_text(errors="replace").count("C_Login\n") if self._log.exists() else 0


@pytest.fixture
def token(tmp_path: Path) -> SpiedToken:
    return SpiedToken(tmp_path / "stage")


@pytest.fixture
def stage(tmp_path: Path, token: SpiedToken) -> Iterator[Stage]:
    with Stage(tmp_path / "stage", token=lambda _: token) as stage:
        yield stage


def test_a_wrong_pin_costs_one_try_and_the_right_one_mends_all(stage: Stage, token: SpiedToken) -> None:
    stage.init_token()
    before = token.logins
    right, stage.pin = stage.pin, "certainly-wrong"
    stage.start_daemon()

    def spent() -> int:
        return token.logins - before

    status = stage.wait_for("the refusal", lambda: _in_state(stage, "pin-refused"))
    assert spent() == 1
    assert status["token"]["pin_tries"] == "fewer"
    (waiting,) = [each for each in status["waiting"] if each["error"] == "PinRefused"]
    assert waiting["what"].startswith("PIN refused: The token 'gatewayd' refused the PIN")
    assert "gatewayctl token unlock" in waiting["remedy"]
    assert "PIN refused" in stage.ctl("status").stdout

    # Whatever is asked of it, it does not try again.
    for command in (("registrar", "certificate"), ("token", "objects")):
        assert stage.ctl(*command, check=False).returncode == 77
    assert spent() == 1

    refused = stage.ctl("token", "unlock", "--json", stdin="wrong-again\n", check=False)
    assert (refused.returncode, json.loads(refused.stdout)["error"]) == (77, "PinRefused")
    assert spent() == 2
    unlocked = stage.ctl("token", "unlock", stdin=f"{right}\n").stdout
    assert "ready" in unlocked
    assert spent() == 3
    stage.wait_for("the token", lambda: _in_state(stage, "ready"))
    assert "BEGIN CERTIFICATE" in stage.ctl("registrar", "certificate").stdout
    history = [(each["what"], each["outcome"]) for each in stage.ctl_json("device", "show", "gw-1")["history"]]
    assert history.count(("token unlocked", "failed")) == 1
    assert history.count(("token unlocked", "done")) == 1
    for file in (stage.log_text(), json.dumps(stage.ctl_json("status"))):
        for pin in (right, "certainly-wrong", "wrong-again"):
            assert pin not in file


def test_tokens_are_made_by_the_daemon_and_their_keys_have_names(stage: Stage, token: SpiedToken) -> None:
    with stage.config.open("a", encoding="utf-8") as config:
        config.write(REGISTRAR_TOKEN)
    stage.start_daemon()
    stage.wait_for("the want of a token", lambda: _in_state(stage, "absent"))
    assert stage.ctl_json("token", "init", stdin="pin-of-the-gateway\n")["state"] == "ready"
    again = stage.ctl("token", "init", "--json", stdin="another-pin\n", check=False)
    assert json.loads(again.stdout)["error"] == "TokenExists"
    (waiting,) = [each for each in stage.ctl_json("status")["waiting"] if each["error"] == "PinMissing"]
    assert "gatewayctl token unlock" in waiting["remedy"]
    made = stage.ctl_json("token", "init", "--token", "registrar", stdin="pin-of-the-registrar\n")
    assert (made["state"], made["label"]) == ("ready", "registrar")

    stage.upload_registrar_certificate()
    stage.bootstrap()
    stage.pin = "pin-of-the-gateway"
    stage.pkcs11_tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "somebody's", "--id", "99")
    shown = stage.ctl_json("token", "objects")
    roles = {(each["token"], each["label"]): each["role"] for each in shown["objects"]}
    assert roles == {
        ("gatewayd", "gatewayd gw-1 1"): "live",
        ("gatewayd", "somebody's"): "foreign",
        ("registrar", "gatewayd registrar gw-1"): "registrar",
    }
    assert shown["missing"] == []
    assert {"rsa-2048", "ec-p256"} <= set(stage.ctl_json("token", "status")["registrar_token"]["algorithms"])
    stage.pkcs11_tool("--delete-object", "--type", "privkey", "--label", "gatewayd gw-1 1")
    stage.pkcs11_tool("--delete-object", "--type", "pubkey", "--label", "gatewayd gw-1 1")
    (missing,) = stage.ctl_json("token", "objects")["missing"]
    assert missing["role"] == "live"


def _in_state(stage: Stage, state: str) -> dict[str, Any] | None:
    status: dict[str, Any] = stage.ctl_json("status")
    return status if status["token"]["state"] == state else None
