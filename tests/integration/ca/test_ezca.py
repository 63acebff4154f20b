"""First certificates from EZCA, and what an unclear answer leaves behind, against the stand-in in its own process."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509

from gatewayd.ca import ezca
from gatewayd.ca.base import Issuer
from gatewayd.errors import IssuerRejected, IssuerUnconfigured, IssuerUnreachable, RegistrarRefused
from gatewayd.pki import certificates

from .ezca_world import APPLICATION, OWNER, REASON, SANS, World, ec_key, first, request


def test_it_is_an_issuer(world: World) -> None:
    issuer: Issuer = world.issuer
    assert issuer.can_find


# --- first certificates --------------------------------------------------------------------------


async def test_the_first_certificate_registers_the_device_and_comes_with_its_chain(world: World) -> None:
    issued = await first(world, "gw-first", ec_key())
    assert issued.chain == world.known[::-1]
    assert world.calls()[-3:] == ["GetMyDomains", "RegisterNewDomain", "RequestSSLCertificateV2"]
    assert issued.certificate.not_valid_after_utc - issued.certificate.not_valid_before_utc >= timedelta(days=30)


async def test_the_application_may_go_on_where_a_person_began(world: World) -> None:
    await first(world, "gw-both", ec_key())
    token = world.lab.token(world.settings.scope, APPLICATION)
    application = world.make_issuer(token=token)
    asked = request("gw-both", ec_key())
    world.check(await application.issue(asked), asked)
    assert world.calls()[-2:] == ["GetMyDomains", "RequestSSLCertificateV2"]


async def test_a_leaf_is_asked_for_as_a_client_and_no_domain_is_looked_for_twice(world: World) -> None:
    asked = request("leaf-1", ec_key(), sans=(), server_auth=False)
    issued = world.check(await world.issuer.issue(asked), asked)
    purposes = issued.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [each.dotted_string for each in purposes] == ["1.3.6.1.5.5.7.3.2"]
    again = request("leaf-1", ec_key(), sans=(), server_auth=False)
    world.check(await world.issuer.issue(again), again)
    assert world.calls()[-2:] == ["RequestSSLCertificateV2", "RequestSSLCertificateV2"]


async def test_a_race_for_the_domain_is_won_by_both(world: World) -> None:
    asked = [request("gw-race", ec_key()) for _ in range(4)]
    for each, issued in zip(asked, await asyncio.gather(*map(world.issuer.issue, asked)), strict=True):
        world.check(issued, each)


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("wrapped-failure", IssuerRejected),
        ("error-text", IssuerRejected),
        ("400", IssuerRejected),
        ("401", RegistrarRefused),
        ("403", IssuerUnconfigured),
        ("404", IssuerUnconfigured),
        ("503", IssuerUnreachable),
        ("reset", IssuerUnreachable),
    ],
)
async def test_what_goes_wrong_before_issuing_mints_nothing(world: World, mode: str, error: type[Exception]) -> None:
    world.fault("RequestSSLCertificateV2", mode)
    with pytest.raises(error, match=r"gw-no|could not be asked"):
        await world.issuer.issue(request("gw-no", ec_key()))
    assert world.new == []


async def test_owners_that_ezca_refuses_are_told_in_its_words(world: World) -> None:
    issuer = world.make_issuer(owners=())
    with pytest.raises(IssuerRejected, match="EZCA did not register gw-orphan: a domain needs a name and an owner"):
        await issuer.issue(request("gw-orphan", ec_key()))


async def test_a_ca_id_that_does_not_exist_is_told(world: World) -> None:
    issuer = world.make_issuer(template_id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(IssuerRejected, match="no such CA and template"):
        await issuer.issue(request("gw-stray", ec_key()))


async def test_a_token_that_does_not_count_is_the_registrars_matter(world: World) -> None:
    for token in ("no-token", world.lab.token("https://iothubs.azure.net/.default", OWNER.object_id)):
        with pytest.raises(RegistrarRefused) as caught:
            await world.make_issuer(token=token).issue(request("gw-no", ec_key()))
        assert token not in str(caught.value)


# --- after an unclear answer ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["500-after-issuing", "reset-after-issuing"])
async def test_a_certificate_minted_behind_an_unclear_answer_is_found(world: World, mode: str) -> None:
    asked = request(f"gw-{mode}", ec_key())
    world.fault("RequestSSLCertificateV2", mode)
    with pytest.raises(IssuerUnreachable):
        await world.issuer.issue(asked)
    found = world.check(await world.issuer.find(asked), asked)
    assert [each["serial"] for each in world.new] == [certificates.serial_hex(found.certificate)]
    assert found.chain == world.known[::-1]


async def test_no_answer_within_the_time_limit_is_unclear(world: World) -> None:
    asked = request("gw-slow", ec_key())
    world.fault("RequestSSLCertificateV2", "timeout-after-issuing")
    with pytest.raises(IssuerUnreachable, match=r"did not answer within 0.5 s"):
        await world.make_issuer(timeout=0.5).issue(asked)
    world.check(await world.issuer.find(asked), asked)


async def test_only_a_certificate_for_this_very_request_is_found(world: World) -> None:
    key = ec_key()
    asked = request("gw-find", key)
    assert await world.issuer.find(asked) is None
    for _ in range(4):  # more than a page of others
        await first(world, "gw-find", ec_key())
    assert await world.issuer.find(asked) is None
    issued = await first(world, "gw-find", key)
    assert await world.issuer.find(asked) == issued
    assert await world.issuer.find(request("gw-find", key, sans=SANS[:1])) is None
    await world.issuer.revoke(issued.certificate, REASON)
    assert await world.issuer.find(asked) is None


async def test_the_newest_of_several_is_found_and_they_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(ezca.log, "warning", lambda text, *values: told.append(text % values))
    key = ec_key()
    await first(world, "gw-twice", key)
    await asyncio.sleep(1.1)  # certificates count in seconds
    newest = await first(world, "gw-twice", key)
    assert await world.issuer.find(request("gw-twice", key)) == newest
    assert told == ["EZCA has issued 2 valid certificates for one key of gw-twice"]


# --- anchors -------------------------------------------------------------------------------------


async def test_anchors_are_the_known_certificates(world: World) -> None:
    assert await world.issuer.anchors() == world.known
    world.known = ()
    with pytest.raises(IssuerUnconfigured, match="not known before it has issued the first one"):
        await world.issuer.anchors()
