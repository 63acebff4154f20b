"""Certificates from EZCA that are there: renewed and revoked, against the stand-in in a process of its own."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gatewayd.core.model import San
from gatewayd.errors import IssuerRejected, IssuerUnconfigured, IssuerUnreachable
from gatewayd.pki import certificates
from tests.support.authority import Authority

from .ezca_world import REASON, RSA_KEY, World, ec_key, first, request


@pytest.mark.parametrize(
    ("unknown", "calls"),
    [
        ((), ["RenewCertificateV3"]),
        (("RenewCertificateV3",), ["RenewCertificateV3", "RenewCertificateV2"]),
        (
            ("RenewCertificateV3", "RenewCertificateV2"),
            ["RenewCertificateV3", "RenewCertificateV2", "RenewCertificate"],
        ),
    ],
)
async def test_an_rsa_holder_renews_by_the_newest_call_that_the_server_knows(
    world: World, unknown: tuple[str, ...], calls: list[str]
) -> None:
    present = await first(world, "gw-rsa", RSA_KEY)
    world.unknown(*unknown)
    next_key = rsa.generate_private_key(65537, 2048)
    asked = request("gw-rsa", next_key)
    renewed = world.check(await world.issuer.renew(asked, world.holder(present, RSA_KEY)), asked)
    assert renewed.chain == world.known[::-1]
    assert world.calls()[-len(calls) :] == calls
    # What was learnt is remembered: the next renewal starts where this one ended.
    again = request("gw-rsa", ec_key())
    world.check(await world.issuer.renew(again, world.holder(renewed, next_key)), again)
    assert world.calls()[-2:] == [calls[-1]] * 2


async def test_a_server_without_any_renewal_call_waits_for_a_person(world: World) -> None:
    present = await first(world, "gw-none", RSA_KEY)
    world.unknown("RenewCertificateV3", "RenewCertificateV2", "RenewCertificate")
    with pytest.raises(IssuerUnconfigured, match=r"none of the renewal calls; check \[ezca\] url"):
        await world.issuer.renew(request("gw-none", ec_key()), world.holder(present, RSA_KEY))


@pytest.mark.parametrize("mode", ["double-encoded", "no-root"])
async def test_a_renewal_is_read_in_each_form(world: World, mode: str) -> None:
    present = await first(world, "gw-forms", RSA_KEY)
    world.fault("RenewCertificateV3", mode)
    asked = request("gw-forms", ec_key())
    world.check(await world.issuer.renew(asked, world.holder(present, RSA_KEY)), asked)


@pytest.mark.parametrize("call", ["RenewCertificateV3", "RenewCertificateV2", "RenewCertificate"])
@pytest.mark.parametrize(
    ("mode", "error"), [("wrapped-failure", IssuerRejected), ("error-text", IssuerRejected), ("502", IssuerUnreachable)]
)
async def test_a_refused_renewal_is_not_tried_by_an_older_call(
    world: World, call: str, mode: str, error: type[Exception]
) -> None:
    present = await first(world, "gw-refused", RSA_KEY)
    older = {
        "RenewCertificateV2": ["RenewCertificateV3"],
        "RenewCertificate": ["RenewCertificateV3", "RenewCertificateV2"],
    }
    world.unknown(*older.get(call, []))
    world.fault(call, mode)
    with pytest.raises(error, match="renew the certificate of gw-refused"):
        await world.issuer.renew(request("gw-refused", ec_key()), world.holder(present, RSA_KEY))
    assert world.calls()[-1] == call
    assert len(world.new) == 1


async def test_a_revoked_holder_cannot_renew_and_a_person_is_asked(world: World) -> None:
    present = await first(world, "gw-revoked", RSA_KEY)
    await world.issuer.revoke(present.certificate, REASON)
    with pytest.raises(IssuerUnconfigured, match="HTTP 401, the certificate is revoked"):
        await world.issuer.renew(request("gw-revoked", ec_key()), world.holder(present, RSA_KEY))


async def test_other_names_are_asked_for_as_registrar(world: World) -> None:
    present = await first(world, "gw-renamed", RSA_KEY)
    asked = request("gw-renamed", ec_key(), sans=(San.parse("dns:other.example"),))
    world.check(await world.issuer.renew(asked, world.holder(present, RSA_KEY)), asked)
    assert world.calls()[-1] == "RequestSSLCertificateV2"


async def test_an_ec_holder_renews_over_est(world: World) -> None:
    key, next_key = ec_key(), ec_key()
    present = await first(world, "gw-ec", key)
    asked = request("gw-ec", next_key)
    renewed = world.check(await world.issuer.renew(asked, world.holder(present, key)), asked)
    assert renewed.chain == world.known[::-1]
    assert world.calls()[-1] == "simpleenroll"


async def test_an_unknown_issuing_certificate_is_fetched_over_est(world: World) -> None:
    key = ec_key()
    present = await first(world, "gw-rotated", key)
    world.known, before = Authority().chain, world.known
    asked = request("gw-rotated", ec_key())
    renewed = world.check(await world.issuer.renew(asked, world.holder(present, key)), asked)
    assert renewed.chain == before[::-1]
    assert world.calls()[-2:] == ["simpleenroll", "cacerts"]


async def test_without_an_est_url_the_registrar_asks_for_an_ec_holder(world: World) -> None:
    key = ec_key()
    present = await first(world, "gw-no-est", key)
    asked = request("gw-no-est", ec_key())
    world.check(await world.make_issuer(est_url="").renew(asked, world.holder(present, key)), asked)
    assert world.calls()[-1] == "RequestSSLCertificateV2"


# --- revocation ----------------------------------------------------------------------------------


async def test_a_revocation_is_done_once_and_may_be_asked_for_again(world: World) -> None:
    issued = await first(world, "gw-end", ec_key())
    serial = certificates.serial_hex(issued.certificate)
    evidence = await world.issuer.revoke(issued.certificate, REASON)
    assert evidence == f"EZCA revoked certificate {serial} (the certificate is revoked)."
    assert [each["revoked"] for each in world.new] == [True]
    assert await world.issuer.revoke(issued.certificate, REASON) == f"EZCA lists certificate {serial} as revoked."


@pytest.mark.parametrize("mode", ["500-after-issuing", "reset-after-issuing"])
async def test_a_revocation_behind_an_unclear_answer_is_seen(world: World, mode: str) -> None:
    issued = await first(world, "gw-unclear", ec_key())
    world.fault("RevokeCertificateV2", mode)
    assert "as revoked" in await world.issuer.revoke(issued.certificate, REASON)


async def test_a_revocation_that_failed_keeps_its_own_reason(world: World) -> None:
    issued = await first(world, "gw-alive", ec_key())
    world.fault("RevokeCertificateV2", "503", message="maintenance", retry_after=30)
    world.fault("GetMyCertificatesV2Paginated", "reset")
    with pytest.raises(IssuerUnreachable, match=r"revoke certificate \w+ of gw-alive: HTTP 503, maintenance") as caught:
        await world.issuer.revoke(issued.certificate, REASON)
    assert caught.value.retry_after == 30
    foreign = Authority().leaf(ec_key().public_key(), "gw-alive")
    with pytest.raises(IssuerRejected, match="no certificate has this thumbprint"):
        await world.issuer.revoke(foreign, REASON)
    assert not any(each["revoked"] for each in world.new)
