"""gatewayctl doctor as its users run it: with a daemon, without one, and with a configuration that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd.core.doctor import Area
from tests.support.bus import Bus
from tests.support.control_daemon import Daemon


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gatewayd.toml"
    file.write_text(
        f"""
[gateway]
device_id = "gw-1"
state_directory = "{tmp_path / "state"}"
[hub]
host = "127.0.0.1"
[issuer]
kind = "est"
[est_issuer]
url = "https://127.0.0.1:1/.well-known/est"
"""
    )
    return file


@pytest.fixture
def daemon(bus: Bus) -> Iterator[Daemon]:
    with Daemon(bus.address) as running:
        yield running


def doctor(bus: Bus, *arguments: str, powerless: bool = False) -> tuple[int, str, str]:
    """``powerless``: without root's right to read all files."""
    command = [sys.executable, "-m", "gatewayd.control", "doctor", *arguments]
    if powerless and os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    environment = {**os.environ, "GATEWAYD_BUS": bus.address}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def findings(out: str) -> dict[tuple[str, str], Any]:
    return {(each["area"], each["check"]): each for each in json.loads(out)["findings"]}


def test_with_a_daemon_its_word_counts(bus: Bus, daemon: Daemon, config: Path) -> None:
    code, out, err = doctor(bus, "--config", str(config), "--json")
    found = findings(out)
    assert (code, err) == (0, "")
    assert json.loads(out)["exit_status"] == 0
    assert found["token", "token"]["seen_by"] == "gatewayd"
    assert found["configuration", "file"]["seen_by"] == "gatewayctl"
    assert ("ca", "the CA") not in found  # the daemon says that, and this one did not
    code, out, _ = doctor(bus, "--config", str(config))
    assert code == 0
    assert "✓ token         token: It works." in out


def test_a_daemon_that_cannot_say_is_a_problem(bus: Bus, daemon: Daemon, config: Path) -> None:
    daemon.tell("fail StoreBroken")
    code, out, _ = doctor(bus, "--config", str(config), "--json")
    assert code == Area.DAEMON.exit_code
    assert findings(out)["daemon", "daemon"]["what"] == "gatewayd does not say: the CA said no."


def test_without_a_daemon_it_looks_itself_and_says_what_it_cannot_see(bus: Bus, config: Path) -> None:
    code, out, err = doctor(bus, "--config", str(config), "--json")
    found = findings(out)
    assert code == Area.DAEMON.exit_code == json.loads(out)["exit_status"]
    assert err == ""
    assert found["daemon", "daemon"]["what"] == "gatewayd is not on the bus."
    assert "gatewayctl logs" in found["daemon", "daemon"]["remedy"]
    assert found["permissions", "state directory"]["verdict"] == "problem"
    assert found["ca", "the CA"]["verdict"] == found["hub", "the hub"]["verdict"] == "problem"
    assert {found[each]["verdict"] for each in (("token", "token"), ("hub", "link"), ("expiry", "certificates"))} == {
        "unknown"
    }
    areas = [each["area"] for each in json.loads(out)["findings"]]
    assert areas == sorted(areas, key=[str(area) for area in Area].index)


def test_a_wrong_configuration_comes_first(bus: Bus, config: Path) -> None:
    config.write_text("[gateway]\n")
    code, out, _ = doctor(bus, "--config", str(config))
    assert code == Area.CONFIGURATION.exit_code
    assert "[gateway] device_id is missing" in out
    assert "→ Correct it" in out
    assert "? ca" in out


def test_a_configuration_that_he_may_not_read_is_unknown_and_not_wrong(bus: Bus, daemon: Daemon, config: Path) -> None:
    config.chmod(0o000)
    code, out, _ = doctor(bus, "--config", str(config), "--json", powerless=True)
    assert code == 0
    found = findings(out)["configuration", "file"]
    assert (found["verdict"], found["what"]) == ("unknown", f"{config} is not readable by you.")
    daemon.stop()
    code, out, _ = doctor(bus, "--config", str(config), "--json", powerless=True)
    assert code == Area.DAEMON.exit_code
    assert findings(out)["ca", "configured"]["remedy"] == "Run this as root."


def test_it_looks_at_the_configuration_that_the_daemon_runs_with(bus: Bus, daemon: Daemon, config: Path) -> None:
    daemon.tell(f"file {config}")
    code, out, _ = doctor(bus, "--json")
    assert code == 0
    assert findings(out)["configuration", "file"]["what"] == f"{config} is well-formed."
