"""The stand-in for EZCA as a test sees it, and what is asked of it."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gatewayd.ca.base import CertificateRequest, Holder, Issued
from gatewayd.ca.ezca import EzcaIssuer
from gatewayd.ca.sparing import RateLimit
from gatewayd.config import EzcaSettings, OwnerSettings
from gatewayd.core.model import RevocationReason, San
from gatewayd.pki import certificates, csr, pem
from gatewayd.upstream.entra import StaticToken
from tests.support.authority import now
from tests.support.lab import Lab

OWNER = OwnerSettings("11111111-1111-1111-1111-111111111111", "Ada")
APPLICATION = "22222222-2222-2222-2222-222222222222"
SANS = (San.parse("dns:gw-1.example"), San.parse("ip:192.0.2.7"))
RSA_KEY = rsa.generate_private_key(65537, 2048)
REASON = RevocationReason.KEY_COMPROMISE

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class World:
    """The stand-in as one test sees it: with no faults left over and devices nobody else uses."""

    def __init__(self, lab: Lab, directory: Path, token: str) -> None:
        self.lab = lab
        self.directory = directory
        self.known: tuple[x509.Certificate, ...] = pem.bundle(lab.ca_root) + pem.bundle(
            lab.directory / "ca-issuing.pem"
        )
        ready = lab.ready("ezca")
        self.settings = EzcaSettings(
            ca_id=ready["ca_id"].upper(),
            template_id=ready["template_id"],
            url=lab.url("ezca") + "/",
            est_url=ready["est_url"],
            owners=(OWNER,),
            timeout=5.0,
        )
        self.token = token
        self.issuer = self.make_issuer()
        self._before = len(self.minted())

    def make_issuer(self, **changes: Any) -> EzcaIssuer:
        token = StaticToken(changes.pop("token", self.token))
        return EzcaIssuer(
            replace(self.settings, **changes),
            token,
            self.lab.tls,
            rate=RateLimit(1000),
            requester=APPLICATION,
            known=lambda: self.known,
        )

    def fault(self, call: str, mode: str, **more: Any) -> None:
        self.lab.post("ezca", "/lab/faults", {"call": call, "mode": mode, **more})

    def unknown(self, *calls: str) -> None:
        self.lab.post("ezca", "/lab/unknown", {"calls": list(calls)})

    def calls(self) -> list[str]:
        return [each["call"] for each in self.lab.get("ezca", "/lab/log")]

    def minted(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.lab.get("ezca", "/lab/certificates")
        return found

    @property
    def new(self) -> list[dict[str, Any]]:
        """What the CA has minted since the test began."""
        return self.minted()[self._before :]

    def holder(self, issued: Issued, key: Key) -> Holder:
        def context() -> ssl.SSLContext:
            made = ssl.create_default_context(cafile=self.lab.web_root)
            file = self.directory / "holder.pem"
            file.write_bytes(
                issued.certificate.public_bytes(Encoding.PEM)
                + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
            made.load_cert_chain(file)
            return made

        return Holder(issued.certificate, key, context)

    def check(self, issued: object, request: CertificateRequest) -> Issued:
        """The daemon's own check: what was issued is what was asked for."""
        assert isinstance(issued, Issued)
        certificates.check_issued(
            issued.certificate,
            issued.chain,
            pem.bundle(self.lab.ca_root),
            device_id=request.device_id,
            sans=request.sans,
            public_key_sha256=csr.read(request.csr).public_key_sha256,
            server_auth=request.server_auth,
            now=now(),
            replaces=None,
        )
        return issued


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request(device_id: str, key: Key, sans: tuple[San, ...] = SANS, server_auth: bool = True) -> CertificateRequest:
    return CertificateRequest(device_id, csr.build(key, device_id, sans), sans, server_auth)


async def first(world: World, device_id: str, key: Key) -> Issued:
    asked = request(device_id, key)
    return world.check(await world.issuer.issue(asked), asked)
