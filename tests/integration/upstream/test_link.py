"""HubLink against the hub stand-in, a process of its own that can be told to misbehave or be killed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gatewayd.errors import HubRefused, HubRejected, HubUnreachable, TokenFault
from gatewayd.upstream.base import Link, LinkState
from gatewayd.upstream.device import HubLink
from gatewayd.upstream.registry import HubRegistry
from tests.support.lab import Lab

from .conftest import GATEWAY, Credentials, Site

PEM = serialization.Encoding.PEM


def bind(
    context: ssl.SSLContext,
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    """What keys.tls.bind does, for a key of software."""
    with tempfile.NamedTemporaryFile() as file:
        for each in (certificate, *chain):
            file.write(each.public_bytes(PEM))
        file.write(private_key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        file.flush()
        context.load_cert_chain(file.name)


def make_link(lab: Lab, device_id: str = GATEWAY, timeout: float = 5.0) -> HubLink:
    return HubLink(lab.address, device_id, bind, lab.web_root.read_text(), timeout)


@pytest.fixture
async def link(lab: Lab, registry: HubRegistry) -> AsyncIterator[HubLink]:
    await registry.ensure(GATEWAY)
    link = make_link(lab)
    port: Link = link
    assert port.status().state is LinkState.OFF
    yield link
    await link.close()


async def test_a_gateway_connects_reports_and_sends(lab: Lab, link: HubLink, credentials: Credentials) -> None:
    credential = credentials.make()
    await link.connect(credential)
    status = link.status()
    assert (status.state, status.detail) == (LinkState.CONNECTED, "")
    assert status.serial == f"{credential.certificate.serial_number:x}"

    await link.report({"gatewayd": {"version": "1", "old": 1}})
    await link.report({"gatewayd": {"old": None}})
    await link.send({"deviceId": "leaf-1", "words": "grün"}, message_id="revocation:leaf-1:1a", kind="revocation")

    sent = lab.get("hub", "/lab/messages")[-1]
    assert sent["properties"] == {"type": "revocation"}
    assert sent["body"] == {"deviceId": "leaf-1", "words": "grün"}
    system = sent["systemProperties"]
    assert (system["content-type"], system["content-encoding"]) == ("application/json", "utf-8")
    assert (system["message-id"], system["iothub-connection-device-id"]) == ("revocation:leaf-1:1a", GATEWAY)


async def test_a_device_disabled_while_connected_is_cut_off_and_refused(
    lab: Lab, registry: HubRegistry, credentials: Credentials
) -> None:
    await registry.ensure("gw-disabled")
    link = make_link(lab, "gw-disabled")
    await link.connect(credentials.make("gw-disabled"))
    down = asyncio.create_task(link.wait_down())
    await registry.disable("gw-disabled", "keyCompromise")
    await asyncio.wait_for(down, 10)
    assert link.status().state is LinkState.UNREACHABLE
    assert link.status().detail == "The connection was lost."

    with pytest.raises(HubRefused, match=r"gw-disabled.*CONNACK 5"):
        await link.connect(credentials.make("gw-disabled"))
    assert link.status().state is LinkState.REFUSED
    assert "CONNACK 5" in link.status().detail
    await link.wait_down()  # at once
    await link.close()


@pytest.mark.parametrize("wrong", ["another name", "expired"])
async def test_a_wrong_certificate_is_refused_and_a_right_one_is_taken_after_it(
    link: HubLink, credentials: Credentials, wrong: str
) -> None:
    certificate = {
        "another name": lambda: credentials.make("gw-2"),
        "expired": lambda: credentials.make(lasts=timedelta(minutes=30)),
    }[wrong]()
    with pytest.raises(HubRefused):
        await link.connect(certificate)
    with pytest.raises(HubUnreachable):
        await link.send({}, message_id="1", kind="test")
    await link.connect(credentials.make())
    assert link.status().state is LinkState.CONNECTED


async def test_a_new_credential_takes_the_place_of_the_old_one(
    lab: Lab, link: HubLink, credentials: Credentials
) -> None:
    old, new = credentials.make(), credentials.make()
    await link.connect(old)
    down = asyncio.create_task(link.wait_down())
    await asyncio.sleep(0)
    await link.connect(new)
    await asyncio.wait_for(down, 1)
    current = [each for each in lab.get("hub", "/lab/connections")["current"] if each["deviceId"] == GATEWAY]
    assert [int(each["serial"], 16) for each in current] == [new.certificate.serial_number]
    await link.report({"gatewayd": {"version": "2"}})


async def test_another_connection_of_the_same_device_evicts_this_one(
    lab: Lab, link: HubLink, credentials: Credentials
) -> None:
    await link.connect(credentials.make())
    other = make_link(lab)
    await other.connect(credentials.make())
    await asyncio.wait_for(link.wait_down(), 5)
    assert link.status().state is LinkState.UNREACHABLE
    assert other.status().state is LinkState.CONNECTED
    await other.close()


async def test_a_hub_that_dies_and_comes_back(
    lab: Lab, link: HubLink, credentials: Credentials, caplog: pytest.LogCaptureFixture
) -> None:
    await link.connect(credentials.make())
    lab.kill("hub")
    try:
        await asyncio.wait_for(link.wait_down(), 5)
        with pytest.raises(HubUnreachable):
            await link.report({"gatewayd": {}})
        with pytest.raises(HubUnreachable, match="refused"):
            await link.connect(credentials.make())
        assert link.status().state is LinkState.UNREACHABLE
    finally:
        lab.start("hub")
    await link.connect(credentials.make())
    assert link.status().state is LinkState.CONNECTED
    # Of the link and what it is made of: other rooms' threads may still have something to say.
    ours = ("gatewayd.upstream", "azure", "paho")
    noise = [each for each in caplog.records if each.levelno >= logging.WARNING and each.name.startswith(ours)]
    assert not noise, [each.getMessage() for each in noise]


@pytest.mark.parametrize("match", ["CONNECT gw-1", "PUBLISH $iothub/twin/PATCH", "PUBLISH devices/gw-1"])
async def test_a_hub_that_never_answers_costs_no_more_than_the_time_limit(
    lab: Lab, registry: HubRegistry, credentials: Credentials, match: str
) -> None:
    await registry.ensure(GATEWAY)
    link = make_link(lab, timeout=1.0)
    lab.post("hub", "/lab/faults", {"where": "mqtt", "mode": "timeout", "match": match})
    started = time.monotonic()

    async def use() -> None:
        await link.connect(credentials.make())
        await link.report({"gatewayd": {"a": 1}})
        await link.send({}, message_id="1", kind="test")

    with pytest.raises(HubUnreachable, match="within 1 seconds"):
        await use()
    assert time.monotonic() - started < 3
    assert link.status().state is LinkState.UNREACHABLE
    await link.connect(credentials.make())
    await link.report({"gatewayd": {"a": 2}})
    await link.send({}, message_id="2", kind="test")
    await link.close()
    assert link.status().state is LinkState.OFF


async def test_a_connection_that_breaks_ends_what_waits_for_it(
    lab: Lab, link: HubLink, credentials: Credentials
) -> None:
    lab.post("hub", "/lab/faults", {"where": "mqtt", "mode": "drop", "match": "PUBLISH devices/gw-1"})
    await link.connect(credentials.make())
    started = time.monotonic()
    with pytest.raises(HubUnreachable, match="lost"):
        await link.send({}, message_id="1", kind="test")
    assert time.monotonic() - started < 2
    assert link.status().state is LinkState.UNREACHABLE


async def test_a_hub_that_is_busy_is_not_one_that_refuses(lab: Lab, link: HubLink, credentials: Credentials) -> None:
    lab.post("hub", "/lab/faults", {"where": "mqtt", "mode": "503", "match": "CONNECT gw-1"})
    with pytest.raises(HubUnreachable):
        await link.connect(credentials.make())
    assert link.status().state is LinkState.UNREACHABLE


async def test_close_ends_a_connect_under_way(lab: Lab, registry: HubRegistry, credentials: Credentials) -> None:
    await registry.ensure(GATEWAY)
    link = make_link(lab, timeout=20)
    lab.post("hub", "/lab/faults", {"where": "mqtt", "mode": "timeout", "match": "CONNECT gw-1"})
    connecting = asyncio.create_task(link.connect(credentials.make()))
    await asyncio.sleep(0.5)
    assert link.status().state is LinkState.CONNECTING
    started = time.monotonic()
    await link.close()
    with pytest.raises(HubUnreachable):
        await connecting
    assert time.monotonic() - started < 5
    assert link.status().state is LinkState.OFF


async def test_a_connect_that_is_cancelled_leaves_nothing_behind(
    lab: Lab, link: HubLink, credentials: Credentials
) -> None:
    lab.post("hub", "/lab/faults", {"where": "mqtt", "mode": "timeout", "match": "CONNECT gw-1"})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(link.connect(credentials.make()), 0.5)
    assert link.status().state is LinkState.OFF
    await link.connect(credentials.make())
    assert link.status().state is LinkState.CONNECTED


async def test_a_message_that_is_too_large_is_rejected(link: HubLink, credentials: Credentials) -> None:
    await link.connect(credentials.make())
    with pytest.raises(HubRejected, match="256 KB"):
        await link.send({"a": "x" * 300_000}, message_id="1", kind="test")
    assert link.status().state is LinkState.CONNECTED


async def test_a_key_that_cannot_be_bound_is_told_as_what_it_is(lab: Lab, credentials: Credentials) -> None:
    def broken(*_: object) -> None:
        raise TokenFault("The token answered CKR_DEVICE_ERROR.")

    link = HubLink(lab.address, GATEWAY, broken, lab.web_root.read_text(), 5)
    with pytest.raises(TokenFault):
        await link.connect(credentials.make())
    await link.close()


async def test_another_server_in_the_hubs_place(lab: Lab, credentials: Credentials) -> None:
    link = HubLink(lab.address, GATEWAY, bind, None, 5)
    with pytest.raises(HubUnreachable, match="not trusted"):
        await link.connect(credentials.make())
    await link.close()


async def test_a_server_that_never_speaks(site: Site, lab: Lab, credentials: Credentials) -> None:
    """It holds the SDK's one thread in the handshake; the next connect must not wait for it."""
    server = await asyncio.start_server(lambda _r, _w: asyncio.sleep(30), site.address, 8883)
    link = HubLink(site.address, GATEWAY, bind, site.anchor_pem, 1.0)
    with pytest.raises(HubUnreachable, match="within 1 seconds"):
        await link.connect(credentials.make())
    server.close()
    fine = make_link(lab)
    await fine.connect(credentials.make())
    await fine.close()
    await link.close()


