"""Every refusal, as a client sees it: the status, one sentence, and nothing issued and nothing consumed."""

from __future__ import annotations

import asyncio
import base64
import logging

import pytest

from gatewayd.config import EstSettings
from gatewayd.core.model import DeviceState
from gatewayd.errors import IssuerUnreachable, StoreBroken, TokenTimeout, TooManyRequests
from gatewayd.leaf.wire import MAX_BODY
from tests.support.fake_enroller import DER

from .conftest import PEM, Est, make_csr, unused_address

CODE = ("-u", "leaf-1:AAAA-BBBB")
CSR = make_csr("leaf-1")
GOOD = base64.b64encode(CSR.public_bytes(DER))


@pytest.fixture(autouse=True)
def _leaf(est: Est) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")


def unharmed(est: Est) -> bool:
    return not est.enroller.issued and est.enroller.unused_codes == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"!!!", "not base64"),
        (b"MIIB", "not a well-formed PKCS#10"),
        (CSR.public_bytes(DER), "plain DER"),
        (CSR.public_bytes(PEM), "PEM"),
        (base64.b64encode(CSR.public_bytes(DER)[:-1] + b"\x00"), ""),
    ],
    ids=["empty", "not base64", "not a CSR", "DER", "PEM", "wrong signature"],
)
async def test_malformed(est: Est, body: bytes, says: str) -> None:
    reply = await est.curl("simpleenroll", *CODE, body=body)
    assert reply.status == 400
    assert says in reply.sentence
    assert unharmed(est)


@pytest.mark.parametrize("how", [(), ("-H", "Transfer-Encoding: chunked")], ids=["announced", "chunked"])
async def test_oversized(est: Est, how: tuple[str, ...]) -> None:
    reply = await est.curl("simpleenroll", *CODE, *how, body=b"A" * (MAX_BODY + 1))
    assert reply.status == 413
    assert str(MAX_BODY) in reply.sentence
    assert unharmed(est)


@pytest.mark.parametrize(
    "header",
    ["Content-Type: application/json", "Content-Type:", "Content-Encoding: gzip"],
    ids=["another type", "no type", "compressed"],
)
async def test_wrong_media(est: Est, header: str) -> None:
    reply = await est.curl("simpleenroll", *CODE, "-H", header, body=GOOD)
    assert reply.status == 415
    assert reply.sentence
    assert unharmed(est)


@pytest.mark.parametrize("resource", ["simpleenroll", "simplereenroll"])
async def test_no_credentials(est: Est, resource: str) -> None:
    reply = await est.curl(resource, body=GOOD)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith('Basic realm="')
    assert reply.sentence
    assert est.enroller.requests == []


@pytest.mark.parametrize(
    "options",
    [
        ("-u", "leaf-1:CCCC-DDDD"),
        ("-u", "leaf-1:"),
        ("-u", "stranger:AAAA-BBBB"),
        ("-H", "Authorization: Basic ???"),
        ("-H", "Authorization: Bearer AAAA-BBBB"),
    ],
)
async def test_wrong_credentials(est: Est, options: tuple[str, ...]) -> None:
    reply = await est.curl("simpleenroll", *options, body=GOOD)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Basic ")
    assert reply.sentence
    assert unharmed(est)


async def test_another_devices_name(est: Est) -> None:
    reply = await est.curl("simpleenroll", *CODE, body=base64.b64encode(make_csr("leaf-2").public_bytes(DER)))
    assert reply.status == 403
    assert reply.sentence == "The CSR's subject must be exactly CN=<device id>."
    assert unharmed(est)


async def test_unknown_device_with_a_certificate(est: Est) -> None:
    reply = await est.curl("simplereenroll", "--cert", est.client_certificate("stranger"), body=GOOD)
    assert reply.status == 403
    assert reply.sentence == "The device is not known here."
    assert unharmed(est)


async def test_revoked_device(est: Est) -> None:
    est.enroller.add("leaf-1", state=DeviceState.REVOKED)
    reply = await est.curl("simpleenroll", *CODE, body=GOOD)
    assert reply.status == 403
    assert reply.sentence == "The device has been revoked."
    assert unharmed(est)


