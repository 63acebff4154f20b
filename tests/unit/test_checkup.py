"""The doctor's probes on real files, names and TLS servers, and what it looks at for a configuration."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gatewayd.checkup import checks, probes
from gatewayd.config import Settings, parse
from gatewayd.core.doctor import Area, Reached, Verdict
from gatewayd.pki import pem
from tests.support.authority import Authority, now

LOCAL = "127.0.0.1"


def settings(tmp_path: Path, more: str = "", **values: str) -> Settings:
    url = values.get("url", "https://ca.example:444/est")
    text = f"""
[gateway]
device_id = "gw-1"
state_directory = "{tmp_path / "state"}"
[hub]
host = "{values.get("hub", "hub.example")}"
[issuer]
kind = "est"
[est_issuer]
url = "{url}"
leaf_url = "{values.get("leaf_url", "")}"
{more}
"""
    return parse(text)


@asynccontextmanager
async def server(tmp_path: Path, authority: Authority, *, expired: bool = False) -> AsyncIterator[int]:
    """Its port."""
    key = ec.generate_private_key(ec.SECP256R1())
    starts = timedelta(days=-20) if expired else timedelta(minutes=-1)
    leaf = authority.leaf(key.public_key(), "server", [x509.IPAddress(ip_address(LOCAL))], starts=starts)
    file = tmp_path / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + pem.encode([leaf, authority.issuing]).encode())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)

    async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listener = await asyncio.start_server(ended, LOCAL, 0, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


def trusting(*roots: x509.Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pem.encode(roots))


async def test_a_peer_is_reached_and_trusted_or_says_why_not(tmp_path: Path) -> None:
    authority, other = Authority(), Authority()
    async with server(tmp_path, authority) as port:
        assert (await probes.contact(LOCAL, port, trusting(authority.root))).how is Reached.TRUSTED
        untrusted = await probes.contact(LOCAL, port, trusting(other.root))
        assert untrusted.how is Reached.UNTRUSTED
        assert untrusted.detail.startswith("certificate ")
    assert (await probes.contact(LOCAL, port, trusting(other.root))).how is Reached.REFUSED
    async with server(tmp_path, authority, expired=True) as port:
        expired = await probes.contact(LOCAL, port, trusting(authority.root))
        assert (expired.how, expired.detail) == (Reached.UNTRUSTED, "certificate has expired")


async def test_of_several_addresses_one_that_answers_will_do_and_else_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolved(_: str, port: int, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.7", LOCAL)]

    authority = Authority()
    async with server(tmp_path, authority) as port:
        context = trusting(authority.root)
        context.check_hostname = False
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
        assert (await probes.contact("ca.example", port, context)).how is Reached.TRUSTED
    refused = await probes.contact("ca.example", port, context)
    assert (refused.how, refused.detail) == (Reached.REFUSED, "Connection refused")


async def test_what_does_not_speak_tls_or_does_not_speak_at_all_is_told_within_the_time() -> None:
    async def chatter(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()

    async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    context = ssl.create_default_context()
    async with await asyncio.start_server(chatter, LOCAL, 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        assert (await probes.contact(LOCAL, port, context)).how is Reached.NO_TLS
    async with await asyncio.start_server(silence, LOCAL, 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        assert (await probes.contact(LOCAL, port, context, within=0.2)).how is Reached.TIMEOUT
    assert (await probes.contact("no-such-host.invalid", 443, context)).how is Reached.UNRESOLVED


def test_whom_a_configuration_names(tmp_path: Path) -> None:
    found = checks.endpoints(settings(tmp_path, leaf_url="https://ca.example:444/est/leaves"))
    assert [(each.area, each.host, each.port) for each in found] == [
        (Area.CA, "ca.example", 444),  # once, though two settings name it
        (Area.HUB, "hub.example", 8883),
    ]


async def test_a_ca_that_is_away_is_a_problem_of_the_ca(tmp_path: Path) -> None:
    authority = Authority()
    async with server(tmp_path, authority) as port:
        where = settings(tmp_path, url=f"https://{LOCAL}:{port}/est", hub=LOCAL)
        found = await checks.network(where, trusting(authority.root))
    assert [each.verdict for each in found if each.area is Area.CA] == [Verdict.FINE]
    assert [each.verdict for each in found if each.area is Area.HUB] == [Verdict.PROBLEM]  # nobody is at 8883


def test_permissions_as_they_are_on_the_disk(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    where = settings(tmp_path, f'[token]\npin_file = "{pin}"\n[revocation]\nexport_directory = "{tmp_path / "no"}"')
    missing = checks.permissions(where, uid=os.geteuid(), owner="somebody")
    assert [each.verdict for each in missing] == [Verdict.PROBLEM] * 3
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "no").mkdir()
    pin.touch(mode=0o400)
    assert {each.verdict for each in checks.permissions(where, uid=os.geteuid())} == {Verdict.FINE}
    given = checks.permissions(settings(tmp_path), uid=None, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert given[-1].verdict is Verdict.WARNING
    assert [each.verdict for each in checks.disk(where)] != [Verdict.UNKNOWN]


def test_every_anchor_that_ends_soon_is_named_and_the_first_in_any_case(tmp_path: Path) -> None:
    ten_years = Authority().root
    assert [each.verdict for each in checks.anchors("CA", Authority().chain, now(), "ask")] == [Verdict.FINE]
    late = checks.anchors("CA", [ten_years, Authority().root], ten_years.not_valid_after_utc, "ask")
    assert [each.verdict for each in late] == [Verdict.PROBLEM] * 2
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("no certificate")
    (wrong,) = checks.trusted(settings(tmp_path, f'[trust]\nbundle = "{bundle}"'), now())
    assert (wrong.area, wrong.verdict) == (Area.CONFIGURATION, Verdict.PROBLEM)


@pytest.mark.parametrize("name", ["root", "no-such-user-here"])
def test_a_user_is_known_or_not(name: str) -> None:
    assert probes.uid_of(name) == (0 if name == "root" else None)


def test_where_the_metrics_socket_is_to_be(tmp_path: Path) -> None:
    assert checks.metrics(settings(tmp_path)) == []
    assert checks.metrics(settings(tmp_path, f'[metrics]\nlisten = "{tmp_path / "m.sock"}"')) == []
    (wrong,) = checks.metrics(settings(tmp_path, f'[metrics]\nlisten = "{tmp_path / "no" / "m.sock"}"'))
    assert (wrong.area, wrong.verdict) == (Area.PERMISSIONS, Verdict.PROBLEM)
