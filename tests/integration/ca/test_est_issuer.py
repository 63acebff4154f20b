"""A CA over EST behind the issuer's port, against servers of every habit; and how a CA's new root is taken up."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.ca.base import CertificateRequest, Holder, Issued, Working
from gatewayd.ca.est_issuer import EstIssuer
from gatewayd.ca.issuers import KINDS
from gatewayd.ca.sparing import RateLimit
from gatewayd.config import EstIssuerSettings, checks
from gatewayd.core.model import RevocationReason, San
from gatewayd.errors import CertificateExpired, IssuerUnconfigured, RevocationElsewhere
from gatewayd.pki import certificates, csr
from gatewayd.pki.names import general_name
from gatewayd.pki.pkcs7 import certs_only
from gatewayd.services.anchors import Anchors
from gatewayd.store.database import SqliteStore
from tests.support.authority import Authority

from .conftest import Server


class Deep(Authority):
    """Its root lets other roots stand below it for a while."""

    @cached_property
    def root(self) -> x509.Certificate:
        return self._ca("Test Root", self.root_key, "Test Root", depth=2)


AUTHORITY = Deep()
GATEWAY_KEY, LEAF_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
SANS = (San.parse("dns:gw"),)
GATEWAY = CertificateRequest("gw-1", csr.build(GATEWAY_KEY, "gw-1", SANS), SANS, server_auth=True)
LEAF = CertificateRequest("leaf-1", csr.build(LEAF_KEY, "leaf-1", ()), (), server_auth=False)
PRESENT = AUTHORITY.leaf(GATEWAY_KEY.public_key(), "gw-1", [general_name(each) for each in SANS])
NEXT = AUTHORITY.leaf(GATEWAY_KEY.public_key(), "gw-1", [general_name(each) for each in SANS])
FOR_LEAF = AUTHORITY.leaf(LEAF_KEY.public_key(), "leaf-1")


def issuer(
    server: Server,
    holder: x509.Certificate | None = PRESENT,
    *,
    known: Sequence[x509.Certificate] = AUTHORITY.chain,
    secret: str | None = None,
    **settings: bool | str,
) -> EstIssuer:
    async def present() -> Holder | None:
        return None if holder is None else as_holder(server, holder)

    chosen = EstIssuerSettings(url=f"{server.url}/.well-known/est", **settings)  # type: ignore[arg-type]
    return EstIssuer(chosen, server.client, rate=RateLimit(1000), holder=present, known=lambda: known, secret=secret)


def as_holder(server: Server, certificate: x509.Certificate) -> Holder:
    return Holder(certificate, GATEWAY_KEY, lambda: server.client)


def gives(server: Server, *bag: x509.Certificate) -> None:
    server.answers(200, base64.b64encode(certs_only(bag)))


def paths(server: Server) -> list[str]:
    return [each.path.removeprefix("/.well-known/est/") for each in server.requests]


async def test_the_gateway_renews_with_its_own_certificate(server: Server) -> None:
    gives(server, NEXT)
    assert await issuer(server).renew(GATEWAY, as_holder(server, PRESENT)) == Issued(NEXT, AUTHORITY.chain)
    assert await issuer(server, reenroll=False).renew(GATEWAY, as_holder(server, PRESENT)) == Issued(
        NEXT, AUTHORITY.chain
    )
    factory = AUTHORITY.leaf(GATEWAY_KEY.public_key(), "serial-4711")
    await issuer(server).renew(GATEWAY, as_holder(server, factory))
    assert paths(server) == ["simplereenroll", "simpleenroll", "simpleenroll"]


async def test_for_a_leaf_the_gateway_asks_with_its_own_certificate_at_the_leaves_label(server: Server) -> None:
    gives(server, FOR_LEAF)
    by_label = issuer(server, leaf_url=f"{server.url}/.well-known/est/leaves")
    assert await by_label.issue(LEAF) == Issued(FOR_LEAF, AUTHORITY.chain)
    assert paths(server) == ["leaves/simpleenroll"]
    assert base64.b64decode(server.bodies[0]) == LEAF.csr


async def test_the_first_certificate_comes_for_a_persons_password(server: Server) -> None:
    gives(server, NEXT, *AUTHORITY.chain)
    first = await issuer(server, None, known=(), secret="technician:wrench").issue(GATEWAY)
    assert first == Issued(NEXT, AUTHORITY.chain)
    sent = server.requests[0].headers["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"technician:wrench"
    with pytest.raises(IssuerUnconfigured):
        await issuer(server, None).issue(GATEWAY)


async def test_a_ca_that_works_on_it_is_not_asked_for_more(server: Server) -> None:
    server.answers(202, Retry_After="40")
    assert await issuer(server).issue(LEAF) == Working(40.0)
    assert paths(server) == ["simpleenroll"]


async def test_an_expired_gateway_comes_back_by_itself_only_where_the_ca_takes_it(server: Server) -> None:
    expired = AUTHORITY.leaf(GATEWAY_KEY.public_key(), "gw-1", starts=timedelta(days=-40), lasts=timedelta(days=30))
    gives(server, NEXT)
    with pytest.raises(CertificateExpired, match="accepts_expired") as refused:
        await issuer(server, expired).issue(GATEWAY)
    assert "gatewayctl bootstrap" in refused.value.remedy
    assert not server.requests
    assert await issuer(server, expired, accepts_expired=True).issue(GATEWAY) == Issued(NEXT, AUTHORITY.chain)


async def test_what_cannot_be_revoked_there_can_still_be_closed(server: Server) -> None:
    est = issuer(server)
    with pytest.raises(RevocationElsewhere, match=certificates.serial_hex(PRESENT)):
        await est.revoke(PRESENT, RevocationReason.KEY_COMPROMISE)
    assert "ends by expiry" in await issuer(server, revocable=False).revoke(PRESENT, RevocationReason.KEY_COMPROMISE)
    over = AUTHORITY.leaf(GATEWAY_KEY.public_key(), "gw-1", starts=timedelta(days=-2), lasts=timedelta(days=1))
    assert "nothing left to revoke" in await est.revoke(over, RevocationReason.KEY_COMPROMISE)
    assert not server.requests


class Rollover:
    """A CA that has taken a new root, and the old root's word for it."""

    def __init__(self) -> None:
        self.new = Authority("New")
        self.new_with_old = (
            x509.CertificateBuilder()
            .subject_name(self.new.root.subject)
            .issuer_name(AUTHORITY.root.subject)
            .public_key(self.new.root_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(AUTHORITY.root.not_valid_before_utc)
            .not_valid_after(AUTHORITY.root.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .sign(AUTHORITY.root_key, hashes.SHA256())
        )
        self.certificate = self.new.leaf(
            GATEWAY_KEY.public_key(), "gw-1", [general_name(each) for each in SANS], lasts=timedelta(days=20)
        )


async def test_a_new_root_is_taken_up_on_the_old_ones_word_alone(server: Server, tmp_path: Path) -> None:
    rollover = Rollover()

    async def answer(request: web.Request) -> web.Response:
        named = (*rollover.new.chain, rollover.new_with_old, AUTHORITY.root)
        bag = named if request.path.endswith("cacerts") else (rollover.certificate,)
        return web.Response(body=base64.b64encode(certs_only(bag)))

    server.answer = answer
    issued = await issuer(server).renew(GATEWAY, as_holder(server, PRESENT))
    assert isinstance(issued, Issued)
    assert paths(server) == ["simplereenroll", "cacerts"]
    certificates.check_issued(
        issued.certificate,
        issued.chain,
        AUTHORITY.chain,
        device_id="gw-1",
        sans=SANS,
        public_key_sha256=csr.public_key_sha256(GATEWAY_KEY.public_key()),
        server_auth=True,
        now=PRESENT.not_valid_before_utc + timedelta(minutes=2),
        replaces=None,
    )

    store = SqliteStore(tmp_path / "gatewayd.db")
    await store.open()
    anchors = Anchors(store, None)
    await anchors.learn(Issued(PRESENT, AUTHORITY.chain))
    told: list[int] = []
    anchors.on_change(lambda: told.append(len(anchors.known())))
    await anchors.adopt(Issued(rollover.certificate, rollover.new.chain))  # nobody vouches for these
    assert anchors.known() == AUTHORITY.chain
    await anchors.adopt(issued)
    await anchors.adopt(issued)
    assert set(anchors.known()) == {*AUTHORITY.chain, *rollover.new.chain, rollover.new_with_old}
    assert told == [5]
    again = Anchors(store, None)
    await again.load()
    assert again.known() == anchors.known()
    await store.close()


def test_each_kind_is_registered_with_what_it_needs() -> None:
    assert set(KINDS) == set(checks.NEEDED)
