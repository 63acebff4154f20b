"""The Entra stand-in with MSAL as its client, and its error documents over plain HTTPS."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

import jwt
import msal
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.lab import Lab

from .client import MANAGEMENT, OWNER, Ezca, pem

CLIENT = "44444444-0000-4000-8000-000000000001"
OBJECT = "44444444-0000-4000-8000-000000000002"
HUB = "https://iothubs.azure.net/.default"


@pytest.fixture
async def assertion(ezca: Ezca, key: rsa.RSAPrivateKey) -> Any:
    """A function that signs assertions with a certificate that was uploaded for CLIENT."""
    certificate = await ezca.issued_once("entra-app", key)
    application = {"client_id": CLIENT, "object_id": OBJECT, "certificate": pem(certificate)}
    ezca.lab.post("entra", "/lab/applications", application)
    digest = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()

    def sign(audience: str, client: str = CLIENT) -> str:
        now = int(time.time())
        claims = {"iss": client, "sub": client, "aud": audience, "jti": str(uuid.uuid4()), "nbf": now, "exp": now + 300}
        return jwt.encode(claims, key, algorithm="PS256", headers={"x5t#S256": digest})

    return sign


def authority(lab: Lab) -> str:
    return f"{lab.url('entra')}/{lab.ready('entra')['tenant_id']}"


def ask(lab: Lab, **form: str) -> tuple[int, dict[str, Any]]:
    """The token endpoint's status and document."""
    data = urllib.parse.urlencode(form).encode()
    try:
        with urllib.request.urlopen(f"{authority(lab)}/oauth2/v2.0/token", data, 10, context=lab.tls) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def test_msal_gets_a_token_for_each_service_and_neither_takes_the_others(
    running: Lab, assertion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # requests, which MSAL uses, prefers these to the bundle that it is given.
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    endpoint = f"{authority(running)}/oauth2/v2.0/token"
    application = msal.ConfidentialClientApplication(
        CLIENT,
        authority=authority(running),
        instance_discovery=False,
        verify=str(running.web_root),
        client_credential={"client_assertion": lambda: assertion(endpoint)},
    )
    public = (running.directory / "entra-signing-public.pem").read_bytes()
    tokens = {}
    for scope in (MANAGEMENT, HUB):
        answer = application.acquire_token_for_client([scope])
        assert answer.get("token_type") == "Bearer", answer
        assert 3000 < answer["expires_in"] <= 3600
        audience = scope.removesuffix("/.default")
        claims = jwt.decode(answer["access_token"], public, algorithms=["RS256"], audience=audience)
        assert (claims["oid"], claims["appid"]) == (OBJECT, CLIENT)
        assert "upn" not in claims
        tokens[scope] = answer["access_token"]

    def my_domains(token: str) -> int:
        url = running.url("ezca") + "/api/CA/GetMyDomains"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10, context=running.tls) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as refusal:
            return refusal.code

    assert my_domains(tokens[MANAGEMENT]) == 200
    assert my_domains(tokens[HUB]) == 401


@pytest.mark.parametrize(
    ("changes", "status", "error", "code"),
    [
        ({"scope": "https://graph.microsoft.com/.default"}, 400, "invalid_resource", 500011),
        ({"scope": "https://iothubs.azure.net/Device.Write"}, 400, "invalid_scope", 70011),
        ({"scope": f"{HUB} {MANAGEMENT}"}, 400, "invalid_scope", 70011),
        ({"scope": ""}, 400, "invalid_request", 900144),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"client_id": "44444444-0000-4000-8000-00000000000f"}, 400, "unauthorized_client", 700016),
        ({"client_assertion": ""}, 401, "invalid_client", 7000218),
        ({"client_assertion": "a.b.c"}, 401, "invalid_client", 50027),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_a_refusal_comes_as_entra_words_it(
    running: Lab, assertion: Any, changes: dict[str, str], status: int, error: str, code: int
) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": CLIENT,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion(f"{authority(running)}/oauth2/v2.0/token"),
        "scope": HUB,
    }
    assert ask(running, **form)[0] == 200
    got, document = ask(running, **{**form, **changes})
    assert (got, document["error"], document["error_codes"]) == (status, error, [code])
    assert document["error_description"].startswith(f"AADSTS{code}: ")
    assert {"timestamp", "trace_id", "correlation_id"} <= set(document)
    assert running.get("entra", "/lab/log")[-1]["code"] == code


def test_a_tenant_that_does_not_exist(running: Lab) -> None:
    application = f"{running.url('entra')}/00000000-0000-0000-0000-000000000000"
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(f"{application}/v2.0/.well-known/openid-configuration", None, 10, context=running.tls)
    assert json.load(refusal.value)["error_codes"] == [90002]


def test_the_directory_is_kept_over_a_restart_and_forgets_what_is_removed(running: Lab, assertion: Any) -> None:
    def registered() -> list[str]:
        return [each["client_id"] for each in running.get("entra", "/lab/applications")]

    assert CLIENT in registered()
    running.restart("entra")
    assert CLIENT in registered()
    request = urllib.request.Request(f"{running.url('entra')}/lab/applications/{CLIENT}", method="DELETE")
    urllib.request.urlopen(request, timeout=10, context=running.tls).close()
    assert CLIENT not in registered()


def test_faults(running: Lab) -> None:
    running.post(
        "entra", "/lab/faults", {"call": "token", "mode": "429", "message": '{"error": "x"}', "retry_after": 7}
    )
    status, document = ask(running, grant_type="client_credentials")
    assert (status, document) == (429, {"error": "x"})
    assert ask(running, grant_type="client_credentials")[0] == 400


def test_a_persons_token_names_the_person(running: Lab) -> None:
    command = [sys.executable, "-m", "gatewayd.lab", "entra-token", "--dir", str(running.directory)]
    command += ["--object-id", OWNER, "--upn", "ada@plant.example"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=15)
    public = (running.directory / "entra-signing-public.pem").read_bytes()
    audience = "https://management.core.windows.net"
    claims = jwt.decode(run.stdout.strip(), public, algorithms=["RS256"], audience=audience)
    assert (claims["oid"], claims["upn"]) == (OWNER, "ada@plant.example")
    assert "appid" not in claims
