"""The tokens that the daemon's keys may be in: SoftHSM's, or a TPM's that tpm-sim/ simulates."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

_TPM_SIM = Path(__file__).parents[3] / "tpm-sim" / "tpm_sim.py"


class Token(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def module(self) -> str: ...

    def start(self) -> Mapping[str, str]:
        """Set it up, without a token in it; what the module needs in its environment."""

    def stop(self) -> None: ...


class SoftHsm:
    name = "SoftHSM"
    module = "/usr/lib/softhsm/libsofthsm2.so"

    def __init__(self, directory: Path) -> None:
        self._configuration = directory / "softhsm2.conf"
        self._tokens = directory / "tokens"

    def start(self) -> Mapping[str, str]:
        self._tokens.mkdir(mode=0o700)
        self._configuration.write_text(
            f"directories.tokendir = {self._tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        return {"SOFTHSM2_CONF": str(self._configuration)}

    def stop(self) -> None:
        pass


class Tpm:
    name = "a TPM 2.0 (swtpm)"
    module = "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1"

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "tpm"

    def start(self) -> Mapping[str, str]:
        exports = (shlex.split(line)[1].partition("=") for line in self.run("start").splitlines())
        return {name: value for name, _, value in exports}

    def stop(self) -> None:
        self.run("stop")

    def run(self, *command: str) -> str:
        """One of tpm_sim.py's commands: kill, freeze, thaw, clear, slow… Raises CalledProcessError."""
        line = [sys.executable, str(_TPM_SIM), "--dir", str(self._directory), *command]
        return subprocess.run(line, check=True, capture_output=True, text=True, timeout=60).stdout


TOKENS: dict[str, Callable[[Path], Token]] = {"softhsm": SoftHsm, "tpm": Tpm}
