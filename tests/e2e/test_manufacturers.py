"""Leaves with a manufacturer's certificate, as curl and strongSwan show it to the real daemon."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7

from gatewayd.lab.demo.stage import Stage, StageError
from tests.e2e.support import check_books, gateway, minted, show
from tests.support.manufacturer import Manufacturer

ACME, STRANGER = Manufacturer(), Manufacturer("Stranger")


@dataclass
class Hardware:
    """What stands in the field: a key and a certificate from the factory, and curl."""

    stage: Stage
    key: CertificateIssuerPrivateKeyTypes
    certificate: x509.Certificate
    file: Path

    @classmethod
    def made(
        cls,
        stage: Stage,
        serial: str,
        maker: Manufacturer = ACME,
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> Hardware:
        key = key or ec.generate_private_key(ec.SECP256R1())
        certificate = maker.device(key, serial)
        return cls(stage, key, certificate, maker.write(stage.directory, certificate, key))

    def ask(self, device_id: str, *options: str) -> tuple[int, bytes]:
        """The HTTP status, 0 when there was no answer, and the body; each time for a new key."""
        key = str(self.stage.directory / "asks.pem")
        make_key = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key]
        subprocess.run(make_key, check=True)
        make_request = ["openssl", "req", "-new", "-key", key, "-subj", f"/CN={device_id}", "-outform", "DER"]
        csr = subprocess.run(make_request, check=True, capture_output=True).stdout
        curl = ["curl", "-sS", "--cacert", str(self.stage.lab.ca_root), "--cert", str(self.file), *options]
        curl += ["-H", "Content-Type: application/pkcs10", "--data-binary", "@-", "-w", "\n%{http_code}"]
        url = f"https://{self.stage.address}:9443/.well-known/est/simpleenroll"
        done = subprocess.run([*curl, url], input=base64.b64encode(csr), capture_output=True, timeout=30, check=False)
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    def pki(self, device_id: str) -> x509.Certificate:
        """strongSwan's ``pki --est``, which calls it a reenrollment whenever it shows a certificate."""
        directory = self.stage.directory
        pieces = {"idevid.der": self.certificate, "factory.der": ACME.factory}
        for name, each in pieces.items():
            (directory / name).write_bytes(each.public_bytes(Encoding.DER))
        private = self.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (directory / "idevid-key.der").write_bytes(private)
        fresh = subprocess.run(["pki", "--gen", "--type", "ecdsa", "--size", "256"], check=True, capture_output=True)
        request = ["pki", "--req", "--type", "ecdsa", "--dn", f"CN={device_id}"]
        csr = subprocess.run(request, input=fresh.stdout, check=True, capture_output=True).stdout
        command = ["pki", "--est", "--url", f"https://{self.stage.address}:9443", "--interval", "2"]
        command += ["--cert", str(directory / "idevid.der"), "--cacert", str(directory / "factory.der")]
        command += ["--key", str(directory / "idevid-key.der"), "--cacert", str(self.stage.lab.ca_root)]
        command += ["--cacert", str(self.stage.lab.directory / "ca-issuing.pem")]
        done = subprocess.run(command, input=csr, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return x509.load_der_x509_certificate(done.stdout)


def test_hardware_enrolls_by_its_manufacturers_word_and_never_after_it_was_stolen(tmp_path: Path) -> None:
    anchors = tmp_path / "acme.pem"
    anchors.write_bytes(ACME.root.public_bytes(Encoding.PEM))
    with gateway(tmp_path / "stage", more=f'[[manufacturers]]\nname = "acme"\nanchors = "{anchors}"\n') as stage:
        stage.ctl("device", "add", "leaf-1", "--manufacturer-serial", "4711")
        stage.ctl("device", "add", "leaf-2", "--manufacturer-serial", "4712")
        hardware = Hardware.made(stage, "4711")
        count = len(minted(stage))

        for other in (
            Hardware.made(stage, "4711", STRANGER),
            Hardware.made(stage, "4711", key=ec.generate_private_key(ec.SECP521R1())),
            Hardware.made(stage, "4713"),
        ):
            assert other.ask("leaf-1")[0] in (0, 403)
        status, sentence = Hardware.made(stage, "4713").ask("leaf-1")
        assert (status, sentence) == (403, b"No device here is bound to this manufacturer's certificate.\n")
        weak = Hardware.made(stage, "4711", key=ec.generate_private_key(ec.SECP521R1())).ask("leaf-1")
        assert weak == (403, b"The key of the manufacturer's certificate is not one that is accepted.\n")
        assert hardware.ask("leaf-2")[0] == 403  # a CSR for another device than its own
        assert len(minted(stage)) == count

        status, body = hardware.ask("leaf-1")
        assert status == 200
        (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
        assert show(stage, "leaf-1")["device"]["serial"] == f"{certificate.serial_number:x}"
        assert hardware.ask("leaf-1", "--tls-max", "1.2")[0] == 403  # it has a valid one
        second = Hardware.made(stage, "4712").pki("leaf-2")
        assert show(stage, "leaf-2")["device"]["serial"] == f"{second.serial_number:x}"

        stage.ctl("revoke", "leaf-1", "--reason", "keyCompromise", "--yes")
        assert hardware.ask("leaf-1") == (403, b"The device has been revoked.\n")
        stage.ctl("device", "replace", "leaf-1", "--manufacturer-serial", "4799", "--yes", "--no-wait")
        assert hardware.ask("leaf-1")[0] == 403
        replacement = Hardware.made(stage, "4799")
        stage.wait_for("the new hardware", lambda: replacement.ask("leaf-1")[0] in (200, 429) or None)
        stage.wait_for("its certificate", lambda: show(stage, "leaf-1")["device"]["state"] == "active" or None)
        check_books(stage, "leaf-1")
        shown = show(stage, "leaf-1")["hardware"]
        assert shown == {"manufacturer": "acme", "serial": "4799", "void": False}
        with pytest.raises(StageError, match="bound to leaf-1 already"):
            stage.ctl("device", "bind", "leaf-2", "--manufacturer-serial", "4799")
