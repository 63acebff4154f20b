"""A Debian machine that boots, in a container: systemd as PID 1, its own network, its own disk.

systemd-nspawn does the booting. Its trees are made by debootstrap once for each release and kept under ``build/roots``;
each machine writes to an overlay of its own, which lasts over reboots and goes with the machine.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]
ROOTS = REPOSITORY / "build" / "roots"

_CGROUPS = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
_CLONE_NEWNET = 0x40000000
_BASE = (
    "systemd systemd-sysv dbus python3 python3-gi python3-pydbus gir1.2-glib-2.0 softhsm2 ca-certificates debconf"
    " opensc sqlite3"
)
_BUILD = "python3-pip python3-setuptools binutils gcc libc6-dev python3-dev"


class CannotBoot(Exception):
    """This machine cannot boot a container; the sentence says why."""


def tree(suite: str) -> Path:
    """The release with what the package depends on, made at first use (about a minute)."""
    root = ROOTS / suite
    if (root / "made").exists():
        return root / "tree"
    if os.geteuid() != 0:
        raise CannotBoot("debootstrap and systemd-nspawn need root")
    for program in ("debootstrap", "systemd-nspawn"):
        if shutil.which(program) is None:
            raise CannotBoot(f"{program} is not installed")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    _sh(["debootstrap", "--variant=minbase", suite, str(root / "tree")])
    _apt(root / "tree", _BASE)
    (root / "made").touch()
    return root / "tree"


def _apt(root: Path, packages: str) -> None:
    script = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    _sh(["chroot", str(root), "sh", "-c", script], env=environment)


def _sh(command: Sequence[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise CannotBoot(f"{' '.join(command)}: exit {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    output: str = done.stdout
    return output


@contextmanager
def overlay(lower: Path) -> Iterator[Path]:
    """``lower`` as a tree that may be written to without changing it."""
    # Not below /tmp where that is a tmpfs: an overlay's upper side wants a real file system.
    ROOTS.mkdir(parents=True, exist_ok=True)
    top = Path(tempfile.mkdtemp(dir=ROOTS, prefix="overlay-"))
    for name in ("upper", "work", "merged"):
        (top / name).mkdir()
    options = f"lowerdir={lower},upperdir={top / 'upper'},workdir={top / 'work'}"
    _sh(["mount", "-t", "overlay", "overlay", "-o", options, str(top / "merged")])
    try:
        yield top / "merged"
    finally:
        subprocess.run(["umount", "--recursive", str(top / "merged")], check=False)
        shutil.rmtree(top, ignore_errors=True)


def build_package(suite: str, output: Path) -> Path:
    """The .deb for this release, built inside it."""
    base = tree(suite)
    with overlay(base) as root:
        pip_settings = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        _apt(root, _BUILD)
        for name in ("source", "out"):
            (root / name).mkdir()
        files = _sh(["git", "-C", str(REPOSITORY), "ls-files"]).split()
        for each in files:
            target = root / "source" / each
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / each, target)
        # The registries as this machine reaches them.
        for shared in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
            if Path(shared).exists():
                target = root / shared.lstrip("/")
                target.unlink(missing_ok=True)
                shutil.copy(shared, target)
        epoch = _sh(["git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct"]).strip()
        environment = pip_settings | {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": epoch}
        _sh(["chroot", str(root), "sh", "/source/packaging/build-deb", "/source", "/out"], env=environment)
        (built,) = (root / "out").glob("*.deb")
        output.mkdir(parents=True, exist_ok=True)
        shutil.copy(built, output / built.name)
    return output / built.name


class Machine:
    """Boots a tree; leaving the context ends it."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)

    def __enter__(self) -> Machine:
        self.boot()
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
        state = wait_for(self._settled, "systemd")
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
