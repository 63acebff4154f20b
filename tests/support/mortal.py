"""A stage whose daemon kills itself, and clouds that fail a fifth of the calls: for the tests that kill."""

from __future__ import annotations

import sys
from typing import Any

from gatewayd.control.client import Client
from gatewayd.lab.demo.stage import Stage

CHANCE = 0.05
"""Of each of four faults: together they strike a fifth of the calls."""
CA_FAULTS = ("500", "500-after-issuing", "reset", "reset-after-issuing")
HUB_FAULTS = ("500", "503", "503-after", "drop")
LINK_FAULTS = ("drop", "503-after")


def fates(steps: int) -> list[tuple[str, str]]:
    """Right before and right after each of so many commits, in an order in which the first few are far apart and all
    come in turn."""
    every = [(str(number), when) for number in range(1, steps + 1) for when in ("before", "after")]
    stride = next(each for each in (5, 7, 11) if len(every) % each)
    return [every[number * stride % len(every)] for number in range(len(every))]


class Mortal(Stage):
    """Its daemon may be one that kills itself."""

    fate: tuple[str, ...] = ()

    def _daemon_command(self, fd: int, *arguments: str) -> list[str]:
        command = super()._daemon_command(fd, *arguments)
        if not self.fate:
            return command
        return [sys.executable, "-m", "tests.support.dying", *self.fate, *command[3:]]

    def is_dead(self) -> bool:
        process = self._processes["gatewayd"]
        if process.poll() is None:
            return False
        assert process.returncode == -9, self.log_text()[-3000:]
        del self._processes["gatewayd"]
        return True

    def live_on(self) -> None:
        """Start a daemon that does not die, but does not wait for minutes either."""
        self.fate = ("0", "never")
        self.start_daemon()


def misbehave(stage: Mortal, *calls: str) -> None:
    """``calls``: those of the CA's that fail."""
    for call, mode in ((call, mode) for call in calls for mode in CA_FAULTS):
        rule = {"call": call, "mode": mode, "times": None, "chance": CHANCE}
        stage.lab.post("ezca", "/lab/faults", rule)
    for where, match, modes in (("registry", "", HUB_FAULTS), ("mqtt", "PUBLISH", LINK_FAULTS)):
        for mode in modes:
            rule = {"where": where, "match": match, "mode": mode, "times": 10**9, "chance": CHANCE * 4 / len(modes)}
            stage.lab.post("hub", "/lab/faults", rule)


def behave(stage: Mortal) -> None:
    for cloud in ("ezca", "hub"):
        stage.lab.delete(cloud, "/lab/faults")


def open_ones(client: Client) -> list[dict[str, Any]]:
    return [each for each in client.call("GetStatus")["revocations"] if each["open"]]


def enabled(stage: Mortal, device_id: str) -> bool:
    return bool(stage.lab.hub("GET", f"/devices/{device_id}")["status"] == "enabled")
