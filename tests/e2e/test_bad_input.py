"""What is wrong is refused in one sentence, and nothing was changed by it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import EstLeaf, check_books, ezca_calls, minted, show
from tests.support.softhsm import SPY


def test_an_unknown_key_in_the_configuration_starts_nothing(stage: Stage, tmp_path: Path) -> None:
    config = tmp_path / "gatewayd.toml"
    text = stage.config.read_text().replace(str(stage.state), str(tmp_path / "state"))
    config.write_text(text.replace("device_id =", "devise_id ="))
    command = [sys.executable, "-m", "gatewayd", "--config", str(config)]
    done = subprocess.run(command, env=stage.environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert "devise_id" in line
    assert "'device_id'" in line
    assert done.stdout == ""
    assert not (tmp_path / "state").exists()


def test_a_wrong_pin_is_tried_once_and_waits_for_a_person(tmp_path: Path) -> None:
    calls = tmp_path / "pkcs11-calls"
    with Stage(tmp_path / "stage") as stage:
        stage.init_token()
        right, stage.pin = stage.pin, "00000000"
        stage.config.write_text(stage.config.read_text().replace(stage.token.module, str(SPY)))
        stage.environment |= {"PKCS11SPY": stage.token.module, "PKCS11SPY_OUTPUT": str(calls)}
        stage.start_daemon()
        stage.wait_for("the token's refusal", lambda: token_state(stage) == "pin-refused")
        status = stage.ctl_json("status")
        assert [each["error"] for each in status["waiting"]] == ["PinRefused"]
        refused = stage.ctl("registrar", "certificate", check=False)
        assert refused.returncode == 77
        assert "PIN" in refused.stderr
        assert stage.ctl("device", "add", "leaf-1").returncode == 0  # the rest goes on
        assert calls.read_text(errors="replace").count("C_Login\n") == 1

        stage.pin = right
        assert stage.stop_daemon() == 0
        stage.start_daemon()
        stage.wait_for("the token", lambda: token_state(stage) == "ready")


def token_state(stage: Stage) -> str:
    return str(stage.ctl_json("status")["token"]["state"])


def other_name(leaf: EstLeaf) -> int:
    leaf.new_request("refused-9")
    return leaf.post()


def garbage(leaf: EstLeaf) -> int:
    leaf.body = b"bm90IGEgQ1NS"
    return leaf.post()


def too_much(leaf: EstLeaf) -> int:
    leaf.body = b"A" * 70_000
    return leaf.post()


REFUSED: dict[str, tuple[int, Callable[[EstLeaf], int]]] = {
    "a wrong code": (401, lambda leaf: leaf.post(code="0000-0000-0000-0000")),
    "no code": (401, lambda leaf: leaf.post(code="")),
    "an unknown device": (401, lambda leaf: leaf.post(user="refused-9")),
    "a revoked device": (401, lambda leaf: leaf.post(user="refused-2")),
    "re-enrolling with nothing to show": (401, lambda leaf: leaf.post("simplereenroll")),
    "another type of content": (415, lambda leaf: leaf.post(**{"Content-Type": "text/plain"})),
    "another CN": (403, other_name),
    "what is no CSR": (400, garbage),
    "70 kB": (413, too_much),
}


def test_refusals_over_est_issue_nothing_and_consume_nothing(stage: Stage) -> None:
    leaf, gone = EstLeaf(stage, "refused-1"), EstLeaf(stage, "refused-2")
    gone.ask_until_answered()
    stage.ctl("revoke", "refused-2", "--reason", "cessationOfOperation", "--yes")

    def everything() -> tuple[object, ...]:
        # The CA is looked at all the time; what counts is that nobody was registered and nothing asked for.
        asked = [call for call in ezca_calls(stage) if call.startswith(("Register", "Request", "simpleenroll"))]
        return stage.ctl_json("device", "list"), show(stage, "refused-1"), minted(stage), asked

    before = everything()
    for what, (status, ask) in REFUSED.items():
        leaf.new_request()
        assert ask(leaf) == status, what
        assert leaf.sentence.endswith(".\n"), what
        assert leaf.sentence.count("\n") == 1, what
    assert everything() == before

    leaf.new_request()
    leaf.ask_until_answered()  # the code has not been consumed
    assert leaf.post() == 200  # the same request, the same answer
    assert len(check_books(stage, "refused-1")["credentials"]) == 1
