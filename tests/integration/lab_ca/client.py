"""What the tests here say to EZCA: requests in the vendor's own form, made without any of the gateway's code."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.support.lab import Lab

OWNER = "11111111-aaaa-4bbb-8ccc-000000000001"
STRANGER = "11111111-aaaa-4bbb-8ccc-000000000002"
MANAGEMENT = "https://management.core.windows.net/.default"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Key, name: str, *sans: x509.GeneralName) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return builder.sign(key, hashes.SHA256())


def pem(thing: x509.Certificate | x509.CertificateSigningRequest) -> str:
    return thing.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def sha1(certificate: x509.Certificate) -> str:
    return hashlib.sha1(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.Extension[Any]:
    return certificate.extensions.get_extension_for_class(kind)


def openssl(*arguments: str | Path) -> str:
    """Run the command line tool; returns what it writes, good or bad."""
    run = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=20)
    return run.stdout + run.stderr


def holder_token(certificate: x509.Certificate, key: Key, *, algorithm: str = "RS256", **changes: Any) -> str:
    """The holder's JWT; a change named ``x5t`` or ``typ`` goes to the header, any other to the claims."""
    now = int(time.time())
    header = {"typ": "JWT", "x5t": sha1(certificate).upper()}
    claims: dict[str, Any] = {"aud": "https://ezca.io", "jti": str(uuid.uuid4()), "nbf": now, "exp": now + 1800}
    for name, value in changes.items():
        target: dict[str, Any] = header if name in header else claims
        target[name] = value
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers=header)


def person(object_id: str, **changes: Any) -> dict[str, Any]:
    return {"ObjectId": object_id, "FriendlyName": "Ada", "ObjectType": "User", "isValid": True, **changes}


@dataclass
class Ezca:
    """One lab's EZCA, asked as a registrar (with ``self.token``) or as a holder."""

    lab: Lab
    session: aiohttp.ClientSession
    token: str

    @property
    def ids(self) -> dict[str, str]:
        ready = self.lab.ready("ezca")
        return {"CAID": ready["ca_id"], "TemplateID": ready["template_id"]}

    async def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        async with self.session.request(method, self.lab.url("ezca") + path, json=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def ca(self, name: str, body: Any = None, token: str | None = None) -> Any:
        """One of ``/api/CA/``: GET without a body, POST with one. Returns the JSON of a 200."""
        status, text = await self.call("GET" if body is None else "POST", f"/api/CA/{name}", body, token)
        assert status == 200, text
        return json.loads(text)

    def registration(self, domain: str, **changes: Any) -> dict[str, Any]:
        return {
            **self.ids,
            "Domain": domain,
            "Owners": [person(OWNER)],
            "Requesters": [],
            "RequestersOnly": [],
            "NotificationEmails": [],
            **changes,
        }

    def order(self, name: str, key: Key, **changes: Any) -> dict[str, Any]:
        """RequestSSLCertificateV2's body for a device."""
        return {
            **self.ids,
            "SubjectName": f"CN={name}",
            "SubjectAltNames": [{"SubjectAltType": 2, "ValueSTR": name}],
            "CSR": pem(csr(key, name)),
            "ValidityInDays": 10,
            "EKUs": [CLIENT_AUTH],
            "KeyUsages": ["Digital Signature", "Key Encipherment"],
            "SelectedLocation": "IoT Device",
            "ResourceID": "",
            "SecretName": "",
            "AKVName": "",
            "AutoRenew": False,
            "AutoRenewPercentage": 80,
            "CertAppID": "",
            "CertificateTags": "",
            "SID": "",
            **changes,
        }

    async def issued(self, name: str, key: Key, **changes: Any) -> x509.Certificate:
        """Register the domain when it is new, and get a certificate for it."""
        await self.ca("RegisterNewDomain", self.registration(name))
        answer = await self.ca("RequestSSLCertificateV2", self.order(name, key, **changes))
        return x509.load_pem_x509_certificate(answer["CertificatePEM"].encode())

    async def renew(self, version: str, certificate: x509.Certificate, key: Key, request: Any) -> tuple[int, str]:
        body: dict[str, Any] = {"CSR": pem(request), "ValidityInDays": 20}
        if version:
            body = {"Certificate": pem(certificate), "Payload": body}
        path = f"/api/Certificates/RenewCertificate{version}"
        return await self.call("POST", path, body, holder_token(certificate, key))

    async def issued_once(self, name: str, key: Key) -> x509.Certificate:
        """As ``issued``, but tests that leave the certificate as it is may share it."""
        for account in self.lab.get("ezca", "/lab/certificates"):
            if account["common_name"] == name:
                return x509.load_pem_x509_certificate(account["pem"].encode())
        return await self.issued(name, key)
