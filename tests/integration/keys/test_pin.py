"""The PIN: tried once, and never again until a person gives one."""

from __future__ import annotations

from pathlib import Path

import pkcs11
import pytest

from gatewayd.errors import (
    PinMissing,
    PinRefused,
)
from gatewayd.keys import helper, objects
from gatewayd.keys import token as token_module
from gatewayd.keys.base import PinTries, TokenState
from gatewayd.keys.channel import ChannelClosed
from gatewayd.keys.pin import Pin
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import MODULE, PIN, SPY, SoftHsm
from tests.support.token_thread import TokenThreads
from tests.support.tpm import TpmToken

from .support import raising


async def test_a_refused_pin_is_tried_once_and_never_again_until_a_person_gives_one(
    softhsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied = tmp_path / "calls.log"
    monkeypatch.setenv("PKCS11SPY", str(MODULE))
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(spied))
    monkeypatch.setattr(token_module, "RELOAD_INTERVAL", 0.0)

    def tries() -> int:
        return spied.read_text(encoding="utf-8", errors="replace").count("C_Login\n")

    store = Pkcs11KeyStore(SPY, softhsm.uri, Pin("wrong-pin"))
    for _ in range(3):
        with pytest.raises(PinRefused) as caught:
            await store.open()
        assert "wrong-pin" not in caught.value.message
    with pytest.raises(PinRefused):
        await store.objects()
    status = store.status()
    assert (status.state, status.label) == (TokenState.PIN_REFUSED, softhsm.label)
    assert status.pin_tries is PinTries.FEWER
    assert tries() == 1
    with pytest.raises(PinRefused):
        await store.unlock(Pin("wrong-again"))
    with pytest.raises(PinRefused):
        await store.open()
    assert tries() == 2
    await store.unlock(softhsm.pin)
    assert tries() == 3
    assert (store.status().state, store.status().pin_tries) == (TokenState.READY, PinTries.UNKNOWN)
    await store.unlock(Pin("not tried, for the token is open"))
    assert tries() == 3
    await store.close()
    assert "user PIN count low" not in softhsm.tool("--list-token-slots")


async def test_a_pin_that_was_changed_meanwhile_is_tried_once_after_a_reload(
    near_keys: Pkcs11KeyStore, threads: TokenThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_module, "RELOAD_INTERVAL", 0.0)
    threads.connection.run(lambda session: session.set_pin(PIN, "another-pin"))
    monkeypatch.setattr(objects, "inventory", raising(pkcs11.GeneralError()))
    for _ in range(3):
        with pytest.raises(PinRefused):
            await near_keys.objects()
    assert len(threads.started) == 2
    assert near_keys.status().state is TokenState.PIN_REFUSED


async def test_a_process_that_dies_while_it_tries_the_pin_has_tried_it(
    softhsm: SoftHsm, threads: TokenThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether that was a wrong PIN nobody knows: a second try is a person's to make."""
    monkeypatch.setattr(token_module, "RELOAD_INTERVAL", 0.0)
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin, spawn=threads.spawn)
    with monkeypatch.context() as patched:
        patched.setattr(helper.Server, "_news", raising(ChannelClosed()))
        for _ in range(2):
            with pytest.raises(PinRefused, match="not known"):
                await store.open()
    assert len(threads.started) == 1
    assert store.status().state is TokenState.PIN_REFUSED
    await store.unlock(softhsm.pin)
    assert store.status().state is TokenState.READY
    await store.close()


async def test_without_a_pin_the_token_is_not_touched(softhsm: SoftHsm) -> None:
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, None)
    with pytest.raises(PinMissing):
        await store.open()
    assert store.status().state is TokenState.PIN_MISSING
    await store.close()


async def test_a_tpm_tells_the_tries_that_are_left_and_how_long_it_stays_locked(tpm: TpmToken) -> None:
    store = Pkcs11KeyStore(tpm.module, tpm.uri, Pin("wrong-pin"))
    with pytest.raises(PinRefused):
        await store.open()
    status = store.status()
    first = status.pin_tries_left
    assert first is not None
    assert status.pin_tries is (PinTries.ONE if first == 1 else PinTries.FEWER)
    for left in range(first - 1, -1, -1):
        with pytest.raises(PinRefused):
            await store.unlock(Pin("wrong-pin"))
        assert store.status().pin_tries_left == left
    locked = store.status()
    assert locked.pin_tries is PinTries.NONE
    assert locked.locked_until is not None
    assert locked.locked_until > locked.since
    with pytest.raises(PinRefused, match="PinLocked"):
        await store.unlock(tpm.pin)
    await store.close()