@pytest.mark.parametrize(
    ("resource", "options", "status"),
    [
        ("nothing", (), 404),
        ("", (), 404),
        ("cacerts/", (), 404),
        ("factory/cacerts", (), 404),
        ("plant/cacerts", (), 200),
        ("%63acerts", (), 404),
        ("serverkeygen", ("-X", "POST"), 501),
        ("fullcmc", ("-X", "POST"), 501),
        ("cacerts", ("-X", "POST"), 405),
        ("simpleenroll", (), 405),
        ("simplereenroll", ("-X", "PUT"), 405),
    ],
)
async def test_what_is_there_and_what_not(est: Est, resource: str, options: tuple[str, ...], status: int) -> None:
    reply = await est.curl(resource, *options)
    assert reply.status == status
    if status != 200:
        assert reply.sentence
    if status == 405:
        assert reply.headers["allow"] == ("GET" if resource == "cacerts" else "POST")


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (StoreBroken("disk I/O error at /var/lib/gatewayd"), 503, "60"),
        (TokenTimeout("slot 4711 did not answer"), 503, "60"),
        (IssuerUnreachable("ca.internal refused", retry_after=7.2), 503, "8"),
        (TooManyRequests("The CA is over its quota.", retry_after=30), 429, "30"),
        (RuntimeError("secret detail"), 500, None),
    ],
)
async def test_our_own_trouble(est: Est, error: Exception, status: int, retry_after: str | None) -> None:
    """A stranger learns the error's name and when to come back, and none of the gateway's inside."""
    est.enroller.fails_with = error
    reply = await est.curl("simpleenroll", *CODE, body=GOOD)
    assert reply.status == status
    assert reply.headers.get("retry-after") == retry_after
    if status != 429:
        assert str(error) not in reply.sentence
    assert unharmed(est)


async def test_a_defect_is_logged_with_its_traceback(est: Est, caplog: pytest.LogCaptureFixture) -> None:
    est.enroller.fails_with = RuntimeError("what went wrong")
    await est.curl("simpleenroll", *CODE, body=GOOD)
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert "what went wrong" in str(record.exc_info[1])


async def test_not_bootstrapped(est: Est) -> None:
    est.enroller.bootstrapped = False
    reply = await est.curl("cacerts")
    assert reply.status == 503
    assert reply.sentence == "The gateway cannot do this now (NotBootstrapped)."


async def test_too_many_wrong_codes_and_only_codes_are_shut_out(est: Est) -> None:
    for _ in range(10):
        assert (await est.curl("simpleenroll", "-u", "leaf-1:WRONG", body=GOOD)).status == 401
    asked = len(est.enroller.requests)
    reply = await est.curl("simpleenroll", *CODE, body=GOOD)
    assert reply.status == 429
    assert 0 < int(reply.headers["retry-after"]) <= 60
    assert reply.sentence
    assert len(est.enroller.requests) == asked
    assert (await est.curl("simplereenroll", "--cert", est.client_certificate("leaf-1"), body=GOOD)).status == 200


class TestBusy:
    @pytest.fixture
    def settings(self) -> EstSettings:
        return EstSettings(address=unused_address(), port=0, max_concurrent=1)

    async def test_one_too_many_is_told_when_to_come_back(self, est: Est) -> None:
        est.enroller.delay = 1.0
        first = asyncio.create_task(est.curl("simpleenroll", *CODE, body=GOOD))
        await est.enroller.entered.wait()
        second = await est.curl("simpleenroll", *CODE, body=GOOD)
        assert second.status == 429
        assert second.headers["retry-after"] == "5"
        assert (await est.curl("cacerts")).status == 200
        assert (await first).status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01 not http\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /.well-known/est/cacerts HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: a\r\nAuthorization: Basic bGVhZi0xOkFBQUEtQkJCQg==\r\n"
        b"Content-Type: application/pkcs10\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_gets_one_sentence(est: Est, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await asyncio.open_connection(*est.host_port, ssl=est.client_context())
    writer.write(garbage)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400")), answer
    assert body.count(b"\n") == 1
    assert body.endswith(b".\n")
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