async def test_a_client_that_is_stuck_does_not_gather_others_behind_it(
    lab: Lab, registry: HubRegistry, credentials: Credentials
) -> None:
    await registry.ensure(GATEWAY)
    release = threading.Event()

    def stuck(*arguments: Any) -> None:
        release.wait(20)
        bind(*arguments)

    link = HubLink(lab.address, GATEWAY, stuck, lab.web_root.read_text(), 0.5)
    try:
        with pytest.raises(HubUnreachable, match=r"within 0\.5 seconds"):
            await link.connect(credentials.make())
        for _ in range(2):
            with pytest.raises(HubUnreachable, match="still stuck"):
                await link.connect(credentials.make())
    finally:
        release.set()
    await link.connect(credentials.make())
    assert link.status().state is LinkState.CONNECTED
    await link.close()


async def test_a_certificate_refused_in_the_handshake_is_refused(site: Site, credentials: Credentials) -> None:
    site.server.verify_mode = ssl.CERT_REQUIRED
    site.server.load_verify_locations(cadata=site.anchor_pem)

    def refuse_one(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(ssl.SSLError):
            site.server.wrap_socket(connection, server_side=True)

    with socket.create_server((site.address, 8883)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(refuse_one, listener))
        link = HubLink(site.address, GATEWAY, bind, site.anchor_pem, 5)
        with pytest.raises(HubRefused, match="TLS alert: unknown ca"):
            await link.connect(credentials.make())
        assert link.status().state is LinkState.REFUSED
        await refusing
    await link.close()


async def test_neither_threads_nor_clients_nor_sockets_pile_up(link: HubLink, credentials: Credentials) -> None:
    refused, right = credentials.make("gw-2"), credentials.make()

    async def rounds(count: int) -> None:
        for _ in range(count):
            await link.connect(right)
            await link.report({"gatewayd": {"version": "1"}})
            with pytest.raises(HubRefused):
                await link.connect(refused)
        await link.close()

    await rounds(8)
    before = counted()
    await rounds(20)
    after = counted()
    assert after["threads"] <= before["threads"]
    assert after["sockets"] <= before["sockets"]
    assert after["clients"] == 0


def counted() -> dict[str, int]:
    from azure.iot.device.aio import IoTHubDeviceClient

    gc.collect()
    open_files = [Path(entry.path) for entry in os.scandir("/proc/self/fd")]
    return {
        # Without the event loop's own pool, which grows to its bound as chance has it.
        "threads": sum(not each.name.startswith("asyncio_") for each in threading.enumerate()),
        "sockets": sum(str(file.readlink()).startswith("socket:") for file in open_files if file.is_symlink()),
        "clients": sum(isinstance(each, IoTHubDeviceClient) for each in gc.get_objects()),
    }
