"""The shells' own completion, with gatewayctl as its users have it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.bus import Bus
from tests.support.control_daemon import Daemon

GATEWAYCTL = [sys.executable, "-m", "gatewayd.control"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_its_script(shell: str) -> None:
    done = subprocess.run([*GATEWAYCTL, "completion", shell], capture_output=True, text=True, check=True, timeout=30)
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)
    assert f"_GATEWAYCTL_COMPLETE={shell}_complete" in done.stdout


def completed(words: str, bus: str) -> list[str]:
    """What bash is offered at the end of the line, as its script asks for it."""
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_GATEWAYCTL_COMPLETE": "bash_complete"}
    environment = {**os.environ, "GATEWAYD_BUS": bus, **asked}
    done = subprocess.run(GATEWAYCTL, capture_output=True, text=True, check=True, timeout=30, env=environment)
    assert done.stderr == ""
    return sorted(line.partition(",")[2] for line in done.stdout.splitlines() if line)


def test_bash_completes_commands_and_device_ids(bus: Bus) -> None:
    with Daemon(bus.address) as daemon:
        daemon.tell("leaves 3")
        assert completed("gatewayctl dev", bus.address) == ["device"]
        assert "--state" in completed("gatewayctl device list --", bus.address)
        assert completed("gatewayctl device show ", bus.address) == ["gw-1", "leaf-0", "leaf-1", "leaf-2"]


def test_without_a_daemon_there_is_nothing_to_offer_and_no_noise(bus: Bus) -> None:
    assert completed("gatewayctl device show ", bus.address) == []
