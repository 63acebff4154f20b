"""Starting and ending the processes that a token needs: its own (helper.py), and one that attests (attestation.py)."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from .channel import Channel
from .uri import Pkcs11Uri

_ENDS_WITHIN: Final = 2.0
"""Seconds to finalise the module, before the process is killed: a TPM keeps the handles of one that was not."""


# Isolated (-I): neither the current directory nor PYTHONPATH decides what the process that holds the PIN imports; it is
# told where this very package lies, which a system package keeps outside the interpreter's own path.
_PROGRAM: Final = """\
import sys
from importlib import import_module
sys.path.insert(0, sys.argv.pop(1))
import_module(f"gatewayd.keys.{sys.argv.pop(1)}").main()
"""
_PACKAGE: Final = str(Path(__file__).parents[2])


class Process(Protocol):
    channel: Channel

    def end(self) -> str:
        """Have it finalise and end, killing it when that takes too long; how it ended, as the rest of a sentence."""

    def kill(self) -> None: ...


Spawn = Callable[[Path, Pkcs11Uri], Process]
"""Starts the process for a module and the token in it that a URI names."""


class ChildProcess:
    """One interpreter that runs ``main`` of a module of this package. Spawned without running any of our code between
    fork and exec; it inherits one descriptor, and nothing secret on its command line or in its environment."""

    def __init__(self, program: str, *arguments: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-I", "-c", _PROGRAM, _PACKAGE, program, str(theirs.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self.channel = Channel(ours)

    def end(self) -> str:
        self.channel.close()
        try:
            code = self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            return "hung and was killed"
        return f"ended with {_signal_name(-code) if code < 0 else f'exit status {code}'}"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class HelperProcess(ChildProcess):
    """The token's own process."""

    def __init__(self, module: Path, wanted: Pkcs11Uri) -> None:
        super().__init__("helper", str(module), str(wanted))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
