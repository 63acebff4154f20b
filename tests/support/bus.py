"""A bus of our own: ``dbus-daemon`` on a socket in a folder of its own, which everybody on the machine may enter."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OPEN = """
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
"""
"""Everybody may do everything: what is refused is refused by the service."""

LIKE_THE_SYSTEM_BUS = """
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
"""
"""What a system bus lets through before any service's own policy is added."""

_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    {policy}
  </policy>
  {include}
  <limit name="max_replies_per_connection">50000</limit>
</busconfig>
"""


class Bus:
    """``address`` stays the same over ``kill`` and ``start``."""

    def __init__(
        self, folder: Path, policy: str = OPEN, include: Sequence[Path] = (), prefix: Sequence[str] = ()
    ) -> None:
        """``include`` are policy files; ``prefix`` is the beginning of the command line, which runs the rest."""
        self._prefix = prefix
        self._socket = folder / "bus"
        self._config = folder / "bus.conf"
        self.address = f"unix:path={self._socket}"
        included = "".join(f"<include>{each}</include>" for each in include)
        self._config.write_text(_CONFIG.format(socket=self._socket, policy=policy, include=included))
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = ["dbus-daemon", f"--config-file={self._config}", "--print-address=1", "--nofork", "--nopidfile"]
        self._process = subprocess.Popen([*self._prefix, *command], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(self.address)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._socket.unlink(missing_ok=True)


@contextmanager
def private_bus() -> Iterator[Bus]:
    folder = Path(tempfile.mkdtemp(prefix="gatewayd-bus-"))
    folder.chmod(0o755)
    bus = Bus(folder)
    try:
        yield bus
    finally:
        bus.kill()
        shutil.rmtree(folder)


def as_user(uid: int, groups: Sequence[int] = ()) -> list[str]:
    """The beginning of a command line that runs the rest of it as ``uid``."""
    membership = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", membership]


def gdbus(bus: str, method: str, *arguments: str, path: str = "/org/gatewayd/Gateway1", uid: int | None = None) -> str:
    """What an integrator would type: the answer, or CalledProcessError with gdbus' words in ``stderr``."""
    who = [] if uid is None else as_user(uid)
    call = ["gdbus", "call", f"--address={bus}", "--dest=org.gatewayd.Gateway1", f"--object-path={path}"]
    finished = subprocess.run(
        [*who, *call, f"--method={method}", "--timeout=20", "--", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.strip()


def busctl(bus: str, *arguments: str) -> Any:
    """busctl's JSON."""
    command = ["busctl", f"--address={bus}", "--json=short", *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
