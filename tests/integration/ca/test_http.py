"""Whatever happens on the wire ends in time, in one sentence, and is not sent twice."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from aiohttp import web

from gatewayd.ca.http import Answer, exchange
from gatewayd.errors import IssuerUnreachable

from .conftest import Server


async def post(server: Server, **changes: Any) -> Answer:
    options: dict[str, Any] = {
        "tls": server.client,
        "within": 5.0,
        "limit": 10_000,
        "headers": {"Authorization": "Bearer secret-token"},
        "body": b"{}",
    }
    return await exchange("POST", server.url + "/call", **{**options, **changes})


async def test_an_answer_comes_back_whole_whatever_its_status(server: Server) -> None:
    server.answers(503, b"\xef\xbb\xbf busy \n", Retry_After="7")
    answer = await post(server)
    assert (answer.status, answer.text, answer.retry_after) == (503, "busy", 7.0)
    assert server.requests[0].headers["Authorization"] == "Bearer secret-token"
    assert server.bodies == [b"{}"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", None), ("-5", None), ("", None), ("²", None)],
)
async def test_retry_after_is_read_or_left(server: Server, value: str, seconds: float | None) -> None:
    server.answers(429, Retry_After=value)
    assert (await post(server)).retry_after == seconds


async def test_silence_ends_in_time(server: Server) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    server.answer = silent
    with pytest.raises(IssuerUnreachable, match=r"did not answer within 0.3 s"):
        await post(server, within=0.3)
    assert len(server.requests) == 1


async def test_an_answer_that_trickles_ends_in_time(server: Server) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    server.answer = trickle
    with pytest.raises(IssuerUnreachable, match="did not answer within"):
        await post(server, within=0.4)


@pytest.mark.parametrize("sent", [b"", b'{"CertificatePEM": "-----BEG'])
async def test_a_connection_that_breaks_is_unclear_and_not_repeated(server: Server, sent: bytes) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "5000"})
        if sent:
            await response.prepare(request)
            await response.write(sent)
        assert request.transport is not None
        request.transport.abort()
        return response

    server.answer = broken
    with pytest.raises(IssuerUnreachable, match="broke before the answer was complete") as caught:
        await post(server)
    assert "secret-token" not in repr(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert len(server.requests) == 1


async def test_a_huge_answer_is_cut_off(server: Server) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)

    server.answer = endless
    with pytest.raises(IssuerUnreachable, match="more than 10000 bytes"):
        await post(server)


async def test_a_redirect_is_not_followed(server: Server) -> None:
    server.answers(307, Location="/elsewhere")
    assert (await post(server)).status == 307
    assert [each.path for each in server.requests] == ["/call"]


async def test_an_untrusted_server_gets_nothing(server: Server) -> None:
    with pytest.raises(IssuerUnreachable, match="certificate is not trusted"):
        await post(server, tls=ssl.create_default_context())
    assert server.requests == []


async def test_nobody_there_and_no_such_name(server: Server) -> None:
    url = server.url.rpartition(":")[0]
    options: dict[str, Any] = {"tls": server.client, "within": 5.0, "limit": 10, "headers": {}}
    with pytest.raises(IssuerUnreachable, match="could not be asked"):
        await exchange("GET", f"{url}:1/", **options)
    with pytest.raises(IssuerUnreachable, match=r"nowhere\.invalid could not be asked"):
        await exchange("GET", "https://nowhere.invalid/", **options)


async def test_what_is_not_http_is_unclear() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        with pytest.raises(IssuerUnreachable, match="could not be asked"):
            await exchange(
                "GET", f"https://127.0.0.1:{port}/", tls=ssl.create_default_context(), within=5, limit=10, headers={}
            )
