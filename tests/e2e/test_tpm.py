"""The gateway's keys in a TPM, and what can happen to one, with leaves enrolling meanwhile."""

from __future__ import annotations

import http.client
import re
import secrets
import ssl
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gatewayd.control.client import Client
from gatewayd.lab.demo.stage import EST_PORT, Stage
from gatewayd.lab.demo.tokens import Tpm
from tests.e2e.support import EstLeaf, check_books, gateway, show

ATTESTATION = Path(__file__).parents[2] / "docs" / "attestation.md"
BACK_WITHIN = 60.0
"""Seconds from the token's return until all is well."""


@pytest.fixture
def tpm(tmp_path: Path) -> Tpm:
    return Tpm(tmp_path / "stage")


@pytest.fixture
def stage(tmp_path: Path, tpm: Tpm) -> Iterator[Stage]:
    with gateway(tmp_path / "stage", token=lambda _: tpm) as stage:
        yield stage


def token_state(stage: Stage) -> str:
    return str(stage.ctl_json("status")["token"]["state"])


def waits_for(stage: Stage) -> set[str]:
    return {each["error"] for each in stage.ctl_json("status")["waiting"]}


def until_ready(stage: Stage) -> None:
    stage.wait_for("the token", lambda: token_state(stage) == "ready" or None, within=BACK_WITHIN)


@pytest.mark.parametrize("faults", [("freeze", "kill"), ("clear",)], ids="-".join)
def test_no_enrollment_is_lost_or_made_twice_whatever_becomes_of_the_tpm_meanwhile(
    stage: Stage, tpm: Tpm, faults: tuple[str, ...]
) -> None:
    client = Client(stage.bus)
    names = [f"leaf-{number}" for number in range(1, 17)]
    leaves = [EstLeaf(stage, each, client.call("AddDevice", "(sa{sv})", each, {})["code"]) for each in names]
    pid = stage.daemon_pid()

    def enroll(leaf: EstLeaf) -> None:
        leaf.ask_until_answered(within=2 * BACK_WITHIN)
        time.sleep(0.5)  # so that there are some left for each fault

    def enrolled() -> int:
        return sum(each.done() for each in under_way)

    def strike(fault: str) -> None:
        tpm.run(fault)
        mend(stage, tpm, fault)
        returned, before = time.monotonic(), enrolled()
        assert before < len(leaves)
        until_ready(stage)
        stage.wait_for("an enrollment", lambda: enrolled() > before or None, within=BACK_WITHIN)
        assert time.monotonic() - returned < BACK_WITHIN

    with ThreadPoolExecutor(3) as pool:
        under_way = [pool.submit(enroll, leaf) for leaf in leaves]
        for fault in faults:
            strike(fault)
        for each in under_way:
            each.result()
    for leaf in leaves:
        shown = check_books(stage, leaf.device_id)
        assert [each["state"] for each in shown["credentials"]] == ["current"]
    check_books(stage, "gw-1")
    assert not waits_for(stage)
    assert stage.daemon_pid() == pid
    assert stage.stop_daemon() == 0


def mend(stage: Stage, tpm: Tpm, fault: str) -> None:
    """After a while; of a cleared TPM as soon as the daemon has told what to do."""
    if fault == "clear":
        stage.wait_for("the state", lambda: token_state(stage) == "unusable" or None, within=BACK_WITHIN)
        make_anew(stage)
    else:
        time.sleep(3)
        tpm.run({"freeze": "thaw", "kill": "start"}[fault])


def make_anew(stage: Stage) -> None:
    """The way back from a cleared TPM, as status shows it."""
    (told,) = [each for each in stage.ctl_json("status")["waiting"] if each["error"] == "TokenUnusable"]
    assert "move the store of the PKCS#11 module aside" in told["remedy"]
    assert "gatewayctl token init" in told["remedy"]
    assert "TokenUnusable" in stage.log_text()
    store = stage.directory / "tpm" / "store"
    store.rename(store.with_name("store.old"))
    store.mkdir(mode=0o700)
    stage.pin = "another-pin"
    assert stage.ctl_json("token", "init", stdin="another-pin\n")["state"] == "ready"
    stage.upload_registrar_certificate()
    if show(stage, "gw-1")["device"]["generation"] == 1:  # as registrar it may have helped itself already
        stage.bootstrap()


