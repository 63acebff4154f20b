"""A private SoftHSM token for a test.

SoftHSM reads ``SOFTHSM2_CONF`` in C_Initialize, which belongs to the whole process. So each test gets a token
directory and a configuration of its own, and nothing of SoftHSM stays initialised from one test to the next: the
fixture finalises it before it points the variable elsewhere. Within a test, one key store at a time may be open; for a
daemon in a process of its own pass ``softhsm.env``, and nothing is shared at all.

Tokens are made once, in a process of their own, and then copied: a token is a directory of files.

Use: ``from tests.support.softhsm import softhsm, softhsm_template`` in a ``conftest.py``, or ``create(directory)``
without any fixture.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pkcs11
import pytest

from gatewayd.keys.pin import Pin

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
SPY = Path("/usr/lib/x86_64-linux-gnu/pkcs11-spy.so")
PIN = "tiny-test-pin"
LABEL = "gatewayd-test"

INIT = """
import json, sys
from pathlib import Path
from gatewayd.keys.pin import Pin
from gatewayd.keys.provision import init_token
asked = json.load(sys.stdin)
init_token(Path(asked["module"]), asked["label"], None, Pin(asked["pin"]))
"""


@dataclass(frozen=True)
class SoftHsm:
    directory: Path
    label: str = LABEL
    pin_text: str = PIN
    module: Path = MODULE

    @property
    def conf(self) -> Path:
        return self.directory / "softhsm2.conf"

    @property
    def tokens(self) -> Path:
        return self.directory / "tokens"

    @property
    def uri(self) -> str:
        return f"pkcs11:token={self.label}"

    @property
    def pin(self) -> Pin:
        return Pin(self.pin_text)

    @property
    def env(self) -> Mapping[str, str]:
        """The environment for a process that is to use this token."""
        return {**os.environ, "SOFTHSM2_CONF": str(self.conf)}

    def tool(self, *arguments: str, login: bool = False, timeout: float = 20.0) -> str:
        """Run ``pkcs11-tool`` on this token; its output. Raises CalledProcessError.

        The tool takes a PIN from its command line or from a terminal only: it gets a terminal.
        """
        command = ["pkcs11-tool", "--module", str(self.module), "--token-label", self.label, *arguments]
        if not login:
            return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True).stdout
        return in_terminal([*command, "--login"], self.env, self.pin_text, timeout)

    def prepare(self) -> None:
        """The directories and the configuration, without a token."""
        self.tokens.mkdir(parents=True, mode=0o700)
        self.conf.write_text(
            f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n", encoding="utf-8"
        )


def create(directory: Path, label: str = LABEL) -> SoftHsm:
    """Make a token under ``directory`` by a process of its own."""
    hsm = SoftHsm(directory, label)
    hsm.prepare()
    asked = json.dumps({"module": str(hsm.module), "label": label, "pin": hsm.pin_text})
    subprocess.run([sys.executable, "-c", INIT], env=hsm.env, input=asked, text=True, check=True, timeout=30)
    return hsm


@pytest.fixture(scope="session")
def softhsm_template(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return create(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture
def softhsm(softhsm_template: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftHsm]:
    """A fresh token; this process' SoftHSM is pointed at it."""
    hsm = SoftHsm(tmp_path / "softhsm")
    hsm.prepare()
    shutil.copytree(softhsm_template.tokens, hsm.tokens, dirs_exist_ok=True)
    finalize()
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.conf))
    yield hsm
    finalize()


def finalize(module: Path = MODULE) -> None:
    """Leave nothing of the module initialised in this process, so that its configuration is read anew.

    In a thread of its own: what SoftHSM leaves in OpenSSL's error queue would be taken there for a fault of the ``ssl``
    module's next call.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: pkcs11.lib(str(module)).finalize()).result()


def in_terminal(command: list[str], env: Mapping[str, str], pin: str, timeout: float) -> str:
    """Run a command that asks for a PIN at a terminal, and answer; what it wrote after that."""
    controller, terminal = pty.openpty()
    try:
        with subprocess.Popen(command, env=env, stdin=terminal, stdout=terminal, stderr=terminal) as process:
            try:
                _wait_for_prompt(terminal, process, timeout)
                os.write(controller, pin.encode() + b"\n")
                output = _read(controller, process, timeout)
            except BaseException:
                process.kill()
                raise
    finally:
        os.close(terminal)
        os.close(controller)
    text = output.decode().replace("\r\n", "\n")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, text)
    return text


def _wait_for_prompt(terminal: int, process: subprocess.Popen[bytes], timeout: float) -> None:
    """What is typed before the echo is switched off is thrown away."""
    deadline = time.monotonic() + timeout
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        if process.poll() is not None:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the PIN was not asked for")
        time.sleep(0.005)


def _read(controller: int, process: subprocess.Popen[bytes], timeout: float) -> bytes:
    """All that the process writes until it ends."""
    output = b""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        while select.select([controller], [], [], 0.01)[0]:
            output += os.read(controller, 65536)
        if ended:
            return output
    raise TimeoutError("the tool did not end")
