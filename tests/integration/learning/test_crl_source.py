"""One CRL followed through everything that a CA, its web server and the disk may do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509

from gatewayd.errors import IssuerUnreachable, RevocationDataUnusable
from tests.support.authority import Authority

from .conftest import HOUR, Ca, Gateway, Published, listed

PATH, DELTA = "/issuing.crl", "/delta.crl"
SUPERSEDED, HOLD, RELEASE = 4, 6, 8
"""CRLReason (RFC 5280, 5.3.1)."""


async def test_what_is_listed_is_revoked_once(gateway: Gateway, ca: Ca) -> None:
    [live] = await gateway.device("leaf-1")
    [other] = await gateway.device("leaf-2")
    ca.files[PATH] = Published(ca.crl(), '"1"')
    source = gateway.source()
    assert (await source.look()).settled
    assert await gateway.revoked() == {}
    ca.files[PATH] = Published(ca.crl(listed(live, 1), number=2, age=timedelta()), '"2"')
    looked = await source.look()
    assert (looked.error, looked.detail) == (None, "number 2")
    assert await gateway.revoked() == {live.serial: "device"}
    before = await gateway.store.read(lambda tx: tx.journal.recent())
    await source.look()
    await gateway.source().look()
    assert await gateway.store.read(lambda tx: tx.journal.recent()) == before
    assert other.serial not in await gateway.revoked()


async def test_nothing_is_sent_twice_that_has_not_changed(gateway: Gateway, ca: Ca) -> None:
    await gateway.device("leaf-1")
    ca.files[PATH] = Published(ca.crl(), '"1"')
    await gateway.source().look()
    await gateway.source().look()  # after a restart
    assert ca.statuses == [200, 304]


async def test_a_certificate_that_comes_later_is_compared_with_the_copy(gateway: Gateway, ca: Ca) -> None:
    [one] = await gateway.device("leaf-1")
    source = gateway.source()
    ca.files[PATH] = Published(ca.crl(), '"1"')
    await source.look()
    [two] = await gateway.device("leaf-2")
    ca.files[PATH] = Published(ca.crl(listed(two)), '"1"')  # a server that keeps its ETag for another file
    (gateway.directory / "crl" / source.path.name).write_bytes(ca.files[PATH].body)
    await source.look()
    assert ca.statuses == [200, 304]
    assert await gateway.revoked() == {two.serial: "device"}
    assert one.serial not in await gateway.revoked()


async def test_a_copy_that_nothing_followed_from_yet_is_not_taken_for_known(gateway: Gateway, ca: Ca) -> None:
    """As after kill -9 between the copy and what follows from it."""
    [live] = await gateway.device("leaf-1")
    ca.files[PATH] = Published(ca.crl(), '"1"')
    await gateway.source().look()
    ca.files[PATH] = Published(ca.crl(listed(live), number=2, age=timedelta()), '"2"')
    dying = gateway.source()
    await dying._complete.update(lambda _: None)
    assert await gateway.revoked() == {}
    await gateway.source().look()
    assert await gateway.revoked() == {live.serial: "device"}


async def test_a_start_without_a_network_begins_with_the_copy(gateway: Gateway, ca: Ca) -> None:
    [live] = await gateway.device("leaf-1")
    ca.files[PATH] = Published(ca.crl(listed(live)), '"1"')
    await gateway.source()._complete.update(lambda _: None)
    ca.files[PATH] = Published(b"", status=503)
    looked = await gateway.source().look()
    assert isinstance(looked.error, IssuerUnreachable)
    assert looked.next_update is not None
    assert await gateway.revoked() == {live.serial: "device"}


async def test_a_damaged_copy_is_fetched_anew(gateway: Gateway, ca: Ca) -> None:
    await gateway.device("leaf-1")
    ca.files[PATH] = Published(ca.crl(), '"1"')
    source = gateway.source()
    await source.look()
    source.path.write_bytes(source.path.read_bytes()[:-1] + b"?")
    assert (await gateway.source().look()).error is None
    assert ca.statuses == [200, 200]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Published(b"", status=404), IssuerUnreachable),
        (Published(b"<html>maintenance</html>"), RevocationDataUnusable),
        (Published(b"\x30" * 1_000_001), IssuerUnreachable),
        (Published(b""), RevocationDataUnusable),
    ],
)
async def test_what_is_no_crl_changes_nothing(
    gateway: Gateway, ca: Ca, answer: Published, error: type[Exception]
) -> None:
    [live] = await gateway.device("leaf-1")
    ca.files[PATH] = answer
    with pytest.raises(error):
        await gateway.source().look()
    ca.files[PATH] = Published(ca.crl(), '"1"')
    source = gateway.source()
    await source.look()
    good = source.path.read_bytes()
    ca.files[PATH] = answer
    assert isinstance((await source.look()).error, error)
    assert source.path.read_bytes() == good
    assert [each.name for each in source.path.parent.iterdir()] == [source.path.name]
    assert live.serial not in await gateway.revoked()


async def test_an_older_list_is_no_news(gateway: Gateway, ca: Ca) -> None:
    """Whoever stands between may replay the list from before a revocation."""
    [live] = await gateway.device("leaf-1")
    old = ca.crl(number=1, age=timedelta(minutes=5))
    ca.files[PATH] = Published(ca.crl(listed(live, HOLD), number=2))
    source = gateway.source()
    assert (await source.look()).held == ("leaf-1",)
    ca.files[PATH] = Published(old)
    looked = await source.look()
    assert looked.error is not None
    assert "older than the one before" in str(looked.error)
    assert looked.held == ("leaf-1",)


async def test_another_cas_list_is_not_believed(gateway: Gateway, ca: Ca) -> None:
    [live] = await gateway.device("leaf-1")
    genuine, ca.authority = ca.authority, Authority()
    ca.files[PATH] = Published(ca.crl(listed(live)))
    ca.authority = genuine
    with pytest.raises(RevocationDataUnusable, match="signature is not its issuer's"):
        await gateway.source().look()
    assert await gateway.revoked() == {}


async def test_a_list_of_another_distribution_point_is_not_taken(gateway: Gateway, ca: Ca) -> None:
    await gateway.device("leaf-1")
    names = [x509.UniformResourceIdentifier("http://elsewhere.example/two.crl")]
    scope = x509.IssuingDistributionPoint(names, None, False, False, None, False, False)
    ca.files[PATH] = Published(ca.crl(extensions=((scope, True),)))
    with pytest.raises(RevocationDataUnusable, match="another distribution point"):
        await gateway.source().look()


async def test_an_overdue_list_still_revokes_and_says_until_when_it_was_good(gateway: Gateway, ca: Ca) -> None:
    [live] = await gateway.device("leaf-1")
    ca.files[PATH] = Published(ca.crl(listed(live), age=2 * HOUR, lasts=HOUR))
    looked = await gateway.source().look()
    assert looked.next_update is not None
    assert looked.next_update < gateway.clock.now()
    assert await gateway.revoked() == {live.serial: "device"}


async def test_a_delta_adds_holds_and_releases(gateway: Gateway, ca: Ca) -> None:
    [one] = await gateway.device("leaf-1")
    [two] = await gateway.device("leaf-2")
    ca.files[PATH] = Published(ca.crl(listed(two, HOLD), number=5, delta=DELTA), '"5"')
    ca.files[DELTA] = Published(ca.crl(number=6, base=5))
    source = gateway.source()
    assert (await source.look()).held == ("leaf-2",)
    assert await gateway.revoked() == {}  # a hold ends nothing
    ca.files[DELTA] = Published(ca.crl(listed(one), listed(two, RELEASE), number=7, base=5, age=timedelta()))
    looked = await source.look()
    assert (looked.held, looked.detail, looked.error) == ((), "number 7, delta to 5", None)
    assert await gateway.revoked() == {one.serial: "device"}
    revocation = await gateway.store.read(lambda tx: tx.revocations.all("leaf-1")[0])
    assert any((each.evidence or "").startswith("delta CRL 7 of") for each in revocation.progress.values())


@pytest.mark.parametrize(("number", "base", "words"), [(9, None, "it is none"), (9, 8, "not been published yet")])
async def test_a_delta_that_does_not_fit(gateway: Gateway, ca: Ca, number: int, base: int | None, words: str) -> None:
    [one] = await gateway.device("leaf-1")
    [two] = await gateway.device("leaf-2")
    ca.files[PATH] = Published(ca.crl(listed(two), number=5, delta=DELTA))
    ca.files[DELTA] = Published(ca.crl(listed(one), number=number, base=base))
    looked = await gateway.source().look()
    assert words in str(looked.error)
    assert await gateway.revoked() == {two.serial: "device"}  # what the complete list says holds


async def test_a_delta_does_not_stand_alone(gateway: Gateway, ca: Ca) -> None:
    await gateway.device("leaf-1")
    ca.files[PATH] = Published(ca.crl(number=6, base=5))
    with pytest.raises(RevocationDataUnusable, match="cannot stand alone"):
        await gateway.source().look()


async def test_a_superseded_certificate_and_one_that_was_renewed_past_its_revocation(gateway: Gateway, ca: Ca) -> None:
    tidy = await gateway.device("leaf-1", generations=2)
    bypassed = await gateway.device("leaf-2", generations=2)
    ca.files[PATH] = Published(ca.crl(listed(tidy[0]), listed(bypassed[0], 1, hours_ago=2)))
    await gateway.source().look()
    assert await gateway.revoked() == {
        tidy[0].serial: "certificate",
        bypassed[0].serial: "device",
        bypassed[1].serial: "device",
    }
    reports = await gateway.store.read(lambda tx: tx.outbox.unsent(gateway.clock.now()))
    assert {each.key.split(":")[1] for each in reports} == {"leaf-2"}  # a report gets a device disabled
