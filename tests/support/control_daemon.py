"""The real ControlService around the fake operations, as a process: ``python -m tests.support.control_daemon ADDRESS``.

Prints one line when it is on the bus. Lines on standard input: ``gate`` holds work after its first step, ``open`` lets
it go on, ``fail NAME`` makes work end in that error, ``leaves N`` is how many leaves there are, ``troubles N`` how many
things wait for a person, ``file PATH`` what it takes for its configuration; end of file stops it. Each is answered by a
line when it is done.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType

from gatewayd.config import ControlSettings
from gatewayd.control.service import ControlService
from gatewayd.errors import all_errors

from .fake_operations import GATEWAY, FakeOperations, device


class Daemon:
    """That process, from a test: running within ``with``."""

    def __init__(self, address: str, python: Sequence[str] = (sys.executable,)) -> None:
        """``python`` is the command line of an interpreter that finds our modules."""
        command = [*python, "-m", __name__, address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def __enter__(self) -> Daemon:
        self._hear()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.communicate(timeout=20)

    def tell(self, line: str) -> None:
        """Returns when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        self._hear()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline()


async def serve(address: str) -> None:
    operations = FakeOperations()
    service = ControlService(operations, ControlSettings(bus=address), GATEWAY)
    await service.start()
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        if line[0] == "gate":
            operations.gate = asyncio.Event()
        elif line[0] == "open" and operations.gate:
            operations.gate.set()
        elif line[0] == "fail":
            operations.failure = all_errors()[line[1]]("the CA said no")
        elif line[0] == "leaves":
            leaves = {f"leaf-{number}": device(f"leaf-{number}") for number in range(int(line[1]))}
            operations.devices = {GATEWAY: operations.devices[GATEWAY], **leaves}
        elif line[0] == "troubles":
            trouble = {"what": "The gateway has no certificate.", "error": "NotBootstrapped", "remedy": "Get it one."}
            operations.waiting = [trouble] * int(line[1])
        elif line[0] == "file":
            operations.file = line[1]
        print("ok", flush=True)
    await service.stop()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
