"""The story: eight scenes, each with its proofs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .leaf import EnrollmentFailed, HubClient, Leaf
from .script import Script
from .stage import Stage

SHORT = 60
"""Seconds that the gateway's first certificate lives, so that its automatic renewal can be watched."""

DAY = 86400


@dataclass
class Play:
    stage: Stage
    script: Script
    leaves: dict[str, Leaf] = field(default_factory=dict)
    clients: dict[str, HubClient] = field(default_factory=dict)

    def ctl(self, *arguments: str, stdin: str | None = None, shown: str | None = None) -> str:
        done = self.stage.ctl(*arguments, stdin=stdin)
        self.script.command(shown or f"gatewayctl {' '.join(arguments)}", done.stdout)
        return done.stdout

    def shown(self, device_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.stage.ctl_json("device", "show", device_id)
        return shown

    def serial(self, device_id: str) -> str | None:
        serial: str | None = self.shown(device_id)["device"].get("serial")
        return serial

    def ezca_calls(self) -> list[str]:
        """The calls that EZCA has had, oldest first."""
        return [entry["call"] for entry in self.stage.lab.get("ezca", "/lab/log")]


def token(play: Play) -> None:
    play.script.scene("A PKCS#11 token, and the daemon")
    play.script.command("gatewayd token-init --pin-fd 3", play.stage.init_token())
    play.stage.start_daemon()
    play.script.command("gatewayd --pin-fd 3 &")
    status = play.stage.wait_for("the token", lambda: _with_token(play.stage))
    play.script.prove("the daemon serves, logged in to the token", True)
    waiting = [each["error"] for each in status["waiting"]]
    play.script.prove("it says what it waits for: NotBootstrapped", waiting == ["NotBootstrapped"], str(waiting))


def _with_token(stage: Stage) -> dict[str, Any] | None:
    status: dict[str, Any] = stage.ctl_json("status")
    return status if status["token"]["state"] == "ready" else None


def bootstrap(play: Play) -> None:
    stage, script = play.stage, play.script
    script.scene("The gateway's first certificate, from EZCA with a registrar's token given once")
    stage.upload_registrar_certificate()
    script.command("gatewayctl registrar certificate > registrar.pem")
    script.say("(uploaded to the gateway's Entra application: from now on it is registrar, without any secret)")
    stage.lab.post("ezca", "/lab/lifetime", {"seconds": SHORT})
    play.ctl("bootstrap", "--token-file", "-", stdin=stage.person_token(), shown="gatewayctl bootstrap < token")
    stage.lab.post("ezca", "/lab/lifetime", {"seconds": 5 * DAY})  # each one after it outlasts the one before
    calls = play.ezca_calls()
    wanted = ["RegisterNewDomain", "RequestSSLCertificateV2"]
    script.prove(" then ".join(wanted), [each for each in calls if each in wanted] == wanted, str(calls))
    objects = stage.token_objects()
    script.command("pkcs11-tool --list-objects --type privkey", objects)
    keys = objects.count("Private Key Object")
    protected = objects.count("sensitive, always sensitive, never extractable, local")
    script.prove(f"all {keys} private keys are sensitive, never extractable, made in the token", 0 < keys == protected)


def hub(play: Play) -> None:
    stage, script = play.stage, play.script
    script.scene("The hub, with the private key staying in the token")
    link = stage.wait_for("the link", lambda: _connected(stage))
    script.prove(f"connected over MQTT with certificate {link['serial'][:16]}…", True)
    reported = stage.wait_for("the twin", lambda: _reported(stage))
    script.command("twin of gw-1, properties.reported", json.dumps(reported, indent=1))
    script.prove("its state shows in the twin", reported["certificate"]["serial"] == link["serial"])


def _connected(stage: Stage) -> dict[str, Any] | None:
    link: dict[str, Any] = stage.ctl_json("status")["hub"]
    return link if link["state"] == "connected" else None


def _reported(stage: Stage) -> dict[str, Any] | None:
    twin = stage.lab.get("hub", f"/lab/twins/{stage.gateway_id}")
    reported: dict[str, Any] | None = twin["properties"]["reported"].get("gatewayd")
    return reported


def leaves(play: Play) -> None:
    stage, script = play.stage, play.script
    script.scene("Leaves enroll over EST: one with strongSwan's pki, one with curl")
    est_url = stage.wait_for("the EST server", lambda: stage.ctl_json("status")["est"].get("url"))
    for device_id in ("leaf-1", "leaf-2"):
        play.leaves[device_id] = Leaf(
            stage.directory / device_id, device_id, est_url, stage.lab.web_root, stage.environment
        )
    root = stage.lab.ca_root
    code = _code(play.ctl("device", "add", "leaf-1"))
    one = play.leaves["leaf-1"]
    one.make_key()
    one.fetch_anchors(root)
    script.command(f"pki --estca --url {est_url}")
    try:
        one.enroll("0000-0000-0000-0000")
    except EnrollmentFailed:
        script.prove("a wrong code is refused, and nothing is issued", play.serial("leaf-1") is None)
    one.enroll(code)
    script.command(f"pki --est --url {est_url} --userpass leaf-1:{code}")
    script.prove("leaf-1 has its certificate, for a key that only it has", play.serial("leaf-1") is not None)
    try:
        play.leaves["leaf-2"].curl_enroll(code, root)
    except EnrollmentFailed:
        script.prove("leaf-1's code does not work for anybody else", True)
    two = _code(play.ctl("device", "add", "leaf-2"))
    play.leaves["leaf-2"].curl_enroll(two, root)
    script.command(f"curl --data-binary @request {est_url}/.well-known/est/simpleenroll")
    for device_id, leaf in play.leaves.items():
        client = play.clients[device_id] = leaf.hub_client(stage.address)
        script.prove(f"{device_id} connects to the hub: CONNACK 0", client.connect() == 0)
        client.publish('{"temperature": 21.5}')


def _code(output: str) -> str:
    """The one-time code in what gatewayctl printed: four groups of four."""
    words = (word.strip() for line in output.splitlines() for word in line.split())
    return next(word for word in words if len(word) == 19 and word.count("-") == 3)


def renewals(play: Play) -> None:
    stage, script = play.stage, play.script
    script.scene("Renewal, before they expire, each time for a new key")
    first = play.shown(stage.gateway_id)["device"]
    if first["generation"] == 1:
        script.say(f"(the first certificate lives {SHORT} s and is due at half of that; waiting)")
    second = stage.wait_for("the automatic renewal", lambda: _beyond(play, 1), within=SHORT)
    script.prove("the gateway has renewed by itself: its EC key over EZCA's EST", "simpleenroll" in play.ezca_calls())
    stage.lab.post("ezca", "/lab/lifetime", {"seconds": 10 * DAY})
    play.ctl("renew", "--key", "rsa-2048")
    stage.lab.post("ezca", "/lab/lifetime", {"seconds": None})
    play.ctl("renew", "--key", "rsa-2048")
    third = play.shown(stage.gateway_id)["device"]
    script.prove(
        "an RSA key renews through RenewCertificateV3, by a JWT signed in the token",
        "RenewCertificateV3" in play.ezca_calls() and third["generation"] > second["generation"],
    )
    stage.wait_for("the link", lambda: _connected(stage))
    leaf = play.leaves["leaf-1"]
    before = play.serial("leaf-1")
    leaf.reenroll()
    script.command("pki --est --cert certificate --key key  (simplereenroll with leaf-1's own certificate)")
    script.prove("leaf-1 has renewed with its own certificate, for a new key", play.serial("leaf-1") != before)
    play.clients["leaf-1"].close()
    client = play.clients["leaf-1"] = leaf.hub_client(stage.address)
    script.prove("leaf-1 connects with the new one: CONNACK 0", client.connect() == 0)


def _beyond(play: Play, generation: int) -> dict[str, Any] | None:
    device: dict[str, Any] = play.shown(play.stage.gateway_id)["device"]
    return device if device["generation"] > generation else None


def revocation(play: Play) -> None:
    stage, script = play.stage, play.script
    script.scene("Revocation, carried through until the hub is seen to have the device disabled")
    client = play.clients["leaf-1"]
    began = time.monotonic()
    play.ctl("revoke", "leaf-1", "--reason", "keyCompromise", "--yes")
    took = time.monotonic() - began
    revocations = play.shown("leaf-1")["revocations"]
    milestones = [each for record in revocations for each in record["milestones"]]
    script.prove(f"every milestone is done, after {took:.1f} s", all("done_at" in each for each in milestones))
    minted = {each["serial"]: each for each in stage.lab.get("ezca", "/lab/certificates")}
    script.prove("revoked at the CA", all(minted[record["serial"]]["revoked"] for record in revocations))
    script.prove("leaf-1's open connection to the hub has dropped", client.dropped.wait(5))
    again = play.leaves["leaf-1"].hub_client(stage.address).connect()
    script.prove("its certificate is refused by the hub: CONNACK 5", again == 5, f"CONNACK {again}")
    try:
        play.leaves["leaf-1"].reenroll()
        refused = False
    except EnrollmentFailed:
        refused = True
    script.prove("its certificate is refused by the gateway: no re-enrollment", refused)
    script.prove("leaf-2, which nobody revoked, is still connected", not play.clients["leaf-2"].dropped.is_set())
    play.ctl("status")


def swap(play: Play) -> None:
    """New hardware for leaf-1, whose certificate has just been revoked."""
    stage, script = play.stage, play.script
    script.scene("New hardware under the same id, and the old certificate stays dead")
    old = play.leaves["leaf-1"]
    identity = stage.lab.hub("GET", "/devices/leaf-1")
    stage.lab.hub("PUT", "/devices/leaf-1", {**identity, "status": "enabled"}, identity["etag"])
    hole = old.hub_client(stage.address)
    code = hole.connect()
    script.say("(the hole: somebody enables leaf-1 in the hub by hand)")
    script.prove("the hub lets the revoked certificate in again: CONNACK 0", code == 0, f"CONNACK {code}")
    one_time = _code(play.ctl("device", "replace", "leaf-1", "--yes", "--no-wait"))
    script.prove("the hub has dropped it", hole.dropped.wait(10))
    new = Leaf(stage.directory / "leaf-1-new", "leaf-1", old.est_url, stage.lab.web_root, stage.environment)
    new.make_key()
    new.fetch_anchors(stage.lab.ca_root)
    new.enroll(one_time)
    script.command(f"pki --est --url {new.est_url} --userpass leaf-1:{one_time}   (on the new hardware)")
    code = new.hub_client(stage.address).connect()
    script.prove("the new hardware connects: CONNACK 0", code == 0, f"CONNACK {code}")
    code = old.hub_client(stage.address).connect()
    script.prove("the old certificate is refused, though leaf-1 is enabled: CONNACK 5", code == 5, f"CONNACK {code}")
    decided = [each for each in stage.lab.get("hub", "/lab/connections")["history"] if each["deviceId"] == "leaf-1"]
    script.say(f"(the hub's log: {decided[-1]['reason']})")
    shown = stage.ctl("device", "show", "leaf-1").stdout
    script.command("gatewayctl device show leaf-1", shown.partition("\nGenerations")[0])


def ledger(play: Play) -> None:
    stage, script = play.stage, play.script
    script.scene("The books")
    on_record = {
        each["serial"]
        for device in ("gw-1", "leaf-1", "leaf-2")
        for each in play.shown(device)["credentials"]
        if "serial" in each
    }
    minted = {each["serial"] for each in stage.lab.get("ezca", "/lab/certificates")}
    script.prove(f"each of the {len(minted)} certificates that the CA has minted is on record", minted == on_record)
    found = [each for each in _files(stage.state) if b"PRIVATE KEY" in each.read_bytes()]
    script.command("grep -r 'PRIVATE KEY' state/")
    script.prove("no private key in any file of the daemon", not found, str(found))
    objects = stage.token_objects()
    keys = objects.count("Private Key Object")
    protected = objects.count("sensitive, always sensitive, never extractable, local")
    script.prove(f"all {keys} private keys in the token are protected", 0 < keys == protected)
    for client in play.clients.values():
        client.close()
    script.prove("the daemon stops in order", stage.stop_daemon() == 0)


def _files(directory: Path) -> list[Path]:
    return [each for each in directory.rglob("*") if each.is_file()]


STORY: tuple[Callable[[Play], None], ...] = (token, bootstrap, hub, leaves, renewals, revocation, swap, ledger)
