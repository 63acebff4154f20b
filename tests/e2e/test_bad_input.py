"""What is wrong is refused in one sentence, and nothing was changed by it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import EstLeaf, Json, check_books, ezca_calls, minted, show
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
        status = stage.ctl_json("status")
        assert status["token"]["state"] == "pin-refused"
        assert [each["error"] for each in status["waiting"]] == ["PinRefused"]
        refused = stage.ctl("registrar", "certificate", check=False)
        assert refused.returncode == 77
        assert "PIN" in refused.stderr
        assert stage.ctl("device", "add", "leaf-1").returncode == 0  # the rest goes on
        assert calls.read_text(errors="replace").count("C_Login\n") == 1

        stage.pin = right
        assert stage.stop_daemon() == 0
        stage.start_daemon()
        assert stage.ctl_json("status")["token"]["state"] == "ready"


@pytest.fixture(scope="module")
def leaf(stage: Stage) -> EstLeaf:
    leaf = EstLeaf(stage, "refused-1")
    gone = EstLeaf(stage, "refused-2")
    gone.ask_until_answered()
    stage.ctl("revoke", "refused-2", "--yes")
    return leaf


def other_name(leaf: EstLeaf) -> int:
    leaf.new_request("refused-9")
    return leaf.post()


def garbage(leaf: EstLeaf) -> int:
    leaf.body = b"bm90IGEgQ1NS"
    return leaf.post()


def too_much(leaf: EstLeaf) -> int:
    leaf.body = b"A" * 70_000
    return leaf.post()


REFUSED: list[tuple[str, int, Callable[[EstLeaf], int]]] = [
    ("a wrong code", 401, lambda leaf: leaf.post(code="0000-0000-0000-0000")),
    ("no code", 401, lambda leaf: leaf.post(code="")),
    ("an unknown device", 401, lambda leaf: leaf.post(user="refused-9")),
    ("a revoked device", 401, lambda leaf: leaf.post(user="refused-2")),
    ("re-enrolling with a code", 401, lambda leaf: leaf.post("simplereenroll")),
    ("another type of content", 415, lambda leaf: leaf.post(**{"Content-Type": "text/plain"})),
    ("another CN", 403, other_name),
    ("what is no CSR", 400, garbage),
    ("70 kB", 413, too_much),
]


def everything(stage: Stage) -> tuple[object, ...]:
    """What a refusal must not change."""
    shown: list[Json] = [show(stage, each["device_id"]) for each in stage.ctl_json("device", "list")]
    return shown, minted(stage), ezca_calls(stage), stage.token_objects()


@pytest.mark.parametrize(("status", "ask"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_refusal_over_est_issues_nothing_and_consumes_nothing(
    stage: Stage, leaf: EstLeaf, status: int, ask: Callable[[EstLeaf], int]
) -> None:
    leaf.new_request()
    before = everything(stage)
    assert ask(leaf) == status
    assert leaf.sentence.endswith(".\n")
    assert leaf.sentence.count("\n") == 1
    assert everything(stage) == before


def test_and_the_code_works_afterwards(stage: Stage, leaf: EstLeaf) -> None:
    leaf.new_request()
    leaf.ask_until_answered()
    assert leaf.post() == 200  # the same request, the same answer
    assert len(show(stage, "refused-1")["credentials"]) == 1
    check_books(stage)
