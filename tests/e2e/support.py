"""What the stories need beside the stage: a running gateway, a leaf that can try again, the books."""

from __future__ import annotations

import base64
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from gatewayd.lab.demo.stage import Stage
from gatewayd.lab.demo.tokens import SoftHsm, Token

Json = dict[str, Any]


@contextmanager
def gateway(
    directory: Path,
    *,
    key_algorithm: str = "ec-p256",
    more: str = "",
    token: Callable[[Path], Token] = SoftHsm,
    upstream: str = 'way = "registry"',
    hub_link: bool = False,
) -> Iterator[Stage]:
    """A stage whose gateway has its first certificate, is registrar and is connected. Where it has no rights on the
    hub, there is a responder that has."""
    with Stage(
        directory, key_algorithm=key_algorithm, more=more, token=token, upstream=upstream, hub_link=hub_link
    ) as stage:
        if "report" in upstream:
            stage.create_gateway_identity()
            stage.start_responder()
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        stage.wait_for("the link", lambda: connected(stage))
        yield stage


def connected(stage: Stage) -> str | None:
    """The serial that the link authenticates with."""
    link: Json = stage.ctl_json("status")["hub"]
    return str(link["serial"]) if link["state"] == "connected" else None


def show(stage: Stage, device_id: str) -> Json:
    shown: Json = stage.ctl_json("device", "show", device_id)
    return shown


def minted(stage: Stage) -> list[Json]:
    certificates: list[Json] = stage.lab.get("ezca", "/lab/certificates")
    return certificates


def ezca_calls(stage: Stage) -> list[str]:
    return [entry["call"] for entry in stage.lab.get("ezca", "/lab/log")]


def identity(stage: Stage, device_id: str) -> Json:
    """The device in the hub's registry, as an administrator reads it."""
    found: Json = stage.lab.hub("GET", f"/devices/{device_id}")
    return found


def check_books(stage: Stage, device_id: str) -> Json:
    """Each certificate that the CA has minted for it is on record, none twice for one key, and one at most is in use.
    Returns what ``device show`` shows."""
    shown = show(stage, device_id)
    mine = [each for each in minted(stage) if each["common_name"] == device_id]
    on_record = [each["serial"] for each in shown["credentials"] if "serial" in each]
    assert sorted(on_record) == sorted(each["serial"] for each in mine)
    assert len({each["public_key_sha256"] for each in mine}) == len(mine)
    in_use = [each["serial"] for each in shown["credentials"] if each["state"] == "current"]
    assert in_use == ([shown["device"]["serial"]] if shown["device"]["state"] == "active" else [])
    return shown


class EstLeaf:
    """A leaf with one request, which it may send as often as it likes."""

    def __init__(self, stage: Stage, device_id: str, code: str = "", name: str = "") -> None:
        """``code`` is that of a device which is known already; ``name``: of its files, where two are one device."""
        self._stage = stage
        self.pem = stage.directory / f"{name or device_id}.pem"
        """Its certificate and key, once it shows one."""
        self.device_id = device_id
        self.forget_certificate()
        self.code = code or str(stage.ctl_json("device", "add", device_id)["code"])
        self.new_request()

    def forget_certificate(self) -> None:
        self._context = ssl.create_default_context(cafile=self._stage.lab.ca_root)

    def new_request(self, common_name: str | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or self.device_id)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self.key, hashes.SHA256())
        self.body = base64.b64encode(csr.public_bytes(serialization.Encoding.DER))

    def show_certificate(self, certificate: x509.Certificate) -> None:
        """From now on it authenticates with this certificate, and its next request is for another key."""
        self.pem.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self._context.load_cert_chain(self.pem)
        self.new_request()

    def post(self, operation: str = "simpleenroll", *, user: str = "", code: str | None = None, **headers: str) -> int:
        """The HTTP status; what came is in ``certificate`` or ``sentence``. Raises OSError when there is no answer."""
        url = f"https://{self._stage.address}:9443/.well-known/est/{operation}"
        sent = {"Content-Type": "application/pkcs10"} | headers
        if operation == "simpleenroll" and code != "":
            pair = f"{user or self.device_id}:{code or self.code}"
            sent["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        asked = urllib.request.Request(url, self.body, sent, method="POST")
        try:
            with urllib.request.urlopen(asked, context=self._context, timeout=30) as answer:
                body = answer.read()
        except urllib.error.HTTPError as refused:
            self.sentence = refused.read().decode()
            return refused.code
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from None
        if answer.status == 200:
            (self.certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
        return int(answer.status)

    def ask_until_answered(self, operation: str = "simpleenroll", within: float = 30) -> x509.Certificate:
        """Send the same request until there is a certificate, as a leaf does."""

        def ask() -> bool:
            try:
                return self.post(operation) == 200
            except OSError:
                return False

        self._stage.wait_for(f"{self.device_id}'s certificate", lambda: ask() or None, within=within)
        return self.certificate


class Held:
    """Something at a stand-in that is known to be in the middle of a call."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._unanswered = len(self._open_calls())
        self._minted = len(minted(stage))
        self._revoked = self._revocations()
        self._wanted: Callable[[], bool] = lambda: False

    def _open_calls(self) -> list[Json]:
        return [entry for entry in self._stage.lab.get("ezca", "/lab/log") if entry["status"] is None]

    def _revocations(self) -> int:
        return sum(each["revoked"] for each in minted(self._stage))

    def ezca(self, call: str, *, done: bool) -> Held:
        """Hold EZCA's next answer to ``call``; ``done``: the work is done before."""
        mode = "delay" if done else "timeout"
        self._stage.lab.post("ezca", "/lab/faults", {"call": call, "mode": mode, "seconds": 90})

        def reached() -> bool:
            worked = len(minted(self._stage)) > self._minted or self._revocations() > self._revoked
            return len(self._open_calls()) > self._unanswered and worked == done

        self._wanted = reached
        return self

    def hub(self, where: str, match: str) -> Held:
        """Take the hub's next operation that begins with ``match`` and never answer it."""
        self._stage.lab.post("hub", "/lab/faults", {"where": where, "mode": "timeout", "match": match})
        self._wanted = lambda: not self._stage.lab.get("hub", "/lab/faults")
        return self

    def wait(self) -> None:
        self._stage.wait_for("the held call", lambda: self._wanted() or None)


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[Future[object]]:
    """Run ``work`` in a thread; what it raises when its peer is killed is nobody's concern."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)
