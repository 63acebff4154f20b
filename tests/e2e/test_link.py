"""The hub goes and comes back: the link follows by itself, and what was to be said is said."""

from __future__ import annotations

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import EstLeaf, connected, show


def reported(stage: Stage, device_id: str) -> str | None:
    (revocation,) = show(stage, device_id)["revocations"]
    (milestone,) = [each for each in revocation["milestones"] if each["name"] == "reported"]
    evidence: str | None = milestone.get("evidence")
    return evidence


def test_what_happened_while_the_hub_was_away_is_reported_when_it_is_back(stage: Stage) -> None:
    leaf = EstLeaf(stage, "away-1")
    leaf.ask_until_answered()
    serial = connected(stage)
    stage.lab.stop("hub")
    stage.wait_for("the loss of the link", lambda: connected(stage) is None or None)
    stage.ctl("revoke", leaf.device_id, "--reason", "keyCompromise", "--yes", "--no-wait")
    assert reported(stage, leaf.device_id) is None
    stage.lab.start("hub")
    assert stage.wait_for("the link", lambda: connected(stage), within=60) == serial
    assert stage.wait_for("the report", lambda: reported(stage, leaf.device_id)).startswith("message ")
