"""Who gets in, as what, and with which code."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.enrollment import (
    DEVICE_ID,
    SERIAL,
    CsrFacts,
    Manufacturer,
    Origin,
    Refusal,
    code_accepted,
    code_hash,
    new_code,
    origin_refusal,
    pairing_refusal,
    scope_refusal,
    use_refusal,
)
from gatewayd.core.model import (
    Binding,
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    DeviceState,
    EnrollmentCode,
    ManufacturerUse,
    San,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DNS, IP, OTHER = San.parse("dns:leaf-1.plant.example"), San.parse("ip:192.0.2.7"), San.parse("dns:gw.plant.example")
LEAF = Device("leaf-1", DeviceKind.LEAF, NOW, sans=(DNS, IP))
CSR = CsrFacts(
    der=b"csr",
    common_name="leaf-1",
    other_subject=False,
    sans=(DNS,),
    unknown_names=False,
    public_key_sha256="ab" * 32,
    key_description="EC secp256r1",
    key_accepted=True,
    is_ca=False,
    eku_beyond_client=False,
    asks_for_more=False,
)


@pytest.mark.parametrize("sans", [(), (DNS,), (IP, DNS)])
def test_a_leaf_may_ask_for_what_its_record_allows_or_less(sans: tuple[San, ...]) -> None:
    assert scope_refusal(LEAF, replace(CSR, sans=sans)) is None


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"common_name": "leaf-2"}, Refusal.WRONG_CN),
        ({"common_name": "LEAF-1"}, Refusal.WRONG_CN),
        ({"common_name": None}, Refusal.WRONG_CN),
        ({"other_subject": True}, Refusal.WRONG_CN),
        ({"sans": (DNS, OTHER)}, Refusal.WRONG_NAMES),
        ({"sans": (San.parse("uri:leaf-1.plant.example"),)}, Refusal.WRONG_NAMES),
        ({"unknown_names": True}, Refusal.WRONG_NAMES),
        ({"is_ca": True}, Refusal.CA_RIGHTS),
        ({"eku_beyond_client": True}, Refusal.USAGE),
        ({"asks_for_more": True}, Refusal.MORE),
        ({"key_accepted": False}, Refusal.WEAK_KEY),
    ],
)
def test_a_leaf_that_asks_for_more_is_refused(change: dict[str, Any], refusal: Refusal) -> None:
    assert scope_refusal(LEAF, replace(CSR, **change)) is refusal


@pytest.mark.parametrize(
    ("device", "refusal"),
    [
        (None, Refusal.UNKNOWN_DEVICE),
        (replace(LEAF, kind=DeviceKind.GATEWAY), Refusal.NOT_A_LEAF),
        (replace(LEAF, state=DeviceState.REVOKED), Refusal.REVOKED),
    ],
)
def test_who_may_not_enroll_at_all(device: Device | None, refusal: Refusal) -> None:
    assert scope_refusal(device, CSR) is refusal


@pytest.mark.parametrize("device_id", ["leaf-1", "a", "A.b%c_d*e?f!g(h),i:j=k@l$m'", "x" * 64])
def test_device_ids_of_the_hub(device_id: str) -> None:
    assert DEVICE_ID.fullmatch(device_id)


@pytest.mark.parametrize("device_id", ["", "x" * 65, "a b", "a/b", "a\n", "ä", "a\0", "a+b", ".", ".."])
def test_what_is_no_device_id(device_id: str) -> None:
    assert DEVICE_ID.fullmatch(device_id) is None


def test_codes_are_easy_to_type_and_not_to_guess() -> None:
    codes = {new_code() for _ in range(1000)}
    assert len(codes) == 1000
    assert all(re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}", code) for code in codes)
    assert len(set("".join(codes))) == 33


CODES = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=16, max_size=16)


@given(CODES, st.lists(st.tuples(st.integers(0, 16), st.sampled_from(["-", " ", "\t", "\n"]))), st.booleans())
def test_case_spaces_and_dashes_in_a_code_do_not_matter(
    code: str, separators: list[tuple[int, str]], lower: bool
) -> None:
    typed = code.lower() if lower else code
    for position, separator in separators:
        typed = typed[:position] + separator + typed[position:]
    assert code_hash("leaf-1", typed) == code_hash("leaf-1", code)


@given(CODES, st.sampled_from([("0", "o"), ("0", "O"), ("1", "i"), ("1", "I"), ("1", "l"), ("1", "L")]))
def test_letters_that_look_like_digits_count_as_these(code: str, alike: tuple[str, str]) -> None:
    assert code_hash("leaf-1", code.replace(*alike)) == code_hash("leaf-1", code)


@given(CODES, CODES, st.sampled_from(["leaf-1", "leaf-2"]), st.sampled_from(["leaf-1", "leaf-2"]))
def test_a_code_is_good_for_one_device_only(one: str, other: str, here: str, there: str) -> None:
    assert (code_hash(here, one) == code_hash(there, other)) == ((here, one) == (there, other))


FRESH = EnrollmentCode("aa", "leaf-1", NOW, NOW + HOUR)
USED = replace(FRESH, used_by="01" * 32)


@pytest.mark.parametrize(
    ("code", "csr", "at", "accepted"),
    [
        (None, "01", NOW, False),
        (FRESH, "01", NOW, True),
        (FRESH, "01", NOW + HOUR - timedelta(microseconds=1), True),
        (FRESH, "01", NOW + HOUR, False),
        (FRESH, "01", NOW - timedelta(seconds=1), False),
        (USED, "01" * 32, NOW, True),
        (USED, "01" * 32, NOW + 2 * HOUR, True),
        (USED, "02" * 32, NOW, False),
    ],
)
def test_a_code_lets_in_one_csr_in_time(code: EnrollmentCode | None, csr: str, at: datetime, accepted: bool) -> None:
    assert code_accepted(code, csr, at) is accepted


# --- manufacturers' certificates -------------------------------------------------------------------

BOTH = frozenset(ManufacturerUse)
ACME = Origin(Manufacturer("acme", BOTH), "4711", key_accepted=True)
BY_RULE = replace(ACME, manufacturer=Manufacturer("acme", BOTH, device="leaf-{serial}"), serial="1")
BOUND, VOID, ELSE = Binding("acme", "4711"), Binding("acme", "4711", void=True), Binding("acme", "4712")


@pytest.mark.parametrize(
    ("origin", "device", "refusal"),
    [
        (ACME, replace(LEAF, binding=BOUND), None),
        (ACME, replace(LEAF, binding=BOUND, state=DeviceState.REPLACING), None),
        (BY_RULE, LEAF, None),
        (BY_RULE, replace(LEAF, binding=Binding("acme", "1")), None),
        (ACME, None, Refusal.NOT_BOUND),
        (ACME, LEAF, Refusal.NOT_BOUND),
        (replace(BY_RULE, serial="2"), LEAF, Refusal.NOT_BOUND),
        (ACME, replace(LEAF, binding=ELSE), Refusal.OTHER_HARDWARE),
        (ACME, replace(LEAF, binding=Binding("evil", "4711")), Refusal.OTHER_HARDWARE),
        (BY_RULE, replace(LEAF, binding=ELSE), Refusal.OTHER_HARDWARE),  # new hardware under the old id
        (ACME, replace(LEAF, binding=VOID), Refusal.BINDING_VOID),
        (BY_RULE, replace(LEAF, binding=Binding("acme", "1", void=True)), Refusal.BINDING_VOID),
        (ACME, replace(LEAF, binding=VOID, state=DeviceState.REVOKED), Refusal.REVOKED),
        (BY_RULE, replace(LEAF, state=DeviceState.REVOKED), Refusal.REVOKED),
        (replace(ACME, key_accepted=False), replace(LEAF, binding=BOUND), Refusal.WEAK_ORIGIN),
    ],
)
def test_for_which_device_a_manufacturers_certificate_speaks(
    origin: Origin, device: Device | None, refusal: Refusal | None
) -> None:
    assert origin_refusal(origin, device) is refusal


VALID = Credential("leaf-1", 1, CredentialState.CURRENT, NOW, NOW, not_after=NOW + HOUR)
OVER = replace(VALID, not_after=NOW)


@pytest.mark.parametrize(
    ("uses", "current", "refusal"),
    [
        (BOTH, None, None),
        (BOTH, OVER, None),
        (BOTH, VALID, Refusal.STILL_VALID),
        ({ManufacturerUse.ENROLL}, None, None),
        ({ManufacturerUse.ENROLL}, OVER, Refusal.NOT_FOR_EXPIRED),
        ({ManufacturerUse.EXPIRED}, None, Refusal.NOT_TO_ENROLL),
        ({ManufacturerUse.EXPIRED}, OVER, None),
        ({ManufacturerUse.EXPIRED}, VALID, Refusal.STILL_VALID),
    ],
)
def test_what_a_manufacturers_certificate_is_good_for(
    uses: set[ManufacturerUse], current: Credential | None, refusal: Refusal | None
) -> None:
    origin = replace(ACME, manufacturer=Manufacturer("acme", frozenset(uses)))
    assert use_refusal(origin, current, NOW) is refusal


OTHER_LEAF = replace(LEAF, device_id="leaf-2")


@pytest.mark.parametrize(
    ("origin", "device", "known", "refusal"),
    [
        (ACME, LEAF, None, None),
        (ACME, replace(LEAF, binding=BOUND), replace(LEAF, binding=BOUND), None),
        (ACME, replace(LEAF, binding=VOID), replace(LEAF, binding=VOID), None),
        (ACME, LEAF, replace(OTHER_LEAF, binding=VOID), None),
        (ACME, LEAF, replace(OTHER_LEAF, binding=BOUND), Refusal.BOUND_ELSEWHERE),
        (ACME, replace(LEAF, binding=ELSE), None, Refusal.OTHER_HARDWARE),
        (ACME, replace(LEAF, binding=replace(ELSE, void=True)), None, None),
        (replace(ACME, key_accepted=False), LEAF, None, Refusal.WEAK_ORIGIN),
    ],
)
def test_which_hardware_may_come_along_with_a_code(
    origin: Origin, device: Device, known: Device | None, refusal: Refusal | None
) -> None:
    assert pairing_refusal(origin, device, known) is refusal


@pytest.mark.parametrize("serial", ["1", "SN 47-11/b", "x" * 128])
def test_serial_numbers(serial: str) -> None:
    assert SERIAL.fullmatch(serial)


@pytest.mark.parametrize("serial", ["", " 1", "1 ", "x" * 129, "1\n", "ä", "\0"])
def test_what_is_no_serial_number(serial: str) -> None:
    assert SERIAL.fullmatch(serial) is None
