"""Finding the token, and making one where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.core.model import KeyAlgorithm
from gatewayd.errors import (
    ConfigInvalid,
    PinMissing,
    TokenExists,
    TokenModuleBroken,
    TokenNotFound,
)
from gatewayd.keys import token as token_module
from gatewayd.keys.base import TokenState
from gatewayd.keys.pin import Pin
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import MODULE, SoftHsm


async def test_the_token_is_found_by_label_and_serial(keys: Pkcs11KeyStore, softhsm: SoftHsm) -> None:
    serial = keys.status().serial
    await keys.close()
    right = Pkcs11KeyStore(softhsm.module, f"{softhsm.uri};serial={serial};model=SoftHSM%20v2", softhsm.pin)
    await right.open()
    assert right.status().state is TokenState.READY
    await right.close()
    wrong = Pkcs11KeyStore(softhsm.module, f"{softhsm.uri};serial=0000000000000000", softhsm.pin)
    with pytest.raises(TokenNotFound):
        await wrong.open()
    assert wrong.status().state is TokenState.ABSENT
    await wrong.close()


async def test_a_token_that_comes_later_is_found(
    softhsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = softhsm.tokens.rename(tmp_path / "unplugged")
    softhsm.tokens.mkdir()
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin)
    with pytest.raises(TokenNotFound):
        await store.open()
    softhsm.tokens.rmdir()
    away.rename(softhsm.tokens)
    monkeypatch.setattr(token_module, "RELOAD_INTERVAL", 0.0)
    await store.open()
    assert store.status().state is TokenState.READY
    await store.close()


async def test_a_module_that_does_not_load_is_named(softhsm: SoftHsm, tmp_path: Path) -> None:
    missing = tmp_path / "missing.so"
    store = Pkcs11KeyStore(softhsm.module, f"{softhsm.uri}?module-path={missing}", softhsm.pin)
    with pytest.raises(TokenModuleBroken, match=r"missing\.so"):
        await store.open()
    assert store.status().state is TokenState.ABSENT
    assert "missing.so" in store.status().detail
    await store.close()


def test_a_uri_must_name_a_token() -> None:
    for text in ("pkcs11:token=a;object=b", "pkcs11:token=a;id=%01", "pkcs11:token=a?module-name=softhsm2"):
        with pytest.raises(ConfigInvalid):
            Pkcs11KeyStore(MODULE, text, None)


async def test_a_token_is_made_where_none_is_and_never_twice(softhsm: SoftHsm) -> None:
    store = Pkcs11KeyStore(softhsm.module, "pkcs11:token=made-here", None)
    with pytest.raises(PinMissing):
        await store.open()
    await store.initialize(Pin("first-pin"))
    assert (store.status().state, store.status().label) == (TokenState.READY, "made-here")
    made = await store.generate(b"1", "one", KeyAlgorithm.EC_P256)
    with pytest.raises(TokenExists):
        await store.initialize(Pin("second-pin"))
    await store.close()
    other = Pkcs11KeyStore(softhsm.module, "pkcs11:token=made-here", None)
    with pytest.raises(TokenExists):
        await other.initialize(Pin("second-pin"))
    await other.unlock(Pin("first-pin"))
    assert await other.find(made) is not None
    await other.close()


async def test_two_tokens_of_one_module_are_two_stores(keys: Pkcs11KeyStore, softhsm: SoftHsm) -> None:
    other = Pkcs11KeyStore(softhsm.module, "pkcs11:token=second", None)
    await other.initialize(Pin("its-own-pin"))
    first = await keys.generate(b"1", "one", KeyAlgorithm.EC_P256)
    second = await other.generate(b"1", "one", KeyAlgorithm.EC_P256)
    await other.close()
    assert await keys.find(first) is not None
    assert await keys.find(second) is None