def test_a_dead_tpm_is_told_and_its_return_is_noticed(stage: Stage, tpm: Tpm) -> None:
    tpm.run("kill")
    assert stage.ctl("renew", check=False).returncode != 0
    assert token_state(stage) == "absent"
    assert "TokenNotFound" in waits_for(stage)
    tpm.run("start")
    until_ready(stage)
    stage.wait_for("the renewal", lambda: show(stage, "gw-1")["device"]["generation"] == 2 or None, within=BACK_WITHIN)
    check_books(stage, "gw-1")


def test_a_key_deleted_behind_our_back_is_replaced_by_the_registrar(stage: Stage, tpm: Tpm) -> None:
    objects = stage.ctl_json("token", "objects")["objects"]
    (live,) = [each for each in objects if (each["kind"], each["role"]) == ("private-key", "live")]
    stage.stop_daemon()
    for kind in ("privkey", "pubkey"):
        stage.pkcs11_tool("--delete-object", "--type", kind, "--id", live["id"])
    stage.start_daemon()
    stage.wait_for("another key", lambda: show(stage, "gw-1")["device"]["generation"] == 2 or None, within=BACK_WITHIN)
    until_ready(stage)
    history = [each["what"] for each in show(stage, "gw-1")["history"]]
    assert "key lost" in history
    check_books(stage, "gw-1")


def test_the_tpm_says_that_the_gateways_key_is_in_it(stage: Stage) -> None:
    nonce = secrets.token_hex(16)
    directory = stage.directory / "attestation"
    assert "docs/attestation.md" in stage.ctl("attest", "--nonce", nonce, "--output", str(directory)).stdout
    auditor, challenge = re.findall(r"```sh\n(.*?)```", ATTESTATION.read_text(), re.S)[1:]
    script = f"NONCE={nonce}\n{auditor}\n{challenge}"
    subprocess.run(["sh", "-e", "-c", script], cwd=directory, check=True, capture_output=True, timeout=30)
    shown = stage.ctl_json("attest", "--activate", str(directory / "challenge"))
    assert shown["secret"] == (directory / "secret").read_bytes().hex()
    assert stage.ctl_json("attest", "--nonce", nonce)["files"].keys() >= {"ak.pub", "certify.msg", "certificate.pem"}
    for arguments in (
        ("--nonce", "0011", "--output", str(directory.with_name("other"))),
        ("--nonce", nonce, "--output", str(directory)),
        ("--nonce", nonce),
        ("--activate", str(directory / "secret")),
    ):
        assert stage.ctl("attest", *arguments, check=False).returncode in (64, 65)


def test_a_slow_tpm_with_twenty_handshakes_queued_holds_up_nobody_else(stage: Stage, tpm: Tpm) -> None:
    """200 ms a signature."""
    trust = ssl.create_default_context(cafile=stage.lab.ca_root)
    connected = http.client.HTTPSConnection(stage.address, EST_PORT, context=trust, timeout=10)
    client = Client(stage.bus)

    def cacerts() -> None:
        connected.request("GET", "/.well-known/est/cacerts")
        answer = connected.getresponse()
        assert answer.status == 200
        answer.read()

    def shake(_: int) -> float:
        began = time.monotonic()
        http.client.HTTPSConnection(stage.address, EST_PORT, context=trust, timeout=30).connect()
        return time.monotonic() - began

    alone = timed(lambda: stage.ctl("status"))
    cacerts()
    tpm.run("slow", "200")
    with ThreadPoolExecutor(20) as pool:
        handshakes = [pool.submit(shake, number) for number in range(20)]
        took: dict[str, list[float]] = {"D-Bus": [], "cacerts": [], "gatewayctl": []}
        while not all(each.done() for each in handshakes):
            took["D-Bus"].append(timed(lambda: client.call("GetStatus")))
            took["cacerts"].append(timed(cacerts))
            if len(took["D-Bus"]) % 5 == 0:
                took["gatewayctl"].append(timed(lambda: stage.ctl("status")) - alone)
    tpm.run("slow", "0")
    assert max(each.result() for each in handshakes) > 3.5  # they did queue
    assert {name: statistics.median(each) < 0.25 for name, each in took.items()} == dict.fromkeys(took, True), took
    assert all(max(took[name]) < 0.5 for name in ("D-Bus", "cacerts")), took  # one hiccup of a busy machine


def timed(work: Any) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
