"""A whole plant on one machine: the stand-ins, a bus, a token, the real daemon and the real gatewayctl.

The daemon is started as its users start it, as a process of its own with a configuration file; nothing here reaches
into it. The demo plays on this stage, and so do the end-to-end tests.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, Self, TypeVar

from ..cloud import Lab
from .tokens import SoftHsm, Token

T = TypeVar("T")

APPLICATION = "0d6d4a52-5d3c-4f0e-8a44-1f0c6c1f0a02"
APPLICATION_OBJECT = "b7a3c1d8-93a4-4a34-9d8e-55f2f60f0a03"
OWNER = "c81e728d-9d4c-4f63-af06-7f89cc1c0a04"
EST_PORT = 9443
PAGE_PORT = 9444

_BUS = """<busconfig>
  <type>custom</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/><allow receive_type="method_return"/>
    <allow receive_type="error"/><allow receive_type="signal"/>
  </policy>
</busconfig>
"""


class StageError(Exception):
    """Something on the stage did not come about."""


class Stage:
    """Set up on entering, torn down on leaving; what it made stays in ``directory`` to be looked at."""

    def __init__(
        self,
        directory: Path,
        *,
        key_algorithm: str = "ec-p256",
        address: str | None = None,
        upstream: str = 'way = "registry"',
        token: Callable[[Path], Token] = SoftHsm,
        revocation: str = "",
        more: str = "",
        lab: Lab | None = None,
        hub_link: bool = False,
    ) -> None:
        """``upstream``, ``revocation``: what the daemon's configuration says under the tables of these names;
        ``more``: further tables of it; ``lab``: another stage's, for a second machine in the same plant; ``hub_link``:
        EZCA has its own link to the hub."""
        self.directory = directory
        self.state = directory / "state"
        """The daemon's state directory."""
        self.config = directory / "gatewayd.toml"
        self.gateway_id = "gw-1"
        self._key_algorithm = key_algorithm
        self._upstream = upstream
        self._revocation = revocation
        self._more = more
        self.pin = "".join(secrets.choice("0123456789") for _ in range(8))
        """Of the token, as the next process is given it."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []
        directory.mkdir(parents=True, mode=0o700)
        self.token = token(directory)
        self._lab_is_ours = lab is None
        self._hub_link = hub_link
        self.lab = lab or Lab(directory / "cloud", address)
        self.address = self.lab.address
        self.bus = f"unix:path={directory / 'bus'}"
        self.environment = os.environ | {
            "GATEWAYD_BUS": self.bus,
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> Self:
        if self._lab_is_ours:
            for name in ("entra", "hub"):
                self.lab.start(name)
            self.lab.start("ezca", *(("--hub-link", self.lab.url("hub")) if self._hub_link else ()))
        self.environment |= self.token.start()
        self._write_configuration()
        self._start_bus()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in reversed(list(self._processes)):
            self._end(name, signal.SIGTERM)
        self.token.stop()
        if self._lab_is_ours:
            self.lab.__exit__(kind, error, traceback)
        for log in self._logs:
            log.close()

    # --- what there is to set up -----------------------------------------------------------------

    def _write_configuration(self) -> None:
        ezca, hub, entra = (self.lab.ready(name) for name in ("ezca", "hub", "entra"))
        self.config.write_text(f"""\
[gateway]
device_id = "{self.gateway_id}"
key_algorithm = "{self._key_algorithm}"
sans = ["dns:{self.gateway_id}", "ip:{self.address}"]
state_directory = "{self.state}"

[token]
module = "{self.token.module}"
uri = "pkcs11:token=gatewayd"

[ezca]
url = "{ezca["url"]}"
est_url = "{ezca["est_url"]}"
ca_id = "{ezca["ca_id"]}"
template_id = "{ezca["template_id"]}"
owners = [{{ object_id = "{OWNER}", friendly_name = "Plant Engineering" }}]

[entra]
authority = "{entra["url"]}"
tenant_id = "{entra["tenant_id"]}"
client_id = "{APPLICATION}"
object_id = "{APPLICATION_OBJECT}"

[hub]
host = "{self.address}"
registry_url = "{hub["url"]}"

[upstream]
{self._upstream}

[trust]
bundle = "{self.lab.web_root}"

[est]
address = "{self.address}"
port = {EST_PORT}

[page]
enabled = true
address = "{self.address}"
port = {PAGE_PORT}

[revocation]
{self._revocation}

[control]
bus = "{self.bus}"

