"""What an administrator waits for, and what the machine is asked for, with 1,000 leaves: ``gatewayctl device list``
beside certmonger's ``getcert list`` with as many certificates, in one run; then the daemon left alone for ten minutes.

``python -m benchmarks.service [--idle SECONDS] [--devices NUMBER]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from gatewayd.lab.demo.stage import Stage
from tests.support.bus import private_bus
from tests.support.fleet import Fleet

from .figures import figure

_ROUNDS = 7
_SETTLED = 20.0
"""Seconds after the last enrollment: what follows from it is over."""


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.service")
    options.add_argument("--idle", type=float, default=600.0, metavar="SECONDS")
    options.add_argument("--devices", type=int, default=1000, metavar="NUMBER")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as directory, _gateway(Path(directory) / "gateway", chosen.devices) as stage:
        with _certmonger(Path(directory), chosen.devices) as getcert:
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(_ROUNDS):
                ours.append(
                    _seconds(
                        [sys.executable, "-m", "gatewayd.control", "device", "list"], stage.environment, chosen.devices
                    )
                )
                if len(theirs) < 3:
                    theirs.append(_seconds(["getcert", "list"], getcert, chosen.devices))
        figure("device_list", statistics.median(ours), "s", at_most=0.5)
        figure("getcert_list", statistics.median(theirs), "s")
        figure("device_list_share_of_getcert", statistics.median(ours) / statistics.median(theirs))
        _idle(stage, chosen.idle)


@contextmanager
def _gateway(directory: Path, devices: int) -> Iterator[Stage]:
    with Stage(directory) as stage:
        stage.config.write_text(stage.config.read_text().replace("[ezca]", "[ezca]\nrequests_per_second = 1000"))
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        stage.wait_for("the link", lambda: stage.ctl_json("status")["hub"]["state"] == "connected")
        fleet = Fleet(stage)
        for number in range(devices):
            fleet.add(f"leaf-{number}")
        # As it is after any night: what enrolling a thousand at once has left in memory is gone.
        stage.stop_daemon()
        stage.start_daemon()
        stage.wait_for("the link", lambda: stage.ctl_json("status")["hub"]["state"] == "connected")
        yield stage


@contextmanager
def _certmonger(directory: Path, certificates: int) -> Iterator[dict[str, str]]:
    """With so many certificates of its own local CA; the environment in which getcert finds it."""
    state = directory / "certmonger"
    for name in ("requests", "cas", "local", "certificates"):
        (state / name).mkdir(parents=True)
    with private_bus() as bus:
        yield from _certmonger_on(bus.address, state, certificates)


def _certmonger_on(bus: str, state: Path, certificates: int) -> Iterator[dict[str, str]]:
    environment = os.environ | {
        "DBUS_SYSTEM_BUS_ADDRESS": bus,
        "CERTMONGER_REQUESTS_DIR": str(state / "requests"),
        "CERTMONGER_CAS_DIR": str(state / "cas"),
        "CERTMONGER_LOCAL_CA_DIR": str(state / "local"),
        "CERTMONGER_CONFIG_DIR": str(state),
    }
    daemon = subprocess.Popen(["certmonger", "-S", "-n", "-B"], env=environment, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: _getcert(environment, "list-cas").returncode == 0)

        def request(number: int) -> None:
            path = state / "certificates" / f"{number}"
            name = ("-I", f"c{number}", "-N", f"CN=c{number}")
            files = ("-k", f"{path}.key", "-f", f"{path}.pem")
            _getcert(environment, "request", "-c", "local", "-G", "EC", "-g", "256", *name, *files)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(request, range(certificates)))
        _until(lambda: len(list((state / "certificates").glob("*.pem"))) == certificates)
        time.sleep(5)
        yield environment
    finally:
        daemon.terminate()
        daemon.wait()


def _getcert(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["getcert", *arguments], env=environment, capture_output=True, text=True, check=False)


def _until(condition: Callable[[], bool], within: float = 900) -> None:
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("certmonger took too long")
        time.sleep(0.5)


def _seconds(command: list[str], environment: dict[str, str], lines: int) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    took = time.perf_counter() - began
    if done.stdout.count("\n") < lines:
        raise RuntimeError(f"{' '.join(command)} told of {done.stdout.count(chr(10))} lines only")
    return took


def _idle(stage: Stage, seconds: float) -> None:
    daemon = stage.daemon_pid()
    token = int(Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()[0])
    time.sleep(_SETTLED)
    before = {pid: _cpu(pid) for pid in (daemon, token)}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    for name, pid, share, memory in (("daemon", daemon, 0.3, 90.0), ("token_process", token, None, None)):
        figure(f"idle_cpu_{name}", 100 * (_cpu(pid) - before[pid]) / took, "% of a core", at_most=share)
        figure(f"idle_memory_{name}", _resident(pid), "MB", at_most=memory)


def _cpu(pid: int) -> float:
    """Seconds, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    """MB."""
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
