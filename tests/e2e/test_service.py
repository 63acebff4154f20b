"""The daemon as a service: a new configuration without a connection lost; a backup, and what a restore never undoes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.lab.demo.stage import Stage
from tests.e2e.support import EstLeaf, connected, gateway, show


@contextmanager
def configured(stage: Stage, *changes: tuple[str, str], more: str = "") -> Iterator[None]:
    """gatewayd.toml with these changes; afterwards it is what it was, and in force."""
    before = stage.config.read_text()
    text = before
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    stage.config.write_text(text + more)
    try:
        yield
    finally:
        stage.config.write_text(before)
        stage.ctl("reload")


def keep_alive(stage: Stage) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=stage.lab.ca_root)
    return http.client.HTTPSConnection(stage.address, 9443, context=context, timeout=10)


def ask(connection: http.client.HTTPSConnection) -> tuple[int, Any]:
    connection.request("GET", "/.well-known/est/cacerts")
    answer = connection.getresponse()
    answer.read()
    return answer.status, connection.sock


def test_a_new_configuration_is_taken_up_and_no_connection_lost(stage: Stage, tmp_path: Path) -> None:
    leaf = keep_alive(stage)
    _, socket = ask(leaf)
    link, pid = stage.ctl_json("status")["hub"]["since"], stage.daemon_pid()
    file = tmp_path / "gateway.pem"
    hook = f'[[hooks]]\nname = "copy"\ncertificate = "{file}"\n[log]\nlevel = "debug"\n[renewal]\nopens = 0.4\n'
    with configured(stage, ("port = 9443", "port = 9444"), more=hook):
        said = stage.ctl_json("reload")
        assert said == {"applied": ["renewal.opens", "hooks", "log.level"], "needs_restart": ["est.port"]}
        stage.wait_for("the new hook's file", lambda: file.exists() or None)
        status = stage.ctl_json("status")
        assert status["configuration"]["needs_restart"] == ["est.port"]
        assert "RestartNeeded" in [each["error"] for each in status["waiting"]]
        assert ask(leaf) == (200, socket), "on the connection that it had, at the port that it had"
        assert status["hub"]["since"] == link
        assert stage.daemon_pid() == pid
    assert "needs_restart" not in stage.ctl_json("status")["configuration"]


def test_a_bad_configuration_changes_nothing_and_says_why(stage: Stage) -> None:
    leaf = keep_alive(stage)
    _, socket = ask(leaf)
    with configured(stage, ("[est]", "[est]\nprot = 1"), more='[log]\nlevel = "debug"\n'):
        done = stage.ctl("reload", check=False)
        assert done.returncode == 78
        assert "unknown key [est] prot; the nearest known one is 'port'" in done.stderr
        assert "Traceback" not in done.stderr
        waits = {each["error"]: each for each in stage.ctl_json("status")["waiting"]}
        assert "prot" in waits["ReloadRefused"]["what"]
        assert ask(leaf) == (200, socket)
        # The way of 'kill -HUP'.
        lines = stage.log_text().count("the new configuration is refused")
        os.kill(stage.daemon_pid(), signal.SIGHUP)
        stage.wait_for("the log", lambda: stage.log_text().count("the new configuration is refused") > lines or None)
    assert stage.ctl_json("status")["waiting"] == []
    history = [(each["what"], each["outcome"]) for each in show(stage, stage.gateway_id)["history"]]
    assert ("configuration", "failed") in history


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Stage]:
    with gateway(tmp_path / "stage") as stage:
        yield stage


def in_service(stage: Stage, device_id: str) -> EstLeaf:
    leaf = EstLeaf(stage, device_id)
    leaf.show_certificate(leaf.ask_until_answered())
    return leaf


def restore(stage: Stage, file: Path) -> Any:
    done = stage.ctl("restore", str(file), "--config", str(stage.config), "--json")
    return json.loads(done.stdout)


def test_a_restore_brings_no_revocation_back_to_life_nor_an_older_generation(plant: Stage, tmp_path: Path) -> None:
    revoked, good = in_service(plant, "leaf-1"), in_service(plant, "leaf-2")
    unused = EstLeaf(plant, "leaf-3")
    file = tmp_path / "gateway.backup"
    assert plant.ctl_json("backup", str(file))["devices"] == 4
    assert file.stat().st_mode & 0o077 == 0
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["manifest.json", "gatewayd.db"]
    for secret in (b"PRIVATE", plant.pin.encode(), unused.code.replace("-", "").encode()):
        assert secret not in file.read_bytes()

    plant.ctl("renew")
    plant.ctl("revoke", "leaf-1", "--reason", "keyCompromise", "--yes")
    generation = show(plant, plant.gateway_id)["device"]["generation"]
    assert plant.ctl("restore", str(file), "--config", str(plant.config), check=False).returncode == 75, "it runs"
    plant.stop_daemon()

    # The database is there: it knows more than the backup, and stays.
    assert restore(plant, file) | {"backup_created_at": ""} == {
        "device_id": plant.gateway_id,
        "backup_created_at": "",
        "kept": True,
        "added": 0,
        "unproven": False,
    }
    plant.start_daemon()
    plant.wait_for("the link", lambda: connected(plant))
    assert show(plant, plant.gateway_id)["device"]["generation"] == generation
    assert show(plant, "leaf-1")["device"]["state"] == "revoked"
    assert revoked.post("simplereenroll") == 403
    assert plant.ctl_json("audit", "verify")["intact"]
    good.new_request()
    assert good.post("simplereenroll") == 200
    good.show_certificate(good.certificate)
    plant.stop_daemon()

    database = plant.state / "gatewayd.db"
    # It is gone: the token has the newer key, the CA knows what is revoked.
    database.unlink()
    done = restore(plant, file)
    assert done["unproven"]
    plant.lab.post("ezca", "/lab/faults", {"call": "GetMyCertificatesV2Paginated", "mode": "delay", "seconds": 3})
    plant.start_daemon()
    assert revoked.post("simplereenroll") == 503, "nobody knows yet that it was revoked"
    _proved(plant, revoked, generation)
    assert good.post("simplereenroll") == 403, "its certificate is younger than the backup"
    good.forget_certificate()
    good.code = plant.ctl_json("device", "code", "leaf-2")["code"]
    assert good.post() == 200
    assert unused.post() == 401, "codes of the time of the backup do not work"


def _proved(stage: Stage, revoked: EstLeaf, generation: int) -> None:
    def proven() -> bool | None:
        return "RestoreUnproven" not in [each["error"] for each in stage.ctl_json("status")["waiting"]] or None

    while proven() is None:
        assert revoked.post("simplereenroll") in (403, 503)
    stage.wait_for("all sources", proven)
    stage.wait_for("the revocation", lambda: show(stage, "leaf-1")["device"]["state"] == "revoked" or None)
    assert revoked.post("simplereenroll") == 403

    def newest() -> bool | None:
        device = show(stage, stage.gateway_id)["device"]
        return (device["generation"] >= generation and device["state"] == "active") or None

    stage.wait_for("the newest generation", newest)
    stage.wait_for("the link", lambda: connected(stage))
    assert stage.ctl_json("audit", "verify")["intact"]
    history = [each["what"] for each in show(stage, stage.gateway_id)["history"]]
    assert "restored" in history