{self._more}
""")

    def _start_bus(self) -> None:
        config = self.directory / "bus.conf"
        config.write_text(_BUS.format(socket=self.directory / "bus"))
        self._start("bus", ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"])
        self.wait_for("the bus", (self.directory / "bus").exists)

    def _start(
        self,
        name: str,
        command: Sequence[str],
        pass_fds: tuple[int, ...] = (),
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """What it prints goes to its log, unless ``stdout`` is a file descriptor."""
        log = (self.directory / f"{name}.log").open("ab")
        self._logs.append(log)
        self._processes[name] = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=log if stdout is None else stdout,
            stderr=log,
            env={**self.environment, **environment},
            pass_fds=pass_fds,
        )

    def _end(self, name: str, how: signal.Signals) -> int:
        process = self._processes.pop(name)
        process.send_signal(how)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise StageError(f"{name} did not stop within 20 s") from None

    # --- what stands in the cloud ----------------------------------------------------------------

    def create_gateway_identity(self) -> None:
        """What an administrator does where the gateway has no rights on the hub: an IoT Edge device, CA-signed."""
        identity = {
            "deviceId": self.gateway_id,
            "status": "enabled",
            "authentication": {"type": "certificateAuthority"},
            "capabilities": {"iotEdge": True},
        }
        self.lab.hub("PUT", f"/devices/{self.gateway_id}", identity)

    def start_responder(self) -> None:
        """Follow the hub's messages and have the responder act on them: ``messages | responder``."""
        reader, writer = os.pipe()
        messages = [sys.executable, "-m", "gatewayd.lab", "messages"]
        messages += ["--dir", str(self.lab.directory), "--hub", self.lab.url("hub")]
        self._start("messages", messages, stdout=writer)
        os.close(writer)
        token_reader, token_writer = os.pipe()
        os.write(token_writer, self.lab.hub_token().encode())
        os.close(token_writer)
        responder = [sys.executable, "-m", "gatewayd.upstream.responder", "--hub", self.lab.url("hub")]
        responder += ["--trust", str(self.lab.web_root), "--token-fd", str(token_reader)]
        issuing = self.lab.directory / "ca-issuing.pem"
        responder += ["--crl", self.lab.ready("ezca")["crl_url"], "--ca", str(issuing)]
        self._start("responder", responder, pass_fds=(token_reader,), stdin=reader)
        os.close(reader)
        os.close(token_reader)

    def stop_responder(self) -> None:
        for name in ("messages", "responder"):
            self._end(name, signal.SIGKILL)

    # --- the daemon ------------------------------------------------------------------------------

    def with_pin(self, use: Callable[[int], T]) -> T:
        """The PIN goes through a pipe: never through argv, the environment or a file."""
        reader, writer = os.pipe()
        try:
            os.write(writer, self.pin.encode())
            os.close(writer)
            return use(reader)
        finally:
            os.close(reader)

    def _daemon_command(self, fd: int, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gatewayd", "--config", str(self.config), "--pin-fd", str(fd), *arguments]

    def init_token(self) -> str:
        """``gatewayd token-init``; returns what it printed."""
        return self.with_pin(
            lambda fd: subprocess.run(
                self._daemon_command(fd, "token-init"),
                env=self.environment,
                pass_fds=(fd,),
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            ).stdout.strip()
        )

    def spawn_daemon(self, **environment: str) -> None:
        """Start it without waiting; ``environment``: what is different in its own."""
        self.with_pin(
            lambda fd: self._start("gatewayd", self._daemon_command(fd), pass_fds=(fd,), environment=environment)
        )

    def start_daemon(self, **environment: str) -> None:
        """Start it and wait until it answers on the bus."""
        self.spawn_daemon(**environment)
        self.wait_for("gatewayd", lambda: self.ctl("status", "--json", check=False).returncode == 0, within=20)

    def stop_daemon(self) -> int:
        return self._end("gatewayd", signal.SIGTERM)

    def kill_daemon(self) -> None:
        """As a power cut would: no handler runs."""
        self._end("gatewayd", signal.SIGKILL)

    def daemon_pid(self) -> int:
        return self._processes["gatewayd"].pid

    def log_text(self, name: str = "gatewayd") -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    # --- gatewayctl ------------------------------------------------------------------------------

    def ctl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run gatewayctl as a user would, without a terminal."""
        done = subprocess.run(
            [sys.executable, "-m", "gatewayd.control", *arguments],
            env=self.environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise StageError(f"gatewayctl {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def ctl_json(self, *arguments: str, stdin: str | None = None) -> Any:
        return json.loads(self.ctl(*arguments, "--json", stdin=stdin).stdout)

    # --- what an administrator does in the portals -----------------------------------------------

    def upload_registrar_certificate(self) -> None:
        """Tell Entra about the certificate that the gateway's application authenticates with."""
        pem = self.ctl("registrar", "certificate").stdout
        body = {"client_id": APPLICATION, "object_id": APPLICATION_OBJECT, "certificate": pem}
        self.lab.post("entra", "/lab/applications", body)

    def person_token(self) -> str:
        return self.lab.token("https://management.core.windows.net/.default", OWNER, "owner@plant.example")

    def bootstrap(self) -> subprocess.CompletedProcess[str]:
        return self.ctl("bootstrap", "--token-file", "-", stdin=self.person_token())

    # --- looking ---------------------------------------------------------------------------------

    def token_objects(self) -> str:
        """What ``pkcs11-tool -O`` lists, logged in."""
        return self.pkcs11_tool("--list-objects", "--type", "privkey")

    def pkcs11_tool(self, *arguments: str) -> str:
        command = ["pkcs11-tool", "--module", self.token.module, "--token-label", "gatewayd", "--login", *arguments]
        # The tool takes a PIN from its own environment; this one dies with the demo.
        environment = self.environment | {"DEMO_PIN": self.pin}
        done = subprocess.run(
            [*command, "--pin", "env:DEMO_PIN"], env=environment, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    def wait_for(self, what: str, condition: Callable[[], T | None], within: float = 30.0) -> T:
        """Look until ``condition`` gives something true. Raises StageError."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise StageError(f"{name} ended with {process.returncode}:\n{self.log_text(name)[-3000:]}")
            if found := condition():
                return found
            time.sleep(0.1)
        raise StageError(f"waited {within:.0f} s in vain for {what}")
