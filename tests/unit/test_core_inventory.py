"""Which key is what, and that none goes which somebody needs or which is not ours."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core import inventory
from gatewayd.core.inventory import GRACE, Claim, Held, Role, key_label
from gatewayd.core.model import Credential, CredentialState, KeyAlgorithm, KeyRef

NOW = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
KEY = KeyRef(b"\x01" * 16, KeyAlgorithm.EC_P256)
OURS = Held(KEY.id, key_label("gw-1", 3), is_key=True)


def credential(state: CredentialState, since: datetime = NOW) -> Credential:
    return Credential("gw-1", 3, state, created_at=since, updated_at=since, key=KEY)


@pytest.mark.parametrize(
    ("state", "role"),
    [
        (CredentialState.CURRENT, Role.LIVE),
        (CredentialState.PREVIOUS, Role.PREVIOUS),
        (CredentialState.WANTED, Role.PENDING),
        (CredentialState.KEYING, Role.PENDING),
        (CredentialState.ACCEPTING, Role.PENDING),
        (CredentialState.RETIRED, Role.ORPHAN),
        (CredentialState.REJECTED, Role.ORPHAN),
        (CredentialState.REVOKED, Role.ORPHAN),
    ],
)
def test_a_credential_says_what_its_key_is(state: CredentialState, role: Role) -> None:
    found = inventory.claim(credential(state))
    assert (found.role, found.collect_from is not None) == (role, role is Role.ORPHAN)
    assert "generation 3" in found.reason


def collectable(state: CredentialState, after: timedelta, *, held: Held = OURS, revocation_open: bool = False) -> bool:
    claims = {KEY.id: inventory.claim(credential(state), revocation_open=revocation_open)}
    return inventory.collectable([held], claims, NOW + after) == [KEY.id]


def test_a_superseded_key_goes_at_once_and_one_that_failed_after_a_time_of_grace() -> None:
    assert collectable(CredentialState.RETIRED, timedelta(0))
    for state in (CredentialState.REJECTED, CredentialState.REVOKED):
        assert not collectable(state, GRACE - timedelta(seconds=1))
        assert collectable(state, GRACE)


def test_a_revoked_key_is_kept_until_its_revocation_is_closed() -> None:
    assert not collectable(CredentialState.REVOKED, timedelta(days=365), revocation_open=True)


def test_what_is_not_ours_by_label_and_by_record_stays() -> None:
    late = timedelta(days=365)
    assert not collectable(CredentialState.RETIRED, late, held=replace(OURS, label="somebody's"))
    assert not collectable(CredentialState.RETIRED, late, held=replace(OURS, is_key=False))
    assert inventory.collectable([OURS], {}, NOW + late) == []
    (found,) = inventory.classify([OURS], {})
    assert found.role is Role.FOREIGN
    assert "not on record" in found.reason


def test_a_key_with_a_half_that_is_somebody_elses_stays() -> None:
    claims = {KEY.id: inventory.claim(credential(CredentialState.RETIRED))}
    assert inventory.collectable([OURS, OURS], claims, NOW) == [KEY.id]
    assert inventory.collectable([OURS, replace(OURS, label="theirs")], claims, NOW) == []


def test_a_factory_key_is_known_whatever_its_label_and_never_goes() -> None:
    held = Held(b"f", "idevid", is_key=True)
    claims = {b"f": inventory.FACTORY}
    assert inventory.classify([held], claims) == [inventory.FACTORY]
    assert inventory.collectable([held], claims, NOW) == []


def test_what_should_be_there_and_is_not_is_missing() -> None:
    live = inventory.claim(credential(CredentialState.CURRENT))
    claims = {KEY.id: live, b"r": inventory.REGISTRAR, b"o": inventory.claim(credential(CredentialState.REJECTED))}
    assert inventory.missing([OURS], claims) == {b"r": inventory.REGISTRAR}
    assert inventory.missing([replace(OURS, is_key=False)], claims) == {KEY.id: live, b"r": inventory.REGISTRAR}


ids = st.sampled_from([b"a", b"b", b"c"])
credentials = st.builds(credential, st.sampled_from(CredentialState))
claims = st.dictionaries(
    ids,
    st.one_of(
        st.builds(
            inventory.claim, st.builds(credential, st.sampled_from(CredentialState)), revocation_open=st.booleans()
        ),
        st.sampled_from([inventory.REGISTRAR, inventory.FACTORY]),
    ),
)
objects = st.lists(st.builds(Held, ids, st.sampled_from([key_label("gw-1", 1), "theirs", ""]), st.booleans()))


@given(objects, claims, st.timedeltas(timedelta(0), timedelta(days=1000)))
def test_nothing_goes_but_orphans_of_ours(held: list[Held], known: dict[bytes, Claim], after: timedelta) -> None:
    for key_id in inventory.collectable(held, known, NOW + after):
        assert known[key_id].role is Role.ORPHAN
        assert all(each.label.startswith("gatewayd ") for each in held if each.id == key_id and each.is_key)
