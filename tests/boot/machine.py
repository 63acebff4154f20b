"""A Debian machine that boots, in a container: systemd as PID 1, its own network, its own disk.

systemd-nspawn does the booting, on an overlay (package.py) that lasts over reboots and goes with the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from .package import CannotBoot

T = TypeVar("T")

_CGROUPS = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
_CLONE_NEWNET = 0x40000000


class Machine:
    """Boots a tree; leaving the context ends it."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)

    def __enter__(self) -> Machine:
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.shut_down()
        os.close(self._home)

    def boot(self) -> None:
        """Until systemd says ``running`` (or ``degraded``: then the failed units are in the error)."""
        cgroups = [f"{each}/gatewayd-{self._name}" for each in _CGROUPS if Path(each, "cgroup.procs").exists()]
        moves = "".join(f"mkdir -p {each} && echo $$ > {each}/cgroup.procs && " for each in cgroups)
        spawn = (
            f"systemd-nspawn -q -D {self.root} -M {self._name} --register=no --keep-unit --private-network"
            " --console=pipe -b"
        )
        log = (self.root.parent / "console.log").open("ab")
        self._process = subprocess.Popen(
            ["sh", "-c", f"{moves} exec {spawn}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()
        self._leader = wait_for(self._find_leader, "the container's init")
        state = wait_for(self._settled, "systemd", within=120)
        if state != "running":
            raise CannotBoot(f"systemd is {state}: {self.run('systemctl', '--failed', '--no-legend')}")

    def _find_leader(self) -> int:
        assert self._process is not None
        if self._process.poll() is not None:
            raise CannotBoot(f"systemd-nspawn ended:\n{(self.root.parent / 'console.log').read_text()[-1500:]}")
        found = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False)
        return int(found.stdout.split()[0]) if found.stdout.split() else 0

    def _settled(self) -> str:
        done = self._enter(["systemctl", "is-system-running"])
        state = done.stdout.strip()
        return state if state in ("running", "degraded") else ""

    def shut_down(self) -> None:
        self.leave_network()
        assert self._process is not None
        os.kill(self._leader, signal.SIGRTMIN + 3)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        for each in _CGROUPS:
            self._remove_cgroup(Path(each) / f"gatewayd-{self._name}")

    @staticmethod
    def _remove_cgroup(top: Path) -> None:
        if top.is_dir():
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    return

    def reboot(self) -> None:
        self.shut_down()
        self.boot()

    def _enter(self, command: Sequence[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
        return subprocess.run(
            ["nsenter", "-t", str(self._leader), "-a", *command],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment,
        )

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """What it printed, stderr behind stdout."""
        done = self._enter(command, stdin)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def output(self, *command: str, stdin: str | None = None) -> str:
        """Its stdout alone."""
        done = self._enter(command, stdin)
        assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def exit_code(self, *command: str) -> int:
        return self._enter(command).returncode

    @contextmanager
    def disk(self, image: Path, megabytes: int) -> Iterator[str]:
        """A disk of this size with an empty ext4, by the name of its device, there and here."""
        with image.open("wb") as file:
            file.truncate(megabytes * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
        found = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
        device = found.stdout.strip()
        try:
            number = os.stat(device).st_rdev
            self.run("mknod", device, "b", str(os.major(number)), str(os.minor(number)))
            yield device
            self.run("rm", device)
        finally:
            subprocess.run(["losetup", "--detach", device], check=False)

    @contextmanager
    def starving(self, pid: int) -> Iterator[Callable[[], int]]:
        """Give a process of the machine's, by its number there, no more memory: whatever it asks for next is its end.
        Yields a look at how many the kernel has killed for it."""
        cgroup = Path("/sys/fs/cgroup/memory", f"gatewayd-{self._name}-starving")
        if not cgroup.parent.is_dir():
            raise CannotBoot("there is no memory controller of cgroup v1 to make a process starve with")
        cgroup.mkdir(exist_ok=True)
        try:
            (cgroup / "memory.limit_in_bytes").write_text("65536")
            (cgroup / "cgroup.procs").write_text(str(self._outside(pid)))
            yield lambda: int(re.search(r"oom_kill (\d+)", (cgroup / "memory.oom_control").read_text())[1])  # type: ignore[index]
        finally:
            wait_for(lambda: not (cgroup / "cgroup.procs").read_text(), "the end of the starved")
            cgroup.rmdir()

    def _outside(self, pid: int) -> int:
        """The number that a process of the machine's has here."""
        namespace = os.readlink(f"/proc/{self._leader}/ns/pid")
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = re.search(r"^NSpid:(.*)$", status.read_text(), re.MULTILINE)
                same = numbers is not None and int(numbers[1].split()[-1]) == pid
                if same and os.readlink(status.with_name("ns") / "pid") == namespace:
                    return int(status.parent.name)
        raise AssertionError(f"there is no process {pid} in the machine")

    def enter_network(self) -> None:
        """From now on this thread, and what it starts, is in the machine's network: stand-ins and leaves of the test
        are its neighbours."""
        with open(f"/proc/{self._leader}/ns/net") as there:
            _setns(there.fileno())

    def leave_network(self) -> None:
        _setns(self._home)


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def wait_for(condition: Callable[[], T], what: str, within: float = 40.0) -> T:
    """Look until ``condition`` gives something true."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited {within:.0f} s in vain for {what}")
