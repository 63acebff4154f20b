"""TLS as clients meet it: versions, who is let in, and a change of certificate and anchors under way."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from tests.support.fake_enroller import DER, MemoryCa

from .conftest import Est, run

GET = b"GET /.well-known/est/csrattrs HTTP/1.1\r\nHost: gw\r\n\r\n"


async def s_client(est: Est, *options: str) -> tuple[int, str]:
    host, port = est.host_port
    ran = await run("openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile", est.trust, *options)
    return ran.status, ran.out.decode(errors="replace") + ran.err


@pytest.mark.parametrize(("option", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
async def test_current_versions(est: Est, option: str, version: str) -> None:
    status, said = await s_client(est, option, "-verify_return_error")
    assert status == 0
    assert version in said
    assert "Verify return code: 0 (ok)" in said


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
async def test_legacy_versions_are_refused(est: Est, option: str) -> None:
    status, said = await s_client(est, option, "-cipher", "ALL:@SECLEVEL=0")
    assert status != 0
    assert "no peer certificate available" in said


async def test_a_cipher_without_forward_secrecy_is_refused(est: Est) -> None:
    status, said = await s_client(est, "-tls1_2", "-cipher", "AES128-GCM-SHA256")
    assert status != 0
    assert "no peer certificate available" in said


async def ask(est: Est, context: ssl.SSLContext) -> bytes:
    """One request on a connection of its own; raises OSError when TLS says no."""
    reader, writer = await asyncio.open_connection(*est.host_port, ssl=context)
    try:
        writer.write(GET)
        return await reader.readuntil(b"\r\n")
    finally:
        writer.close()


async def refused(est: Est, context: ssl.SSLContext) -> bool:
    try:
        await ask(est, context)
    except (OSError, asyncio.IncompleteReadError):
        return True
    return False


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificates_of_others_and_expired_ones_are_refused(est: Est, maximum: ssl.TLSVersion) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for certificate, outcome in (
        (est.client_certificate("leaf-1"), False),
        (est.client_certificate("leaf-1", MemoryCa("Other")), True),
        (est.client_certificate("leaf-1", not_after=yesterday), True),
        (est.directory / "server.pem", True),  # not for clientAuth
    ):
        context = est.client_context(certificate)
        context.maximum_version = maximum
        assert await refused(est, context) is outcome


class TestReload:
    def shown(self, writer: asyncio.StreamWriter) -> str:
        der = writer.get_extra_info("ssl_object").getpeercert(True)
        return x509.load_der_x509_certificate(der).issuer.rfc4514_string()

    async def test_new_connections_see_the_new_certificate_and_old_ones_go_on(self, est: Est) -> None:
        reader, writer = await asyncio.open_connection(*est.host_port, ssl=est.client_context())
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n")).endswith(b"200 OK\r\n")

        other = MemoryCa("Other")
        est.server_cas.append(other)
        est.tls.reload()
        context = est.client_context()
        context.load_verify_locations(cadata=other.root.public_bytes(DER))
        _, new = await asyncio.open_connection(*est.host_port, ssl=context)
        assert self.shown(new) == "CN=Other Issuing"
        new.close()

        writer.write(GET)
        await reader.readuntil(b"HTTP/1.1 200 OK\r\n")
        assert self.shown(writer) == "CN=Test Issuing"
        writer.close()

    async def test_the_new_anchors_decide_who_is_let_in(self, est: Est) -> None:
        other = MemoryCa("Other")
        ours, theirs = est.client_certificate("leaf-1"), est.client_certificate("leaf-1", other)
        assert [await refused(est, est.client_context(each)) for each in (ours, theirs)] == [False, True]
        est.anchors[:] = [other.issuing]
        est.tls.reload()
        assert [await refused(est, est.client_context(each)) for each in (ours, theirs)] == [True, False]

    def resumed(self, est: Est, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession]:
        with (
            socket.create_connection(est.host_port, timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=est.address, session=session) as tls,
        ):
            tls.sendall(GET.replace(b"Host", b"Connection: close\r\nHost"))
            while tls.recv(4096):
                pass
            reused, taken = tls.session_reused, tls.session
            tls.unwrap()
            assert taken is not None
            return bool(reused), taken

    async def test_a_session_does_not_outlive_the_anchors_that_vouched_for_it(self, est: Est) -> None:
        context = est.client_context(est.client_certificate("leaf-1"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        _, session = await asyncio.to_thread(self.resumed, est, context, None)
        assert (await asyncio.to_thread(self.resumed, est, context, session))[0]
        est.anchors[:] = [MemoryCa("Other").issuing]
        est.tls.reload()
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(self.resumed, est, context, session)

    async def test_no_connection_is_refused_while_certificates_change(self, est: Est) -> None:
        async def knock() -> bytes:
            return await ask(est, est.client_context())

        knocks = []
        for _ in range(10):
            knocks += [asyncio.create_task(knock()) for _ in range(5)]
            await asyncio.sleep(0.01)
            est.tls.reload()
        assert set(await asyncio.gather(*knocks)) == {b"HTTP/1.1 200 OK\r\n"}

    async def test_a_reload_that_fails_changes_nothing(self, est: Est) -> None:
        est.server_cas.clear()
        with pytest.raises(IndexError):
            est.tls.reload()
        assert await ask(est, est.client_context()) == b"HTTP/1.1 200 OK\r\n"
