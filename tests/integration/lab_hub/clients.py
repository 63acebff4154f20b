"""Independent clients of the hub: a SAS-signing REST client, a plain MQTT device, and certificates for the latter."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.lab import Lab

PATIENCE = 5.0
BY_CA: dict[str, Any] = {"type": "certificateAuthority"}


def pinned(primary: str, secondary: str | None = None) -> dict[str, Any]:
    thumbprints = {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
    return {"type": "selfSigned", "x509Thumbprint": thumbprints}


# --- certificates


@dataclass(frozen=True)
class Credential:
    certificate: x509.Certificate
    certificate_file: Path
    key_file: Path

    @property
    def sha1(self) -> str:
        return self.certificate.fingerprint(hashes.SHA1()).hex()

    @property
    def sha256(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def credential(
    lab: Lab, common_name: str, *, issued: bool = True, starts: timedelta | None = None, lasts: timedelta | None = None
) -> Credential:
    """A key and a certificate from the lab's issuing CA; with ``issued=False`` a self-signed one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer, signer = name, key
    if issued:
        issuer = x509.load_pem_x509_certificate((lab.directory / "ca-issuing.pem").read_bytes()).subject
        loaded = serialization.load_pem_private_key((lab.directory / "ca-issuing-key.pem").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
    begin = datetime.now(UTC) + (starts or -timedelta(minutes=5))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + (lasts or timedelta(hours=1)))
        .sign(signer, hashes.SHA256())
    )
    base = lab.directory / f"{certificate.serial_number:x}"
    made = Credential(certificate, base.with_suffix(".crt"), base.with_suffix(".key"))
    made.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


# --- the service


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def error(self) -> str | None:
        return self.headers.get("iothub-errorcode")


def sas(host: str, key: str, policy: str = "iothubowner", lasts: float = 60) -> str:
    """A shared access signature as Microsoft's documentation describes it."""
    resource, expiry = urllib.parse.quote_plus(host), str(int(time.time() + lasts))
    digest = hmac.new(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote_plus(base64.b64encode(digest))
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"


class Service:
    """The registry over REST."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.key = (lab.directory / "hub-key").read_text().strip()

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        if_match: str | None = None,
        authorization: str | None = None,
        version: str = "2021-04-12",
        headers: dict[str, str] | None = None,
        timeout: float = 10,
    ) -> Answer:
        sent = {"Authorization": authorization or sas(self._lab.address, self.key), **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if if_match is not None:
            sent["If-Match"] = if_match
        request = urllib.request.Request(
            f"{self._lab.url('hub')}{path}?api-version={version}",
            None if body is None else json.dumps(body).encode(),
            sent,
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self._lab.tls) as response:
                return _answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read())

    def create(self, device_id: str, authentication: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        body = {"deviceId": device_id, "status": "enabled", "authentication": authentication or BY_CA, **fields}
        answer = self.call("PUT", f"/devices/{urllib.parse.quote(device_id, safe='')}", body)
        assert answer.status == 200, answer
        created: dict[str, Any] = answer.body
        return created

    def get(self, device_id: str) -> dict[str, Any]:
        answer = self.call("GET", f"/devices/{device_id}")
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.body
        return found

    def change(self, device_id: str, **fields: Any) -> dict[str, Any]:
        """Read, change, write the whole identity with If-Match."""
        identity = self.get(device_id)
        answer = self.call("PUT", f"/devices/{device_id}", {**identity, **fields}, if_match=f'"{identity["etag"]}"')
        assert answer.status == 200, answer
        changed: dict[str, Any] = answer.body
        return changed


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    return Answer(status, {key.lower(): value for key, value in headers.items()}, json.loads(body) if body else None)


# --- a device


class Device:
    """A plain MQTT 3.1.1 client that speaks as a device of the hub."""

    def __init__(
        self,
        lab: Lab,
        device_id: str,
        credential: Credential | None,
        *,
        clean: bool = True,
        keepalive: int = 60,
        username: str | None = None,
        tls: ssl.TLSVersion | None = None,
    ) -> None:
        self.device_id = device_id
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.code: int | None = None
        self.session_present = False
        self._lab = lab
        self._keepalive = keepalive
        self._connack = threading.Event()
        self._closed = threading.Event()
        self._acknowledged: queue.Queue[tuple[int, tuple[int, ...]]] = queue.Queue()
        self.client = paho.Client(
            client_id=device_id, clean_session=clean, protocol=paho.MQTTv311, reconnect_on_failure=False
        )
        self.client.username_pw_set(username or f"{lab.address}/{device_id}/?api-version=2021-04-12")
        context = ssl.create_default_context(cafile=lab.web_root)
        if credential is not None:
            context.load_cert_chain(credential.certificate_file, credential.key_file)
        if tls is not None:
            context.minimum_version = context.maximum_version = tls
        self.client.tls_set_context(context)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda *_: self._closed.set()
        self.client.on_message = lambda _client, _data, message: self.messages.put((message.topic, message.payload))
        self.client.on_publish = lambda _client, _data, mid: self._acknowledged.put((mid, ()))
        self.client.on_subscribe = lambda _client, _data, mid, codes: self._acknowledged.put((mid, codes))

    def connect(self, within: float = PATIENCE) -> int:
        """The CONNACK code."""
        self.client.connect(self._lab.address, 8883, keepalive=self._keepalive)
        self.client.loop_start()
        assert self._connack.wait(within), "no CONNACK"
        assert self.code is not None
        return self.code

    def subscribe(self, topic: str) -> int:
        """The SUBACK code."""
        _, mid = self.client.subscribe(topic, 1)
        (answered, codes) = self._acknowledged.get(timeout=PATIENCE)
        assert answered == mid
        return codes[0]

    def publish(self, topic: str, payload: bytes | str = b"", qos: int = 1) -> None:
        """Returns when it was acknowledged."""
        sent = self.client.publish(topic, payload, qos)
        if qos == 1:
            assert self._acknowledged.get(timeout=PATIENCE) == (sent.mid, ())

    def closed(self, within: float = PATIENCE) -> bool:
        """Whether the connection ends within so many seconds."""
        return self._closed.wait(within)

    def receive(self) -> tuple[str, bytes]:
        return self.messages.get(timeout=PATIENCE)

    def vanish(self) -> None:
        """Break the connection without DISCONNECT."""
        self.client.loop_stop()
        socket = self.client.socket()
        assert socket is not None
        socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_connect(self, _client: object, _data: object, flags: dict[str, int], code: int) -> None:
        self.code, self.session_present = code, bool(flags["session present"])
        self._connack.set()


def connack(lab: Lab, device_id: str, credential: Credential | None, **options: Any) -> int:
    """Connect, look at the answer, leave."""
    with Device(lab, device_id, credential, **options) as device:
        return device.connect()
