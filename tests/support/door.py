"""A small system of its own around the real daemon: a bus with the shipped policy, polkitd with the shipped actions and
rules, and users and groups as the package makes them.

polkitd reads from the system's folders and everybody's groups are in /etc/group: so all of it runs in a mount namespace
in which those are ours. Nothing of the machine is changed, and nothing is left behind. It takes root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .bus import LIKE_THE_SYSTEM_BUS, Bus
from .control_daemon import Daemon

REPOSITORY = Path(__file__).parents[2]
ROOT = "/org/gatewayd/Gateway1"
POLKITD = "/usr/lib/polkit-1/polkitd"
_POLKITS_POLICY = Path("/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf")

USERS = {"gatewayd": 64100, "door-operator": 64101, "door-technician": 64102, "door-stranger": 64103}
_MEMBERS = {"gatewayd-operators": (64201, "door-operator"), "gatewayd-technicians": (64202, "door-technician")}

_ENTER = """
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
exec "$@"
"""


class Caller:
    """A user with a connection to the bus."""

    def __init__(self, command: Sequence[str], address: str) -> None:
        script = Path(__file__).with_name("door_caller.py").read_text("utf-8")
        self._process = subprocess.Popen(
            [*command, "/usr/bin/python3", "-c", script, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(
        self, interface: str, member: str, *arguments: str, types: Sequence[str], path: str = ROOT, flags: int = 0
    ) -> tuple[str | None, str]:
        """The error's D-Bus name and its words, or None and the answer."""
        order = {"path": path, "interface": interface, "member": member, "types": types, "arguments": arguments}
        answer = self._ask(json.dumps({**order, "flags": flags}))
        return answer["error"], answer["message"]

    def heard(self) -> set[tuple[str, str]]:
        """The signals of gatewayd's since the beginning: path and name."""
        return {(path, name) for path, name in self._ask("")}

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Door:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shipped = REPOSITORY / "systemd"
        users = [f"{name}:x:{uid}:{uid}::/:/bin/sh" for name, uid in USERS.items()]
        groups = [f"{name}:x:{uid}:" for name, uid in USERS.items()]
        groups += [f"{name}:x:{gid}:{member}" for name, (gid, member) in _MEMBERS.items()]
        mounts = [
            (self._with(Path("/etc/passwd"), users), "/etc/passwd"),
            (self._with(Path("/etc/group"), groups), "/etc/group"),
            (self._folder_of("actions", shipped / "org.gatewayd.policy"), "/usr/share/polkit-1/actions"),
            (self._folder_of("rules", shipped / "gatewayd.rules"), "/usr/share/polkit-1/rules.d"),
            (self._folder_of("local-rules"), "/etc/polkit-1/rules.d"),
            # The daemon's user may not be able to enter the folders above these two.
            (REPOSITORY, self._folder_of("checkout")),
            (Path(sys.prefix).resolve(), self._folder_of("venv")),
        ]
        pairs = [str(each) for pair in mounts for each in pair]
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _ENTER, "sh", *pairs, "--"]
        policies = [shipped / "org.gatewayd.Gateway1.conf", _POLKITS_POLICY]
        self.bus = Bus(folder, LIKE_THE_SYSTEM_BUS, policies, prefix)
        self._polkitd: subprocess.Popen[bytes] | None = None

    def within(self, user: str = "root") -> list[str]:
        """The beginning of a command line that runs the rest of it as this user, in a login of its own."""
        enter = ["nsenter", f"--target={self.bus.pid}", "--mount", "--"]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*enter, *([] if user == "root" else become)]

    def start_polkitd(self) -> None:
        """Returns when it is on the bus."""
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.bus.address}
        self._polkitd = subprocess.Popen([*self.within(), POLKITD, "--no-debug"], env=environment)
        ask = ["gdbus", "wait", f"--address={self.bus.address}", "--timeout=10", "org.freedesktop.PolicyKit1"]
        subprocess.run(ask, check=True)

    def stop_polkitd(self) -> None:
        if self._polkitd is not None:
            self._polkitd.kill()
            self._polkitd.wait()
            self._polkitd = None

    @contextmanager
    def frozen_polkitd(self) -> Iterator[None]:
        assert self._polkitd is not None
        self._polkitd.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._polkitd.send_signal(signal.SIGCONT)

    def daemon(self) -> Daemon:
        """As its own user, who has no right that the package does not give."""
        return Daemon(self.bus.address, self.python("gatewayd"))

    def python(self, user: str) -> list[str]:
        """The beginning of a command line: the interpreter that finds our modules, as this user."""
        interpreter = self._folder / "venv" / "bin" / "python"
        return [*self.within(user), "env", "-C", str(self._folder / "checkout"), str(interpreter)]

    def _with(self, original: Path, lines: Sequence[str]) -> Path:
        """A copy with these lines, and without others for the same names."""
        names = {line.split(":")[0] for line in lines}
        kept = [line for line in original.read_text().splitlines() if line.split(":")[0] not in names]
        copy = self._folder / original.name
        copy.write_text("\n".join([*kept, *lines, ""]))
        return copy

    def _folder_of(self, name: str, *files: Path) -> Path:
        folder = self._folder / name
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder)
        return folder


@contextmanager
def door() -> Iterator[Door]:
    """Without polkitd and without the daemon: they are started when they are wanted."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="gatewayd-door-"))
        folder.chmod(0o755)
        stack.callback(shutil.rmtree, folder)
        made = Door(folder)
        stack.callback(made.bus.kill)
        stack.callback(made.stop_polkitd)
        yield made
