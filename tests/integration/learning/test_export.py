"""The exported files, and the servers of Debian that are to refuse by them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.core.model import RevocationReason
from gatewayd.services import revoking
from gatewayd.services.export import EXPORTED, Export
from tests.support.lab import unused_address
from tests.support.large_crl import entry, skeleton

from .conftest import Ca, Gateway, Published, listed

PORT = 8883


def exporter(gateway: Gateway, *sources: Path, mode: int = 0o640) -> Export:
    directory = gateway.directory / "export"
    directory.mkdir(exist_ok=True)
    return Export(
        store=gateway.store,
        clock=gateway.clock,
        events=gateway.events,
        directory=directory,
        mode=mode,
        crls=lambda: sources,
    )


async def test_what_is_exported_and_when(gateway: Gateway, ca: Ca) -> None:
    [one] = await gateway.device("leaf-1")
    ca.files["/issuing.crl"] = Published(ca.crl(listed(one)))
    source = gateway.source()
    export = exporter(gateway, source.path)
    place = gateway.directory / "export"
    assert await export._export()
    assert json.loads((place / "refused.json").read_text()) == []
    assert (place / "crl.pem").read_bytes() == b""
    assert not await export._export()

    await source.look()
    assert await export._export()
    pem = x509.load_pem_x509_crl((place / "crl.pem").read_bytes())
    assert pem.public_bytes(serialization.Encoding.DER) == source.path.read_bytes()
    assert [each["serial"] for each in json.loads((place / "refused.json").read_text())] == [one.serial]
    assert {stat.S_IMODE(each.stat().st_mode) for each in place.iterdir()} == {0o640}
    assert sorted(each.name for each in place.iterdir()) == ["crl.pem", "refused.json"]
    before = (place / "crl.pem").stat().st_ino
    assert not await exporter(gateway, source.path)._export()  # after a restart
    assert (place / "crl.pem").stat().st_ino == before

    # Refused here at once, whatever the CA's list says.
    [two] = await gateway.device("leaf-2")
    now = gateway.clock.now()
    await gateway.store.write(
        lambda tx: revoking.revoke_device(tx, "leaf-2", RevocationReason.KEY_COMPROMISE, "uid:0", now)
    )
    assert await export._export()
    refused = json.loads((place / "refused.json").read_text())
    assert [each["sha256"] for each in refused] == [one.thumbprint, two.thumbprint]


async def test_a_directory_that_cannot_be_written_is_no_drama(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    export = exporter(gateway)
    (gateway.directory / "export").rmdir()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(export.run(), 0.3)
    assert "No such file or directory" in caplog.text
    assert EXPORTED not in caplog.text


# --- real servers --------------------------------------------------------------------------------


class Client:
    """A TLS client with a certificate of the plant's CA."""

    def __init__(self, directory: Path, ca: Ca, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = ca.authority.leaf(key.public_key(), name)
        self.file = directory / f"{name}.pem"
        parts = [self.certificate, *ca.authority.chain]
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.file.write_bytes(private + b"".join(each.public_bytes(serialization.Encoding.PEM) for each in parts))
        self.root = directory / "root.pem"
        self.root.write_bytes(ca.authority.root.public_bytes(serialization.Encoding.PEM))

    def ask(self, address: str, words: bytes) -> bytes | None:
        """The answer's beginning; None when the server refuses the certificate."""
        context = ssl.create_default_context(cafile=self.root)
        context.check_hostname = False
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 a refusal comes only after the handshake
        context.load_cert_chain(self.file)
        with socket.create_connection((address, PORT), 5) as plain:
            try:
                with context.wrap_socket(plain, server_hostname=address) as secure:
                    secure.sendall(words)
                    return secure.recv(4096)
            except (ssl.SSLError, ConnectionError):
                return None


@contextlib.contextmanager
def running(command: list[str], address: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection((address, PORT), 1):
                    break
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise TimeoutError


MQTT_CONNECT = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03abc"
MQTT_ACCEPTED = b"\x20\x02\x00\x00"


async def test_mosquitto_refuses_by_the_exported_list(gateway: Gateway, ca: Ca, tmp_path: Path) -> None:
    good, bad = Client(tmp_path, ca, "good"), Client(tmp_path, ca, "bad")
    await gateway.device("leaf-1")  # what makes this CA one of ours
    ca.files["/issuing.crl"] = Published(ca.crl())
    source = gateway.source()
    export = exporter(gateway, source.path)
    await source.look()
    await export._export()
    address = unused_address()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"""\
user root
allow_anonymous true
listener {PORT} {address}
require_certificate true
cafile {good.root}
certfile {good.file}
keyfile {good.file}
crlfile {gateway.directory / "export" / "crl.pem"}
""")
    with running(["/usr/sbin/mosquitto", "-c", str(config)], address) as process:
        assert good.ask(address, MQTT_CONNECT) == MQTT_ACCEPTED
        assert bad.ask(address, MQTT_CONNECT) == MQTT_ACCEPTED
        ca.files["/issuing.crl"] = Published(ca.crl(entry(bad.certificate.serial_number), number=2, age=timedelta()))
        await source.look()
        assert await export._export()
        process.send_signal(signal.SIGHUP)  # what "systemctl reload mosquitto" does
        await until(lambda: bad.ask(address, MQTT_CONNECT) is None)
        assert good.ask(address, MQTT_CONNECT) == MQTT_ACCEPTED


async def test_nginx_refuses_by_the_exported_lists(gateway: Gateway, ca: Ca, tmp_path: Path) -> None:
    """nginx asks for a list of every CA in the chain, the root included: it is configured as one more URL."""
    good, bad = Client(tmp_path, ca, "good"), Client(tmp_path, ca, "bad")
    await gateway.device("leaf-1")
    ca.files["/root.crl"] = Published(skeleton(ca.authority.root, ca.authority.root_key))
    ca.files["/issuing.crl"] = Published(ca.crl())
    issuing, root = gateway.source(), gateway.source("/root.crl")
    export = exporter(gateway, issuing.path, root.path)
    for each in (issuing, root):
        assert (await each.look()).error is None
    await export._export()
    address = unused_address()
    config = tmp_path / "nginx.conf"
    config.write_text(f"""\
daemon off;
worker_processes 1;
pid {tmp_path}/nginx.pid;
error_log {tmp_path}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}; fastcgi_temp_path {tmp_path};
  uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};
  server {{
    listen {address}:{PORT} ssl;
    ssl_certificate {good.file};
    ssl_certificate_key {good.file};
    ssl_client_certificate {good.root};
    ssl_verify_client on;
    ssl_verify_depth 2;
    ssl_crl {gateway.directory}/export/crl.pem;
    location / {{ return 204; }}
  }}
}}
""")

    def admits(client: Client) -> bool:
        return b"204 No Content" in (client.ask(address, b"GET / HTTP/1.0\r\n\r\n") or b"")

    with running(["/usr/sbin/nginx", "-c", str(config), "-e", str(tmp_path / "nginx.log")], address) as process:
        assert admits(good)
        assert admits(bad)
        ca.files["/issuing.crl"] = Published(ca.crl(entry(bad.certificate.serial_number), number=2, age=timedelta()))
        await issuing.look()
        assert await export._export()
        process.send_signal(signal.SIGHUP)  # what "systemctl reload nginx" does
        await until(lambda: not admits(bad))
        assert admits(good)
