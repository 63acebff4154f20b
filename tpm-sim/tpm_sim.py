"""A TPM 2.0 in software with a PKCS#11 token in it, for tests and the demo; and what can happen to a TPM.

``swtpm`` is the TPM, ``resource_manager.py`` stands before it as /dev/tpmrm0 does, ``libtpm2-pkcs11-1`` makes a token
of it. All its state lies in one directory, and so does all that is known of its processes: any process may steer it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

MODULE = Path("/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1")

_MANAGER = Path(__file__).with_name("resource_manager.py")
_STARTS_WITHIN = 10.0
_NV_SIZE = 2048
"""Octets of one NV index of ``fill``."""


class TpmSimError(Exception):
    """The simulator did not do what it was asked to."""


class TpmSim:
    """The TPM in ``directory``, whether it runs or not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.store = self.directory / "store"
        """The token's database: the keys in it are encrypted for this TPM."""
        self._state = self.directory / "state"

    @property
    def tcti(self) -> str:
        """For TPM2_PKCS11_TCTI and TPM2TOOLS_TCTI."""
        # Not the swtpm TCTI: it makes a connection for each command, and the resource manager tells clients by theirs.
        # The cmd TCTI ends its process with SIGTERM, which the process must not have inherited as ignored.
        port = (self.directory / "port").read_text()
        return f"cmd:exec env --default-signal=TERM socat - TCP:127.0.0.1:{port}"

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment that the PKCS#11 module and tpm2-tools need."""
        return {
            "TPM2_PKCS11_TCTI": self.tcti,
            "TPM2_PKCS11_STORE": str(self.store),
            "TPM2_PKCS11_LOG_LEVEL": "0",
            "TPM2TOOLS_TCTI": self.tcti,
            "TSS2_LOG": "all+none",
        }

    # --- power -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Power on: a new TPM, or the one that was here before. Does nothing when it runs."""
        for each in (self.directory, self.store, self._state):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._pid("manager"):
            self._start_manager()
        if not self._pid("swtpm"):
            self._start_swtpm()

    def _start_manager(self) -> None:
        port_file = self.directory / "port"
        port = int(port_file.read_text()) if port_file.exists() else _unused_port()
        port_file.write_text(str(port))
        self._spawn("manager", [sys.executable, str(_MANAGER), str(port)])
        self._wait("the resource manager", lambda: _listens(port))

    def _start_swtpm(self) -> None:
        path = self.directory / "tpm.sock"
        path.unlink(missing_ok=True)
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}", "--seccomp", "action=none"]
        command += ["--server", "type=unixio,path=tpm.sock", "--ctrl", "type=unixio,path=tpm.ctrl"]
        self._spawn("swtpm", [*command, "--flags", "not-need-init,startup-clear"])
        self._wait("swtpm", path.exists)

    def stop(self) -> None:
        """Power off in order."""
        self._end("swtpm", signal.SIGTERM)
        self._end("manager", signal.SIGTERM)

    # --- what can happen to a TPM ----------------------------------------------------------------

    def kill(self) -> None:
        """Gone from one moment to the next, as by a fault of its bus. ``start`` brings it back."""
        self._end("swtpm", signal.SIGKILL)

    def freeze(self) -> None:
        """It takes commands and does not answer until ``thaw``."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def clear(self) -> None:
        """TPM2_Clear, as by somebody at the firmware's menu: all its keys are worthless from now on."""
        self.tool("tpm2_clear", "-c", "p")

    def slow(self, milliseconds: float) -> None:
        """Each command takes so much longer; 0: not. A real TPM needs 100 to 200 ms to sign."""
        delay = self.directory / "delay"
        if milliseconds <= 0:
            delay.unlink(missing_ok=True)
            return
        fresh = delay.with_suffix(".new")
        fresh.write_text(str(milliseconds))
        fresh.replace(delay)

    def fill(self) -> None:
        """Take up its non-volatile memory, for keys and for data, until nothing fits any more."""
        context = str(self.directory / "primary.ctx")
        self.tool("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", context)
        handles = iter(range(0x81010000, 0x81020000))
        while self._fits("tpm2_evictcontrol", "-C", "o", "-c", context, hex(next(handles))):
            pass
        for size in (_NV_SIZE, 8):
            while self._fits("tpm2_nvdefine", "-C", "o", "-s", str(size)):
                pass

    def _fits(self, *command: str) -> bool:
        try:
            self.tool(*command)
        except TpmSimError:
            return False
        return True

    def backup(self, target: Path) -> None:
        """A copy of the token's database, as backups have it."""
        shutil.copytree(self.store, target)

    def restore(self, source: Path) -> None:
        shutil.rmtree(self.store)
        shutil.copytree(source, self.store)

    # --- tools -----------------------------------------------------------------------------------

    def tool(self, *command: str, within: float = 30.0) -> str:
        """Run one of tpm2-tools on it; its output. Raises TpmSimError."""
        done = subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True, timeout=within, check=False
        )
        if done.returncode != 0:
            raise TpmSimError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    # --- processes -------------------------------------------------------------------------------

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            # In the directory, because a socket's path has a hundred octets at most and the directory's may be longer.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                umask=0o077,
            )
        (self.directory / f"{name}.pid").write_text(str(process.pid))

    def _pid(self, name: str) -> int | None:
        """The process, if it lives: a file may speak of one that is gone."""
        try:
            pid = int((self.directory / f"{name}.pid").read_text())
            there = Path(f"/proc/{pid}/cwd").readlink()
        except (OSError, ValueError):
            return None
        return pid if there == self.directory else None

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self._pid("swtpm")) is None:
            raise TpmSimError("swtpm does not run")
        os.kill(pid, number)

    def _end(self, name: str, how: signal.Signals) -> None:
        pid = self._pid(name)
        if pid is None:
            return
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, how)
        self._wait(f"{name} to end", lambda: self._reaped(pid) or self._pid(name) is None)

    @staticmethod
    def _reaped(pid: int) -> bool:
        """Whether it was a child of this process that has just ended."""
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return False

    @staticmethod
    def _wait(what: str, condition: object) -> None:
        assert callable(condition)
        end = time.monotonic() + _STARTS_WITHIN
        while not condition():
            if time.monotonic() > end:
                raise TpmSimError(f"waited {_STARTS_WITHIN:.0f} s in vain for {what}")
            time.sleep(0.02)


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tpm_sim.py", description="A TPM in software, and what can happen to one.")
    parser.add_argument("--dir", type=Path, default=Path("tpm-state"), help="its state (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start", help="power on; prints the environment for the PKCS#11 module and tpm2-tools")
    provision = commands.add_parser("provision", help="make a token in it; its PIN is read from standard input")
    provision.add_argument("label", nargs="?", default="gatewayd")
    for name in ("stop", "kill", "freeze", "thaw", "clear", "fill"):
        method = getattr(TpmSim, name).__doc__ or "Let it answer again."
        commands.add_parser(name, help=method.splitlines()[0].rstrip("."))
    slow = commands.add_parser("slow", help="make each command take longer")
    slow.add_argument("milliseconds", type=float)
    options = parser.parse_args(argv)
    tpm = TpmSim(options.dir)
    try:
        if options.command == "provision":
            _provision(tpm, options.label, sys.stdin.readline().rstrip("\n"))
        elif options.command == "slow":
            tpm.slow(options.milliseconds)
        else:
            getattr(tpm, options.command)()
    except TpmSimError as error:
        print(f"tpm_sim.py: {error}", file=sys.stderr)
        return 1
    if options.command == "start":
        print("".join(f"export {name}='{value}'\n" for name, value in tpm.variables.items()), end="")
    return 0


def _provision(tpm: TpmSim, label: str, pin: str) -> None:
    from gatewayd.errors import GatewayError
    from gatewayd.keys.pin import Pin
    from gatewayd.keys.provision import init_token

    os.environ.update(tpm.variables)
    os.umask(0o077)
    try:
        token = init_token(MODULE, label, None, Pin(pin))
    except GatewayError as error:
        raise TpmSimError(error.message) from error
    print(f"Token {token.label!r} {'was made' if token.created else 'is there already'}; its module: {MODULE}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
