"""A leaf device as the field has them: its own key in its own file, strongSwan's ``pki`` or ``curl`` to enroll, an MQTT
client to talk to the hub. It shares nothing with the gateway."""

from __future__ import annotations

import base64
import ssl
import subprocess
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

EST_PATH = "/.well-known/est"


class EnrollmentFailed(Exception):
    """The leaf has no certificate; the client's words say why."""


class Leaf:
    def __init__(
        self, directory: Path, device_id: str, est_url: str, web_root: Path, environment: dict[str, str]
    ) -> None:
        """``web_root``: the anchor for TLS to the hub. The EST server and the CA are anchored by what /cacerts gave."""
        directory.mkdir(parents=True, exist_ok=True)
        self.device_id = device_id
        self.directory = directory
        self.est_url = est_url
        self._web_root = web_root
        self._environment = environment
        self.key = directory / "key.der"
        self.certificate = directory / "certificate.der"

    def _run(self, *command: str, stdin: bytes | None = None) -> bytes:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, env=self._environment)
        if done.returncode != 0:
            raise EnrollmentFailed(f"{command[0]} {command[1]}: exit {done.returncode}: {done.stderr.decode()[-600:]}")
        return done.stdout

    # --- strongSwan's pki ------------------------------------------------------------------------

    def make_key(self) -> None:
        self.key.write_bytes(self._run("pki", "--gen", "--type", "ecdsa", "--size", "256"))

    def fetch_anchors(self, issuer_root: Path) -> None:
        """``pki --estca``. ``issuer_root`` is what the leaf was given to trust its gateway by."""
        command = ["pki", "--estca", "--url", self.est_url, "--cacert", str(issuer_root)]
        self._run(*command, "--caout", str(self.directory / "ca"), "--force")

    def _cacerts(self) -> list[str]:
        return [word for each in sorted(self.directory.glob("ca*")) for word in ("--cacert", str(each))]

    def _request(self) -> bytes:
        return self._run("pki", "--req", "--in", str(self.key), "--type", "ecdsa", "--dn", f"CN={self.device_id}")

    def enroll(self, code: str) -> x509.Certificate:
        """``pki --est`` with the one-time code."""
        command = ["pki", "--est", "--url", self.est_url, *self._cacerts()]
        got = self._run(*command, "--userpass", f"{self.device_id}:{code}", "--interval", "2", stdin=self._request())
        return self._keep(got)

    def reenroll(self) -> x509.Certificate:
        """``pki --est`` with the present certificate: simplereenroll, for a fresh key."""
        fresh = self._run("pki", "--gen", "--type", "ecdsa", "--size", "256")
        (self.directory / "next-key.der").write_bytes(fresh)
        request = self._run(
            "pki",
            "--req",
            "--in",
            str(self.directory / "next-key.der"),
            "--type",
            "ecdsa",
            "--dn",
            f"CN={self.device_id}",
        )
        command = ["pki", "--est", "--url", self.est_url, *self._cacerts(), "--interval", "2"]
        got = self._run(*command, "--cert", str(self.certificate), "--key", str(self.key), stdin=request)
        self.key.write_bytes(fresh)
        return self._keep(got)

    def _keep(self, der: bytes) -> x509.Certificate:
        self.certificate.write_bytes(der)
        return x509.load_der_x509_certificate(der)

    # --- plain curl ------------------------------------------------------------------------------

    def curl_enroll(self, code: str, issuer_root: Path) -> x509.Certificate:
        """The same with openssl and curl, for a device that has no EST client."""
        pem = self.directory / "key.pem"
        self._run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(pem))
        request = self._run(
            "openssl", "req", "-new", "-key", str(pem), "-subj", f"/CN={self.device_id}", "-outform", "DER"
        )
        self.key.write_bytes(self._run("openssl", "ec", "-in", str(pem), "-outform", "DER"))
        config = f'user = "{self.device_id}:{code}"\n'  # on stdin: a code has no place in argv either
        body = self.directory / "request.b64"
        body.write_bytes(base64.b64encode(request))
        answer = self._run(
            *("curl", "--silent", "--show-error", "--fail-with-body", "--config", "-"),
            *("--cacert", str(issuer_root), "--header", "Content-Type: application/pkcs10"),
            *("--data-binary", f"@{body}", f"{self.est_url}{EST_PATH}/simpleenroll"),
            stdin=config.encode(),
        )
        (certificate, *_) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer))
        return self._keep(certificate.public_bytes(serialization.Encoding.DER))

    # --- the hub ---------------------------------------------------------------------------------

    def hub_client(self, host: str) -> HubClient:
        key = serialization.load_der_private_key(self.key.read_bytes(), None)
        pem = self.directory / "tls.pem"
        certificate = x509.load_der_x509_certificate(self.certificate.read_bytes())
        pem.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return HubClient(host, self.device_id, pem, self._web_root)


class HubClient:
    """MQTT 3.1.1 to the hub with a client certificate."""

    def __init__(self, host: str, device_id: str, pem: Path, web_root: Path) -> None:
        self._host = host
        self._answered = threading.Event()
        self.dropped = threading.Event()
        """Set when a connection that was accepted is lost."""
        self.connack: int | None = None
        context = ssl.create_default_context(cafile=web_root)
        context.load_cert_chain(pem)
        self._client = mqtt.Client(device_id, clean_session=True, protocol=mqtt.MQTTv311)
        self._client.username_pw_set(f"{host}/{device_id}/?api-version=2021-04-12")
        self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect

    def _on_connect(self, client: object, userdata: object, flags: object, code: int) -> None:
        self.connack = code
        self._answered.set()

    def _on_disconnect(self, client: object, userdata: object, code: int) -> None:
        if self.connack == 0:
            self.dropped.set()
            self._client.disconnect()  # it is not to come back by itself

    def connect(self) -> int:
        """The CONNACK code: 0 accepted, 5 refused."""
        self._client.connect(self._host, 8883, keepalive=30)
        self._client.loop_start()
        if not self._answered.wait(10):
            raise TimeoutError("the hub did not answer CONNECT within 10 s")
        assert self.connack is not None
        if self.connack != 0:
            self.close()
        return self.connack

    def publish(self, text: str, bag: str = "") -> None:
        """One telemetry message with this property bag; returns when the hub has acknowledged it."""
        device_id = self._client._client_id.decode()
        self._client.publish(f"devices/{device_id}/messages/events/{bag}", text, qos=1).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
