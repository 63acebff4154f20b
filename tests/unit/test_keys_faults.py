"""What the module's answers mean."""

from __future__ import annotations

import pkcs11
import pytest

from gatewayd.errors import AlgorithmUnsupported, KeyMissing, TokenError, TokenFault, TokenNotFound
from gatewayd.keys import faults
from gatewayd.keys.base import PinTries


@pytest.mark.parametrize(
    ("answer", "error", "reload"),
    [
        (pkcs11.GeneralError(), TokenFault, True),
        (pkcs11.DeviceError(), TokenFault, True),
        (pkcs11.SessionHandleInvalid(), TokenFault, True),
        (pkcs11.UserNotLoggedIn(), TokenFault, True),
        (pkcs11.PKCS11Error("Unmapped error code 0x80000001"), TokenFault, True),
        (pkcs11.DeviceRemoved(), TokenNotFound, True),
        (pkcs11.MechanismInvalid(), AlgorithmUnsupported, False),
        (pkcs11.KeyHandleInvalid(), KeyMissing, False),
        (pkcs11.NoSuchKey(), KeyMissing, False),
        (pkcs11.PinIncorrect(), TokenFault, False),
        (pkcs11.PinLocked(), TokenFault, False),
    ],
)
def test_an_answer_becomes_our_error_and_is_cured_by_a_reload_or_not(
    answer: pkcs11.PKCS11Error, error: type[TokenError], reload: bool
) -> None:
    assert type(faults.translate(answer)) is error
    assert faults.cured_by_reload(answer) is reload


def test_the_last_try_of_a_pin_is_left_to_a_person() -> None:
    low, final, locked = 0x00010000, 0x00020000, 0x00040000
    assert faults.login_refusal(0) is None
    assert faults.login_refusal(low) is None
    assert "one more try" in (faults.login_refusal(low | final) or "")
    assert "locked" in (faults.login_refusal(locked) or "")
    assert faults.login_refusal(low | final, final_try=True) is None
    assert "locked" in (faults.login_refusal(final | locked, final_try=True) or "")


def test_what_the_token_says_of_the_tries_left() -> None:
    low, final, locked = 0x00010000, 0x00020000, 0x00040000
    assert [faults.tries_left(each) for each in (0, low, low | final, final | locked)] == [
        PinTries.UNKNOWN,
        PinTries.FEWER,
        PinTries.ONE,
        PinTries.NONE,
    ]
