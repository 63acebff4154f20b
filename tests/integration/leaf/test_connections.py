"""Connections: who dawdles is dropped, who asks at the end is answered."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import statistics
import threading
import time

import pytest

from gatewayd.config import EstSettings
from gatewayd.errors import ConfigInvalid
from gatewayd.leaf import http, listener, service
from gatewayd.leaf.server import EstServer
from tests.support.fake_enroller import DER

from .conftest import Est, make_csr

CSR = base64.b64encode(make_csr("leaf-1").public_bytes(DER))
HEAD = (
    b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: gw\r\nContent-Type: application/pkcs10\r\n"
    b"Authorization: Basic " + base64.b64encode(b"leaf-1:AAAA-BBBB") + b"\r\nContent-Length: %d\r\n\r\n" % len(CSR)
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEEP_ALIVE_SECONDS", 0.3)
    monkeypatch.setattr(service, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.3)


async def connect(est: Est) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*est.host_port, ssl=est.client_context())


async def dropped(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""


async def test_a_handshake_that_does_not_come(est: Est) -> None:
    reader, writer = await asyncio.open_connection(*est.host_port)
    assert await dropped(reader) == b""
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /.well-known/est/csr", HEAD[:-2]])
async def test_a_head_that_does_not_end(est: Est, sent: bytes) -> None:
    reader, writer = await connect(est)
    writer.write(sent)
    assert await dropped(reader) == b""
    writer.close()


async def test_a_second_head_that_does_not_end(est: Est) -> None:
    reader, writer = await connect(est)
    writer.write(b"GET /.well-known/est/csrattrs HTTP/1.1\r\nHost: gw\r\n\r\nGET /.well")
    assert (await dropped(reader)).count(b"HTTP/1.1") == 1
    writer.close()


async def test_a_body_that_does_not_end(est: Est) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    reader, writer = await connect(est)
    writer.write(HEAD + CSR[:-10])
    assert (await dropped(reader)).startswith(b"HTTP/1.1 408")
    assert est.enroller.requests == []
    writer.close()


async def test_one_address_cannot_take_all_connections(est: Est, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_PER_ADDRESS", 2)
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 5.0)
    held = [await asyncio.open_connection(*est.host_port) for _ in range(2)]
    reader, writer = await asyncio.open_connection(*est.host_port)
    assert await dropped(reader) == b""
    for each in (writer, *(writer for _, writer in held)):
        each.close()
    await asyncio.sleep(0.1)
    reader, writer = await connect(est)
    writer.close()


async def test_a_stopped_server_answers_what_is_under_way_and_nobody_else(est: Est) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    est.enroller.delay = 0.5
    idle, _idle = await connect(est)
    shaking, _shaking = await asyncio.open_connection(*est.host_port)
    reader, writer = await connect(est)
    writer.write(HEAD + CSR)
    await est.enroller.entered.wait()
    stopping = asyncio.create_task(est.server.stop(drain=5.0))
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*est.host_port)
    assert await dropped(idle) == b""
    assert await dropped(shaking) == b""
    assert (await dropped(reader)).startswith(b"HTTP/1.1 200")
    await asyncio.wait_for(stopping, 5)
    for each in (writer, _idle, _shaking):
        each.close()


async def test_a_stop_does_not_wait_for_ever(est: Est) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    est.enroller.delay = 60.0
    _, writer = await connect(est)
    writer.write(HEAD + CSR)
    await est.enroller.entered.wait()
    await asyncio.wait_for(est.server.stop(drain=0.2), 5)
    writer.close()


async def test_a_client_that_leaves_does_not_stop_its_enrollment(est: Est) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    est.enroller.delay = 0.2
    _, writer = await connect(est)
    writer.write(HEAD + CSR)
    await est.enroller.entered.wait()
    writer.transport.abort()
    await asyncio.sleep(0.4)
    assert len(est.enroller.issued) == 1


async def test_an_address_in_use_is_said_in_one_line(est: Est) -> None:
    address, port = est.host_port
    second = EstServer(est.enroller, EstSettings(address=address, port=port), est.tls)
    with pytest.raises(ConfigInvalid, match=f"cannot listen on {address} port {port}: .*in use"):
        await second.start()


async def test_a_slow_token_holds_up_neither_the_daemon_nor_those_who_are_connected(
    est: Est, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that takes 100 ms for a signature, and twenty leaves that come at once."""
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 10.0)
    monkeypatch.setattr(http, "KEEP_ALIVE_SECONDS", 10.0)
    reader, connected = await connect(est)
    one_at_a_time = threading.Lock()

    def sign(*_: object) -> None:
        with one_at_a_time:
            time.sleep(0.1)  # lets go of the GIL, as a call of the token does

    est.tls.context.sni_callback = sign
    handshakes = asyncio.gather(*(connect(est) for _ in range(20)))
    lags, answers = [], []
    while not handshakes.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        lags.append(time.monotonic() - before - 0.01)
        before = time.monotonic()
        connected.write(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: gw\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        answers.append(time.monotonic() - before)
    for measured in (lags, answers):
        assert statistics.median(measured) < 0.05
        assert statistics.quantiles(measured, n=20)[-1] < 0.25
    for _, writer in (*await handshakes, (reader, connected)):
        writer.close()


async def test_a_peer_that_tls_refuses_is_told_why(est: Est) -> None:
    context = est.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DHE-RSA-AES256-SHA256")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        await asyncio.open_connection(*est.host_port, ssl=context)
