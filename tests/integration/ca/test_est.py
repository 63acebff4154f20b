"""The EST client against servers of every habit."""

from __future__ import annotations

import asyncio
import base64
import statistics
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from gatewayd.ca.base import Issued, Working
from gatewayd.ca.est import EstClient
from gatewayd.ca.sparing import RateLimit
from gatewayd.errors import (
    CertificateUnacceptable,
    GatewayError,
    IssuerRejected,
    IssuerUnconfigured,
    IssuerUnreachable,
)
from gatewayd.keys import tls
from gatewayd.keys.base import Priority, Scheme
from gatewayd.keys.signer import TokenEcKey
from gatewayd.pki import csr
from gatewayd.pki.pkcs7 import certs_only
from tests.support.authority import Authority

from .conftest import Server

AUTHORITY = Authority()
KEY = ec.generate_private_key(ec.SECP256R1())
REQUEST = csr.build(KEY, "gw-1", ())
LEAF = AUTHORITY.leaf(KEY.public_key(), "gw-1")
BAG = certs_only([AUTHORITY.root, LEAF, AUTHORITY.issuing])


def client(server: Server) -> EstClient:
    return EstClient(server.url + "/.well-known/est/", 5.0, RateLimit(1000))


@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes, lambda der: der])
async def test_the_leaf_is_found_by_its_key_and_the_chain_is_put_in_order(
    server: Server, encode: Callable[[bytes], bytes]
) -> None:
    server.answers(200, encode(BAG), Content_Type="application/pkcs7-mime")
    issued = await client(server).simpleenroll(REQUEST, server.client, "gw-1")
    assert issued == Issued(LEAF, AUTHORITY.chain)
    assert server.requests[0].path == "/.well-known/est/simpleenroll"
    assert server.requests[0].content_type == "application/pkcs10"
    assert base64.b64decode(server.bodies[0]) == REQUEST


async def test_reenrolling_and_the_cas_certificates_have_their_own_paths(server: Server) -> None:
    server.answers(200, base64.b64encode(certs_only([LEAF])))
    assert await client(server).simplereenroll(REQUEST, server.client, "gw-1") == Issued(LEAF, ())
    server.answers(200, base64.encodebytes(certs_only(AUTHORITY.chain)))
    assert await client(server).cacerts(server.client) == AUTHORITY.chain
    assert [each.path.rpartition("/")[2] for each in server.requests] == ["simplereenroll", "cacerts"]


async def test_a_ca_that_works_on_it_says_when_to_come_back(server: Server) -> None:
    server.answers(202, Retry_After="90")
    assert await client(server).simpleenroll(REQUEST, server.client, "gw-1") == Working(90.0)
    server.answers(202)
    assert await client(server).simpleenroll(REQUEST, server.client, "gw-1") == Working(60.0)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, IssuerRejected),
        (401, IssuerUnconfigured),
        (403, IssuerUnconfigured),
        (404, IssuerUnconfigured),
        (302, IssuerUnconfigured),
        (429, IssuerUnreachable),
        (500, IssuerUnreachable),
        (503, IssuerUnreachable),
    ],
)
async def test_each_refusal_becomes_its_error(server: Server, status: int, error: type[GatewayError]) -> None:
    server.answers(status, b"no", Retry_After="5")
    with pytest.raises(error, match=f"did not issue a certificate for gw-1: HTTP {status}") as caught:
        await client(server).simpleenroll(REQUEST, server.client, "gw-1")
    assert (caught.value.device, caught.value.retry_after) == ("gw-1", 5.0)


@pytest.mark.parametrize(
    "body",
    [b"", b"!", b"\x30\x82\x00\x01", base64.b64encode(b"certificate"), base64.b64encode(certs_only(AUTHORITY.chain))],
)
async def test_an_answer_without_our_certificate_is_unacceptable(server: Server, body: bytes) -> None:
    server.answers(200, body)
    with pytest.raises(CertificateUnacceptable):
        await client(server).simpleenroll(REQUEST, server.client, "gw-1")


async def test_a_slow_token_does_not_hold_up_the_daemon(server: Server) -> None:
    """Each handshake takes a signature of the token, and that takes 200 ms."""
    key = ec.generate_private_key(ec.SECP256R1())
    signed = 0

    def sign(_: Scheme, digest: bytes, __: Priority) -> bytes:
        nonlocal signed
        signed += 1
        time.sleep(0.2)  # lets go of the GIL, as a call of the token does
        made = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
        return b"".join(each.to_bytes(32, "big") for each in made)

    tls.bind(
        server.client,
        server.authority.leaf(key.public_key(), "gw-1"),
        [server.authority.issuing],
        TokenEcKey(key.public_key(), sign),
    )
    server.answers(200, base64.b64encode(BAG), Content_Type="application/pkcs7-mime")
    enrolling = asyncio.gather(*(client(server).simpleenroll(REQUEST, server.client, "gw-1") for _ in range(4)))
    lags = []
    while not enrolling.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        lags.append(time.monotonic() - before - 0.01)
    assert await enrolling == [Issued(LEAF, AUTHORITY.chain)] * 4
    assert signed == 4
    assert statistics.median(lags) < 0.05
    assert statistics.quantiles(lags, n=10)[-1] < 0.15
