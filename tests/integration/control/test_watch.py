"""gatewayctl watch as its users run it: piped, as JSON, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gatewayd.control.client import Client
from tests.support.bus import Bus, gdbus
from tests.support.control_daemon import Daemon

GATEWAYCTL = [sys.executable, "-m", "gatewayd.control"]
GATEWAY1 = "org.gatewayd.Gateway1"


@pytest.fixture
def daemon(bus: Bus) -> Iterator[Daemon]:
    with Daemon(bus.address) as running:
        yield running


@contextmanager
def watching(bus: Bus, *arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*GATEWAYCTL, "watch", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GATEWAYD_BUS": bus.address, "LC_ALL": "C.UTF-8", "TERM": "xterm"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """What it prints up to the line with ``words``."""
    assert process.stdout is not None
    seen: list[str] = []
    limit = threading.Timer(20, process.kill)
    limit.start()
    while not seen or words not in seen[-1]:
        seen.append(process.stdout.readline())
        assert seen[-1], (seen, process.communicate())
    limit.cancel()
    return seen


def add(bus: Bus, process: subprocess.Popen[str]) -> list[str]:
    """Devices, until one is told of: when it begins to listen is not told."""
    assert process.stdout is not None
    for number in range(100):
        gdbus(bus.address, f"{GATEWAY1}.AddDevice", f"leaf-{number}", "{}")
        if select.select([process.stdout], [], [], 0.3)[0]:
            return [process.stdout.readline()]
    raise AssertionError("it has not told of any device")


def test_piped_it_is_a_line_for_each_thing(bus: Bus, daemon: Daemon) -> None:
    with watching(bus) as process:
        (line,) = add(bus, process)
        assert ": new · hub: absent" in line
        gdbus(bus.address, f"{GATEWAY1}.Revoke", "gw-1", "keyCompromise", "{}")
        told = lines_until(process, "revoke of gw-1 done")
        assert any("✓ revoke of gw-1: verified as disabled done — proof of verified" in line for line in told)
        assert any("gw-1: revoked · hub: disabled" in line for line in [*told, *lines_until(process, "gw-1: revoked")])


def test_json_is_an_object_a_line(bus: Bus, daemon: Daemon) -> None:
    with watching(bus, "--json") as process:
        first = json.loads(add(bus, process)[0])
        assert first["event"] == "device"
        assert first["device"]["state"] == "new"
        daemon.tell("fail IssuerRejected")
        gdbus(bus.address, f"{GATEWAY1}.Renew", "", "{}")
        told = [json.loads(line) for line in lines_until(process, '"state": "failed"')]
        assert {each["event"] for each in told} >= {"job", "step"}
        (step,) = [each for each in told if each.get("step") == "request" and each["state"] == "done"]
        assert (step["kind"], step["device_id"], step["detail"]) == ("renew", "gw-1", "proof of request")
        assert told[-1]["job"]["error"]["error"] == "IssuerRejected"


def test_ctrl_c_ends_it_without_a_word(bus: Bus, daemon: Daemon) -> None:
    with watching(bus) as process:
        add(bus, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")


def test_it_ends_when_nobody_reads_any_more(bus: Bus, daemon: Daemon) -> None:
    with watching(bus) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(10)
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (0, "")


def test_a_daemon_that_restarts_is_waited_for_and_a_bus_is_not(bus: Bus) -> None:
    with Daemon(bus.address) as daemon, watching(bus) as process:
        add(bus, process)
        os.kill(daemon.pid, signal.SIGKILL)
        lines_until(process, "gatewayd has left the bus")
        with Daemon(bus.address):
            lines_until(process, "gatewayd is on the bus")
            add(bus, process)
            bus.kill()
            _, err = process.communicate(timeout=10)
            assert process.returncode == 69
            assert "the connection to the bus is lost" in err


def test_without_a_daemon_or_a_bus_it_says_so(bus: Bus) -> None:
    with watching(bus) as process:
        _, err = process.communicate(timeout=10)
        assert process.returncode == 69
        assert "gatewayd is not on the bus" in err


def test_on_a_terminal_it_is_a_screen_that_is_drawn_anew(bus: Bus, daemon: Daemon) -> None:
    master, slave = pty.openpty()
    with watching(bus, stdout=slave) as process:
        os.close(slave)
        seen = b""

        def until(words: bytes) -> None:
            nonlocal seen
            end = time.monotonic() + 20
            while words not in seen and time.monotonic() < end:
                if select.select([master], [], [], 0.2)[0]:
                    seen += os.read(master, 65536)
            assert words in seen

        until(b"Lately")
        daemon.tell("gate")
        gdbus(bus.address, f"{GATEWAY1}.Renew", "", "{}")
        until(b"renew of gw-1: key made in the token done")
        assert b"Under way" in seen
        process.send_signal(signal.SIGINT)
        process.wait(10)
        assert process.returncode == 0
        until(b"\x1b[?1049l")  # the screen that was there before
    os.close(master)


def test_a_crowd_of_changes_is_not_a_screen_each(bus: Bus, daemon: Daemon) -> None:
    """Or it would show, minutes late, what was: a screen takes longer to draw than a signal to come."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (60, 120))
    with watching(bus, stdout=slave) as process:
        os.close(slave)
        seen = os.read(master, 65536)
        client = Client(bus.address)
        for number in range(300):
            client.call("AddDevice", "(sa{sv})", f"device-{number}", {})
            while select.select([master], [], [], 0)[0]:
                seen += os.read(master, 65536)
        client.call("Revoke", "(ssa{sv})", "gw-1", "keyCompromise", {})
        end = time.monotonic() + 30
        while b"revoke of gw-1" not in seen and time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65536)
        assert b"revoke of gw-1" in seen
        assert seen.count(b"Lately") < 150
        process.send_signal(signal.SIGINT)
        process.wait(10)
    os.close(master)


def test_on_a_small_terminal_the_status_gives_way_to_what_happens(bus: Bus, daemon: Daemon) -> None:
    daemon.tell("troubles 10")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (25, 80))
    with watching(bus, stdout=slave) as process:
        os.close(slave)
        screen, end = "", time.monotonic() + 20
        number = 0
        while "device-" not in screen.rpartition("Lately")[2] and time.monotonic() < end:
            number += 1
            gdbus(bus.address, f"{GATEWAY1}.AddDevice", f"device-{number}", "{}")
            while select.select([master], [], [], 0.3)[0]:
                screen += os.read(master, 65536).decode("utf-8", "replace")
        latest = re.split(r"\x1b\[H", screen)[-1]
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", latest).splitlines()
        assert len(lines) <= 25
        assert "gw-1" in lines[0]
        assert "more lines: 'gatewayctl status'" in latest
        assert any(line.startswith("Lately") for line in lines)
        assert "device-" in lines[-1]
        process.send_signal(signal.SIGINT)
        process.wait(10)
    os.close(master)
