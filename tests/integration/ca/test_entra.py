"""Tokens for the gateway's application, from the stand-in for Entra in a process of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from gatewayd.ca.base import TokenSource
from gatewayd.config import EntraSettings
from gatewayd.errors import IssuerUnreachable, RegistrarRefused, TokenTimeout
from gatewayd.pki import certificates, pem
from gatewayd.upstream.entra import EntraTokens, StaticToken
from tests.support.authority import now
from tests.support.lab import Lab

from .conftest import Server

CLIENT_ID = "33333333-3333-3333-3333-333333333333"
OBJECT_ID = "22222222-2222-2222-2222-222222222222"
EZCA = "https://management.core.windows.net/.default"
HUB = "https://iothubs.azure.net/.default"
KEY = rsa.generate_private_key(65537, 2048)
CERTIFICATE = certificates.self_signed(KEY, "gatewayd gw-1", timedelta(days=730), now())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.start("entra")
        yield lab


@pytest.fixture
def settings(running: Lab) -> Iterator[EntraSettings]:
    running.post(
        "entra",
        "/lab/applications",
        {"client_id": CLIENT_ID, "object_id": OBJECT_ID, "certificate": pem.encode([CERTIFICATE])},
    )
    tenant = running.ready("entra")["tenant_id"]
    yield EntraSettings(tenant, CLIENT_ID, OBJECT_ID, authority=running.url("entra") + "/", timeout=5.0)
    assert running.get("entra", "/lab/faults") == []


@pytest.fixture
def tokens(running: Lab, settings: EntraSettings) -> EntraTokens:
    return EntraTokens(settings, KEY, CERTIFICATE, running.web_root)


def asked(running: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.get("entra", "/lab/log")
    return found


async def test_the_application_gets_a_token_for_each_scope_and_keeps_it(running: Lab, tokens: EntraTokens) -> None:
    source: TokenSource = tokens
    before = len(asked(running))
    first, other, again = await asyncio.gather(source.token(EZCA), source.token(HUB), source.token(EZCA))
    assert first == again
    claims = jwt.decode(first, options={"verify_signature": False})
    assert (claims["aud"], claims["oid"]) == ("https://management.core.windows.net", OBJECT_ID)
    assert jwt.decode(other, options={"verify_signature": False})["aud"] == "https://iothubs.azure.net"
    assert len(asked(running)) == before + 2


async def test_a_certificate_that_entra_does_not_know_is_refused_with_its_code(
    running: Lab, settings: EntraSettings
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    other = certificates.self_signed(key, "gatewayd gw-1", timedelta(days=1), now())
    stranger = EntraTokens(settings, key, other, running.web_root)
    with pytest.raises(RegistrarRefused, match=rf"{CLIENT_ID}: invalid_client, HTTP 401, AADSTS700027\.$"):
        await stranger.token(EZCA)
    # Uploaded, it counts at once: a refusal is not remembered.
    running.post(
        "entra",
        "/lab/applications",
        {"client_id": CLIENT_ID, "object_id": OBJECT_ID, "certificate": pem.encode([other])},
    )
    assert await stranger.token(EZCA)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_id": "44444444-4444-4444-4444-444444444444"}, "unauthorized_client, HTTP 400, AADSTS700016"),
        ({"tenant_id": "55555555-5555-5555-5555-555555555555"}, "HTTP 400"),
    ],
)
async def test_a_wrong_application_or_tenant_is_refused(
    running: Lab, settings: EntraSettings, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RegistrarRefused, match=words):
        await EntraTokens(replace(settings, **changes), KEY, CERTIFICATE, running.web_root).token(EZCA)


@pytest.mark.parametrize("call", ["openid-configuration", "token"])
@pytest.mark.parametrize("mode", ["503", "429", "reset", "error-text"])
async def test_a_passing_fault_is_no_refusal_and_not_remembered(
    running: Lab, tokens: EntraTokens, call: str, mode: str
) -> None:
    running.post("entra", "/lab/faults", {"call": call, "mode": mode, "retry_after": 60})
    with pytest.raises(IssuerUnreachable, match=f"{running.address}:8442 gave no token"):
        await tokens.token(EZCA)
    assert await tokens.token(EZCA)


async def test_silence_ends_in_time(running: Lab, settings: EntraSettings) -> None:
    tokens = EntraTokens(replace(settings, timeout=0.3), KEY, CERTIFICATE, running.web_root)
    running.post("entra", "/lab/faults", {"call": "token", "mode": "timeout"})
    with pytest.raises(IssuerUnreachable, match="in time"):
        await tokens.token(EZCA)


async def test_an_authority_that_is_not_trusted_is_told(settings: EntraSettings) -> None:
    with pytest.raises(IssuerUnreachable, match="TLS certificate is not trusted"):
        await EntraTokens(settings, KEY, CERTIFICATE, None).token(EZCA)


async def test_a_huge_answer_and_a_redirect_are_no_answers(
    server: Server, running: Lab, settings: EntraSettings
) -> None:
    anchor = running.directory / "server-root.pem"
    anchor.write_bytes(b"".join(_pems(server)))
    tokens = EntraTokens(replace(settings, authority=server.url), KEY, CERTIFICATE, anchor)
    server.answers(200, b" " * 2_000_000)
    with pytest.raises(IssuerUnreachable, match="not of the form"):
        await tokens.token(EZCA)
    server.answers(302, Location="https://elsewhere.example/")
    with pytest.raises(IssuerUnreachable, match="not of the form"):
        await tokens.token(EZCA)
    assert len(server.requests) == 2


def _pems(server: Server) -> list[bytes]:
    ders = server.client.get_ca_certs(binary_form=True)
    return [x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in ders]


async def test_a_key_that_cannot_sign_says_so_itself(
    running: Lab, settings: EntraSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> str:
        raise TokenTimeout("The token did not answer within 15 s.")

    monkeypatch.setattr(jwt, "encode", unavailable)
    with pytest.raises(TokenTimeout):
        await EntraTokens(settings, KEY, CERTIFICATE, running.web_root).token(EZCA)


async def test_nothing_secret_is_logged(running: Lab, tokens: EntraTokens, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = await tokens.token(EZCA)
    running.post("entra", "/lab/faults", {"call": "token", "mode": "error-text", "message": "secret in an answer"})
    with pytest.raises(IssuerUnreachable):
        await tokens.token(HUB)
    assert token not in caplog.text
    assert "eyJ" not in caplog.text
    assert "secret in an answer" not in caplog.text
    assert token not in repr(tokens)


async def test_a_persons_token_is_given_as_it_is_and_not_shown() -> None:
    source: TokenSource = StaticToken("eyJ.person.token")
    assert await source.token(EZCA) == "eyJ.person.token"
    assert "eyJ" not in repr(source)
