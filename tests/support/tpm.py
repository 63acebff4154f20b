"""A private TPM with a token in it for a test.

Like ``tests.support.softhsm``: tests of one process use it one after the other, because tpm2-pkcs11 reads its
environment in C_Initialize; a process of its own gets ``tpm.env``. The template is made once and copied.

Use: ``from tests.support.tpm import tpm, tpm_template`` in a ``conftest.py``, or ``create(directory)``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pkcs11
import pytest
from tpm_sim import MODULE, TpmSim

from gatewayd.keys.pin import Pin
from tests.support.softhsm import INIT, LABEL, PIN, finalize, in_terminal


@dataclass(frozen=True)
class TpmToken:
    sim: TpmSim
    label: str = LABEL
    pin_text: str = PIN
    module: Path = MODULE

    @property
    def uri(self) -> str:
        return f"pkcs11:token={self.label}"

    @property
    def pin(self) -> Pin:
        return Pin(self.pin_text)

    @property
    def env(self) -> Mapping[str, str]:
        """The environment for a process that is to use this token."""
        return {**os.environ, **self.sim.variables}

    def tool(self, *arguments: str, login: bool = False, timeout: float = 30.0) -> str:
        """Run ``pkcs11-tool`` on this token; its output. Raises CalledProcessError."""
        command = ["pkcs11-tool", "--module", str(self.module), "--token-label", self.label, *arguments]
        if not login:
            return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True).stdout
        return in_terminal([*command, "--login"], self.env, self.pin_text, timeout)

    def initialize(self) -> None:
        """Make the token, by a process of its own."""
        asked = json.dumps({"module": str(self.module), "label": self.label, "pin": self.pin_text})
        command = [sys.executable, "-c", INIT]
        subprocess.run(command, env=self.env, input=asked, text=True, check=True, timeout=30, umask=0o077)


def create(directory: Path) -> TpmToken:
    """Start a TPM under ``directory`` and make a token in it. Stop it with ``sim.stop()``."""
    token = TpmToken(TpmSim(directory))
    token.sim.start()
    token.initialize()
    return token


@pytest.fixture(scope="session")
def tpm_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a TPM that is switched off."""
    directory = tmp_path_factory.mktemp("tpm")
    create(directory).sim.stop()
    return directory


@pytest.fixture
def tpm(tpm_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TpmToken]:
    """A TPM of the test's own, with a fresh token; this process' module is pointed at it."""
    directory = tmp_path / "tpm"
    for name in ("state", "store"):
        shutil.copytree(tpm_template / name, directory / name)
    sim = TpmSim(directory)
    sim.start()
    _finalize()
    for name, value in sim.variables.items():
        monkeypatch.setenv(name, value)
    yield TpmToken(sim)
    _finalize()
    sim.stop()


def _finalize() -> None:
    """It initialises the module to finalise it, which fails where there is no TPM, and then nothing was initialised."""
    with contextlib.suppress(pkcs11.PKCS11Error):
        finalize(MODULE)
