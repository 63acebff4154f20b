"""Many leaves at once on a stage: enrolled over EST without a process for each step, and revoked over D-Bus."""

from __future__ import annotations

import base64
import http.client
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gi.repository import Gio, GLib

from gatewayd.control.access import JOB
from gatewayd.control.client import NAME, ROOT, Client
from gatewayd.lab.demo.stage import Stage


class Fleet:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._client = Client(stage.bus)
        self._tls = ssl.create_default_context(cafile=stage.lab.ca_root)
        self._est: http.client.HTTPSConnection | None = None

    def add(self, device_id: str) -> None:
        """A leaf with its certificate, known to the hub."""
        added = self._client.call("AddDevice", "(sa{sv})", device_id, {})
        url = urlsplit(added["est_url"])
        if self._est is None:
            assert url.hostname is not None
            self._est = http.client.HTTPSConnection(url.hostname, url.port, timeout=30, context=self._tls)
        basic = base64.b64encode(f"{device_id}:{added['code']}".encode()).decode()
        headers = {"Content-Type": "application/pkcs10", "Authorization": f"Basic {basic}"}
        body = base64.b64encode(_request(device_id))
        while True:
            self._est.request("POST", "/.well-known/est/simpleenroll", body, headers)
            answer = self._est.getresponse()
            answer.read()
            if answer.status == 200:
                return
            if answer.status != 202:
                raise RuntimeError(f"{device_id} did not enroll: {answer.status}")
            time.sleep(1)

    def revoke(self, device_ids: Iterable[str]) -> dict[str, float]:
        """Revoke all of them at once; for each the seconds from the D-Bus call to *verified*. Raises TimeoutError."""
        return _Revoking(self._stage.bus).run(list(device_ids))


def _request(device_id: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


@dataclass
class _Revoking:
    bus: str
    began: dict[str, float] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    """Path of the job → device id."""
    verified: dict[str, float] = field(default_factory=dict)
    """Path of the job → when."""

    def run(self, device_ids: list[str], within: float = 60) -> dict[str, float]:
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        connection = Gio.DBusConnection.new_for_address_sync(self.bus, flags, None, None)
        loop = GLib.MainLoop()

        def progressed(_con: Any, _sender: str, path: str, _interface: str, _signal: str, values: GLib.Variant) -> None:
            step, state, _ = values.unpack()
            if (step, state) == ("verified", "done"):
                self.verified.setdefault(path, time.monotonic())
                finished()

        def called(con: Any, result: Any, device_id: str) -> None:
            (path,) = con.call_finish(result).unpack()
            self.jobs[path] = device_id
            finished()

        def finished() -> None:
            if len(self.jobs) == len(device_ids) and self.verified.keys() >= self.jobs.keys():
                loop.quit()

        connection.signal_subscribe(NAME, JOB, "Progress", None, None, Gio.DBusSignalFlags.NONE, progressed)
        GLib.timeout_add(int(within * 1000), loop.quit)
        for device_id in device_ids:
            self.began[device_id] = time.monotonic()
            arguments = GLib.Variant("(ssa{sv})", (device_id, "keyCompromise", {}))
            connection.call(
                NAME, ROOT, NAME, "Revoke", arguments, None, Gio.DBusCallFlags.NONE, 60_000, None, called, device_id
            )
        loop.run()
        if len(self.jobs) < len(device_ids) or not self.verified.keys() >= self.jobs.keys():
            raise TimeoutError(f"{len(self.verified)} of {len(device_ids)} verified within {within:.0f} s")
        return {device_id: self.verified[path] - self.began[device_id] for path, device_id in self.jobs.items()}
