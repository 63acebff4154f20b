"""A lab of stand-ins for a test or a demo: fresh key material, processes of their own, an address nobody else uses.

::

    @pytest.fixture
    def lab(tmp_path):
        with Lab(tmp_path / "lab") as lab:
            lab.start("entra")
            lab.start("ezca")
            yield lab

    lab.url("ezca")                                     # https://127.x.y.z:8441
    lab.ready("ezca")["ca_id"]
    lab.post("ezca", "/lab/faults", {"call": "RequestSSLCertificateV2", "mode": "reset"})
    lab.get("ezca", "/lab/certificates")

Calls are synchronous and short, so that asynchronous tests may use them as they are: the peers are other processes.
"""

from __future__ import annotations

import json
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import init

_READY_WITHIN = 15.0
_STOPS_WITHIN = 5.0
_FIRST_PORT = 8441


def unused_address() -> str:
    """A loopback address on which no other lab listens. The stand-ins' ports are fixed, so the address must differ."""
    while True:
        address = f"127.{random.randint(67, 250)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        with socket.socket() as probe:
            try:
                probe.bind((address, _FIRST_PORT))
            except OSError:
                continue
        return address


class Lab:
    """One lab; leaving the context stops its processes."""

    def __init__(self, directory: Path, address: str | None = None) -> None:
        self.directory = directory
        self.address = address or unused_address()
        init.make(directory, self.address)
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._ready: dict[str, dict[str, Any]] = {}
        self._options: dict[str, tuple[str, ...]] = {}
        self.tls = ssl.create_default_context(cafile=self.web_root)
        """Trusts the stand-ins."""

    @property
    def web_root(self) -> Path:
        """PEM anchor for TLS to all the stand-ins."""
        return self.directory / "web-root.pem"

    @property
    def ca_root(self) -> Path:
        """PEM root of the certificates that the EZCA stand-in issues."""
        return self.directory / "ca-root.pem"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in list(self._processes):
            self.stop(name)

    def start(self, name: str, *options: str) -> dict[str, Any]:
        """Start ``ezca``, ``entra`` or ``hub`` and return its ready line. Its log is ``<directory>/<name>.log``."""
        assert name not in self._processes, f"{name} runs already"
        command = [sys.executable, "-m", "gatewayd.lab", name]
        command += ["--dir", str(self.directory), "--address", self.address, *options]
        with self.log(name).open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self._processes[name] = process
        self._options[name] = options
        self._ready[name] = self._wait_ready(name, process)
        return self._ready[name]

    def _wait_ready(self, name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], _READY_WITHIN)
        line = process.stdout.readline() if readable else ""
        if not line:
            self.kill(name)
            raise RuntimeError(f"{name} did not start:\n{self.log(name).read_text()}")
        ready: dict[str, Any] = json.loads(line)
        assert ready["ready"] is True
        return ready

    def stop(self, name: str) -> int:
        """Ask it to stop and wait; returns its exit status."""
        return self._end(name, signal.SIGTERM)

    def kill(self, name: str) -> int:
        """End it as a power cut would."""
        return self._end(name, signal.SIGKILL)

    def _end(self, name: str, how: signal.Signals) -> int:
        process = self._processes.pop(name)
        process.send_signal(how)
        try:
            return process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            assert process.stdout is not None
            process.stdout.close()

    def restart(self, name: str) -> dict[str, Any]:
        """Stop it and start it again with the same options, on the same address and directory."""
        self.stop(name)
        return self.start(name, *self._options[name])

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def ready(self, name: str) -> dict[str, Any]:
        """The ready line of a running stand-in."""
        return self._ready[name]

    def url(self, name: str) -> str:
        """Base URL of its HTTPS port, without a trailing slash."""
        url: str = self._ready[name]["url"]
        return url

    def get(self, name: str, path: str) -> Any:
        """GET one of its ``/lab/…`` endpoints; returns the JSON."""
        return self._call(urllib.request.Request(self.url(name) + path))

    def post(self, name: str, path: str, body: Mapping[str, Any]) -> Any:
        """POST JSON to one of its ``/lab/…`` endpoints; returns the JSON that it answers, or None."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._call(urllib.request.Request(self.url(name) + path, data, headers, method="POST"))

    def hub_token(self) -> str:
        """A token for the hub's service side, of somebody who may do all there."""
        return self.token("https://iothubs.azure.net/.default", "00000000-0000-0000-0000-000000000001")

    def hub(self, method: str, path: str, body: Mapping[str, Any] | None = None, etag: str | None = None) -> Any:
        """One request to the hub's service side, as an administrator or another program makes it; ``path`` without
        the api-version. Raises HTTPError."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.hub_token()}"}
        if etag is not None:
            headers["If-Match"] = f'"{etag}"'
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.url('hub')}{path}?api-version=2021-04-12"
        return self._call(urllib.request.Request(url, data, headers, method=method))

    def delete(self, name: str, path: str) -> Any:
        """DELETE one of its ``/lab/…`` endpoints; returns the JSON."""
        return self._call(urllib.request.Request(self.url(name) + path, method="DELETE"))

    def _call(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=10, context=self.tls) as response:
            body = response.read()
        return json.loads(body) if body else None

    def token(self, scope: str, object_id: str, upn: str = "registrar@example.test") -> str:
        """A person's Entra token, from the ``entra-token`` command."""
        command = [sys.executable, "-m", "gatewayd.lab", "entra-token", "--dir", str(self.directory)]
        command += ["--object-id", object_id, "--upn", upn, "--scope", scope]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=15).stdout.strip()
