"""The whole life of certificates at EZCA, against the stand-in in a process of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gatewayd.ca.base import CertificateRequest, Holder, Issued, Issuer
from gatewayd.ca.ezca import EzcaIssuer
from gatewayd.ca.sparing import RateLimit
from gatewayd.config import EzcaSettings, OwnerSettings
from gatewayd.core.model import RevocationReason, San
from gatewayd.errors import IssuerRejected, IssuerUnconfigured, IssuerUnreachable, RegistrarRefused
from gatewayd.pki import certificates, csr, pem
from gatewayd.upstream.entra import StaticToken
from tests.support.authority import Authority, now
from tests.support.lab import Lab

OWNER = OwnerSettings("11111111-1111-1111-1111-111111111111", "Ada")
APPLICATION = "22222222-2222-2222-2222-222222222222"
SANS = (San.parse("dns:gw-1.example"), San.parse("ip:192.0.2.7"))
RSA_KEY = rsa.generate_private_key(65537, 2048)
REASON = RevocationReason.KEY_COMPROMISE

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.start("ezca", "--page-size", "3")
        yield lab


@pytest.fixture(scope="module")
def token(running: Lab) -> str:
    """A person's; made once, because it takes a process."""
    return running.token(EzcaSettings("", "").scope, OWNER.object_id)


class World:
    """The stand-in as one test sees it: with no faults left over and devices nobody else uses."""

    def __init__(self, lab: Lab, directory: Path, token: str) -> None:
        self.lab = lab
        self.directory = directory
        self.known: tuple[x509.Certificate, ...] = pem.bundle(lab.ca_root) + pem.bundle(
            lab.directory / "ca-issuing.pem"
        )
        ready = lab.ready("ezca")
        self.settings = EzcaSettings(
            ca_id=ready["ca_id"].upper(),
            template_id=ready["template_id"],
            url=lab.url("ezca") + "/",
            est_url=ready["est_url"],
            owners=(OWNER,),
            timeout=5.0,
        )
        self.token = token
        self.issuer = self.make_issuer()
        self._before = len(self.minted())

    def make_issuer(self, **changes: Any) -> EzcaIssuer:
        token = StaticToken(changes.pop("token", self.token))
        return EzcaIssuer(
            replace(self.settings, **changes),
            token,
            self.lab.tls,
            rate=RateLimit(1000),
            requester=APPLICATION,
            known=lambda: self.known,
        )

    def fault(self, call: str, mode: str, **more: Any) -> None:
        self.lab.post("ezca", "/lab/faults", {"call": call, "mode": mode, **more})

    def unknown(self, *calls: str) -> None:
        self.lab.post("ezca", "/lab/unknown", {"calls": list(calls)})

    def calls(self) -> list[str]:
        return [each["call"] for each in self.lab.get("ezca", "/lab/log")]

    def minted(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.lab.get("ezca", "/lab/certificates")
        return found

    @property
    def new(self) -> list[dict[str, Any]]:
        """What the CA has minted since the test began."""
        return self.minted()[self._before :]

    def holder(self, issued: Issued, key: Key) -> Holder:
        def context() -> ssl.SSLContext:
            made = ssl.create_default_context(cafile=self.lab.web_root)
            file = self.directory / "holder.pem"
            file.write_bytes(
                issued.certificate.public_bytes(Encoding.PEM)
                + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
            made.load_cert_chain(file)
            return made

        return Holder(issued.certificate, key, context)

    def check(self, issued: object, request: CertificateRequest) -> Issued:
        """The daemon's own check: what was issued is what was asked for."""
        assert isinstance(issued, Issued)
        certificates.check_issued(
            issued.certificate,
            issued.chain,
            pem.bundle(self.lab.ca_root),
            device_id=request.device_id,
            sans=request.sans,
            public_key_sha256=csr.read(request.csr).public_key_sha256,
            server_auth=request.server_auth,
            now=now(),
            replaces=None,
        )
        return issued


@pytest.fixture
def world(running: Lab, tmp_path: Path, token: str) -> Iterator[World]:
    made = World(running, tmp_path, token)
    yield made
    made.unknown()
    for each in running.get("ezca", "/lab/faults"):
        assert each["times"] is None, f"a fault was not met: {each}"


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request(device_id: str, key: Key, sans: tuple[San, ...] = SANS, server_auth: bool = True) -> CertificateRequest:
    return CertificateRequest(device_id, csr.build(key, device_id, sans), sans, server_auth)


async def first(world: World, device_id: str, key: Key) -> Issued:
    asked = request(device_id, key)
    return world.check(await world.issuer.issue(asked), asked)


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


async def test_the_newest_of_several_is_found_and_they_are_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    key = ec_key()
    await first(world, "gw-twice", key)
    await asyncio.sleep(1.1)  # certificates count in seconds
    newest = await first(world, "gw-twice", key)
    assert await world.issuer.find(request("gw-twice", key)) == newest
    assert "2 valid certificates for one key of gw-twice" in caplog.text


# --- renewal -------------------------------------------------------------------------------------


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


# --- anchors -------------------------------------------------------------------------------------


async def test_anchors_are_the_known_certificates(world: World) -> None:
    assert await world.issuer.anchors() == world.known
    world.known = ()
    with pytest.raises(IssuerUnconfigured, match="not known before it has issued the first one"):
        await world.issuer.anchors()
