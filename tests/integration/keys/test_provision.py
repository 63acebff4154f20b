"""Initialising a token."""

from __future__ import annotations

from pathlib import Path

import pkcs11
import pytest

from gatewayd.errors import InvalidArgument, PinRefused, TokenModuleBroken
from gatewayd.keys import provision
from gatewayd.keys.pin import Pin
from gatewayd.keys.provision import init_token
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import LABEL, SoftHsm

SO_PIN, USER_PIN = Pin("so-pin-4711"), Pin("user-pin-4712")


async def test_a_new_token_opens_with_its_pin_and_a_second_call_leaves_it_alone(softhsm: SoftHsm) -> None:
    made = init_token(softhsm.module, "gatewäy 1", SO_PIN, USER_PIN)
    assert (made.label, made.created) == ("gatewäy 1", True)
    again = init_token(softhsm.module, "gatewäy 1", None, Pin("yet-another-pin"))
    assert (again.serial, again.created) == (made.serial, False)
    assert not init_token(softhsm.module, LABEL, None, USER_PIN).created
    store = Pkcs11KeyStore(softhsm.module, "pkcs11:token=gatew%C3%A4y%201", USER_PIN)
    await store.open()
    assert store.status().serial == made.serial
    await store.close()


def test_a_refused_pin_leaves_no_token_behind(softhsm: SoftHsm) -> None:
    for so_pin, pin in ((SO_PIN, Pin("123")), (Pin("1"), USER_PIN)):
        with pytest.raises(PinRefused, match="4 to 255") as caught:
            init_token(softhsm.module, "new", so_pin, pin)
        assert "123" not in caught.value.message
    assert "new" not in softhsm.tool("--list-token-slots").split()


def test_an_initialisation_that_was_cut_off_is_finished_with_the_same_so_pin(softhsm: SoftHsm) -> None:
    # What a crash between C_InitToken and C_InitPIN leaves: a token without a user PIN.
    lib = pkcs11.lib(str(softhsm.module))
    provision._initialize(lib, softhsm.module, "half", SO_PIN, USER_PIN)
    lib.finalize()
    with pytest.raises(PinRefused, match="only its SO PIN"):
        init_token(softhsm.module, "half", None, USER_PIN)
    with pytest.raises(PinRefused):
        init_token(softhsm.module, "half", Pin("not-the-so-pin"), USER_PIN)
    assert init_token(softhsm.module, "half", SO_PIN, USER_PIN).created
    assert not init_token(softhsm.module, "half", SO_PIN, USER_PIN).created


def test_a_label_that_does_not_fit_and_a_module_that_is_not_there(softhsm: SoftHsm) -> None:
    for label in ("", "x" * 33):
        with pytest.raises(InvalidArgument):
            init_token(softhsm.module, label, None, USER_PIN)
    with pytest.raises(TokenModuleBroken):
        init_token(Path("/nonexistent.so"), "new", None, USER_PIN)
