"""The daemon's memory with everything loaded, and its cold start to ready, beside a bare import of the five packages
that it is made of, in the same run.

Memory is the resident set (VmRSS), that of the token's own process apart. The daemon is measured connected to the hub,
with its EST server listening and a leaf enrolled; the cold start is from exec to READY=1, with the certificate in
place.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gatewayd.lab.demo.leaf import Leaf
from gatewayd.lab.demo.stage import Stage

from .figures import figure

_RUNS = 5
_BARE = "import aiohttp, azure.iot.device, cryptography.x509, pkcs11, pydbus; print(open('/proc/self/status').read())"


def main() -> None:
    bare_memory, bare_start = _bare_import()
    with tempfile.TemporaryDirectory() as directory, Stage(Path(directory) / "stage") as stage:
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        _enroll_leaf(stage)
        pid = stage.daemon_pid()
        memory = _rss(Path(f"/proc/{pid}/status").read_text())
        (helper,) = (each for task in Path(f"/proc/{pid}/task").iterdir() for each in _children(task))
        helper_memory = _rss(Path(f"/proc/{helper}/status").read_text())
        starts = []
        for _ in range(_RUNS):
            stage.stop_daemon()
            starts.append(_cold_start(stage))
    figure("bare_import_memory", bare_memory, "MB")
    figure("daemon_memory", memory, "MB", at_most=90)
    figure("daemon_memory_to_bare_import", memory / bare_memory, at_most=1.5)
    figure("token_process_memory", helper_memory, "MB")
    figure("bare_import_time", bare_start, "s")
    figure("cold_start", statistics.median(starts), "s")
    figure("cold_start_to_bare_import", statistics.median(starts) / bare_start, at_most=3)


def _bare_import() -> tuple[float, float]:
    times, memory = [], 0.0
    for _ in range(_RUNS):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", _BARE], check=True, capture_output=True, text=True)
        times.append(time.monotonic() - began)
        memory = _rss(done.stdout)
    return memory, statistics.median(times)


def _rss(status: str) -> float:
    """MB, from /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _children(task: Path) -> list[str]:
    """The pids of the processes that a thread has started."""
    return (task / "children").read_text().split()


def _enroll_leaf(stage: Stage) -> None:
    added = stage.ctl_json("device", "add", "leaf-1")
    leaf = Leaf(stage.directory / "leaf-1", "leaf-1", added["est_url"], stage.lab.web_root, stage.environment)
    leaf.make_key()
    leaf.fetch_anchors(stage.lab.ca_root)
    leaf.enroll(added["code"])
    stage.wait_for("the link", lambda: stage.ctl_json("status")["hub"]["state"] == "connected")


def _cold_start(stage: Stage) -> float:
    """Seconds from exec to READY=1."""
    path = str(stage.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(path)
        ear.settimeout(30)
        stage.environment["NOTIFY_SOCKET"] = path
        began = time.monotonic()
        stage.spawn_daemon()
        while "READY=1" not in ear.recv(4096).decode():
            pass
        took = time.monotonic() - began
    os.unlink(path)
    return took


if __name__ == "__main__":
    main()
