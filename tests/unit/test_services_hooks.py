"""What is done on this machine after a renewal, with real commands and real files."""

from __future__ import annotations

import asyncio
import os
import pwd
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from gatewayd.config import HookSettings, parse
from gatewayd.errors import ConfigInvalid
from gatewayd.services.hooks import Hooks
from tests.support.plant import GATEWAY, Plant, Someone
from tests.unit.test_config import document


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        yield plant


def hooks(plant: Plant, *settings: HookSettings) -> Hooks:
    return Hooks(settings, store=plant.store, clock=plant.clock, events=plant.events, gateway_id=GATEWAY)


async def shown(plant: Plant, made: Hooks) -> dict[str, Any]:
    (only,) = await plant.read(made.shown)
    return only


def script(tmp_path: Path, text: str) -> tuple[str, ...]:
    file = tmp_path / "hook.sh"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return (str(file),)


def is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


async def test_files_and_command_once_for_each_certificate(plant: Plant, tmp_path: Path) -> None:
    log, certificate, chain = tmp_path / "log", tmp_path / "own.pem", tmp_path / "chain.pem"
    hook = HookSettings(
        "mosquitto",
        command=script(tmp_path, f'grep -c BEGIN "$GATEWAYD_CERTIFICATE" >> {log}; env >> {log}.env'),
        certificate=certificate,
        chain=chain,
        mode="0640",
    )
    made = hooks(plant, hook)
    await made.round()
    assert (await shown(plant, made))["state"] == "idle"
    first = await plant.bootstrap()
    assert (await shown(plant, made))["state"] == "due"
    await made.round()
    await made.round()
    assert log.read_text() == "3\n"
    own = x509.load_pem_x509_certificates(certificate.read_bytes())
    assert f"{own[0].serial_number:x}" == first.serial
    assert x509.load_pem_x509_certificates(chain.read_bytes()) == own[1:]
    assert stat.S_IMODE(certificate.stat().st_mode) == 0o640
    assert b"PRIVATE" not in certificate.read_bytes()
    assert {each.partition("=")[0] for each in (tmp_path / "log.env").read_text().split()} <= {
        "PATH", "LANG", "GATEWAYD_DEVICE_ID", "GATEWAYD_CERTIFICATE", "PWD", "OLDPWD", "SHLVL", "_",
    }  # fmt: skip

    plant.clock.advance(days=1)
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.settle()
    # A crash here: the hook is found to be due after the restart.
    await plant.restart()
    made = hooks(plant, hook)
    await made.round()
    assert log.read_text() == "3\n3\n"
    (renewed, *_) = x509.load_pem_x509_certificates(certificate.read_bytes())
    assert renewed != own[0]
    assert (await shown(plant, made))["state"] == "done"


async def test_a_hook_that_fails_is_told_and_tried_again_and_stops_no_renewal(plant: Plant, tmp_path: Path) -> None:
    flag = tmp_path / "mended"
    made = hooks(plant, HookSettings("unit", script(tmp_path, f"test -e {flag} || {{ echo no such unit; exit 5; }}")))
    await plant.bootstrap()
    wait = await made.round()
    assert wait is not None
    assert 1 <= wait <= 60
    failing = await shown(plant, made)
    assert (failing["state"], failing["attempts"]) == ("failed", 1)
    assert "exit status 5: no such unit" in failing["last_error"]
    await made.round()  # not before its time
    assert (await shown(plant, made))["attempts"] == 1
    plant.clock.advance(days=1)
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.settle()
    current = await plant.current()
    assert current is not None
    assert current.generation == 2
    flag.touch()
    await made.round()
    assert (await shown(plant, made))["state"] == "done"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"command": ("/no/such/program",)}, "could not be started"),
        ({"command": ("sleep", "30"), "timeout": 0.2}, "took longer than 0.2 s"),
        ({"command": ("true",), "user": "no-such-user"}, "no-such-user"),
        ({"certificate": Path("/no/such/directory/own.pem")}, "could not be written"),
        ({"certificate": Path("/tmp/own.pem"), "owner": "no-such-user"}, "no-such-user"),
        ({"command": ("sh", "-c", "kill -9 $$")}, "signal 9"),
    ],
)
async def test_each_way_to_fail_has_its_words(plant: Plant, settings: dict[str, Any], words: str) -> None:
    await plant.bootstrap()
    made = hooks(plant, HookSettings("broken", **settings))
    await asyncio.wait_for(made.round(), 5)
    failing = await shown(plant, made)
    assert failing["state"] == "failed"
    assert words in failing["last_error"]


async def test_what_a_slow_command_has_started_ends_with_it(plant: Plant, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    await plant.bootstrap()
    made = hooks(plant, HookSettings("slow", script(tmp_path, f"sleep 60 & echo $! > {file}; wait"), timeout=0.5))
    await made.round()
    child = int(file.read_text())
    for _ in range(50):
        if not is_running(child):
            return
        await asyncio.sleep(0.1)
    pytest.fail("it goes on")


async def test_a_command_runs_as_its_user(plant: Plant) -> None:
    await plant.bootstrap()
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name  # only root may become another
    made = hooks(plant, HookSettings("who", ("sh", "-c", "echo I am $(id -un); exit 1"), user=user))
    await made.round()
    assert f"I am {user}" in (await shown(plant, made))["last_error"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[hooks]]\nname = "a b"\ncommand = ["true"]', "hooks\\[0\\].name"),
        ('[[hooks]]\nname = "a"', "does nothing"),
        ('[[hooks]]\nname = "a"\ncommand = ["true"]\n[[hooks]]\nname = "a"\ncommand = ["true"]', "there twice"),
        ('[[hooks]]\nname = "a"\ncommand = [""]', "can be run"),
        ('[[hooks]]\nname = "a"\ncertificate = "own.pem"', "absolute"),
        ('[[hooks]]\nname = "a"\ncommand = ["true"]\nmode = "rw"', "octal"),
        ('[[hooks]]\nname = "a"\ncommand = ["true"]\ntimeout = 0', "timeout"),
    ],
)
def test_a_hook_that_makes_no_sense_refuses_the_start(text: str, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        parse(f"{document()}\n{text}\n")
