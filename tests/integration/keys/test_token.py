"""The key store on a real SoftHSM token, and what matters most on a TPM too."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from pkcs11 import Attribute, KeyType

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.errors import (
    AlgorithmUnsupported,
    ConfigInvalid,
    Internal,
    KeyAmbiguous,
    KeyMissing,
    KeyNotProtected,
    PinMissing,
    PinRefused,
    TokenBusy,
    TokenError,
    TokenExists,
    TokenFault,
    TokenModuleBroken,
    TokenNotFound,
    TokenTimeout,
    TokenUnusable,
)
from gatewayd.keys import connection, helper, objects
from gatewayd.keys import token as token_module
from gatewayd.keys.base import PinTries, TokenState
from gatewayd.keys.channel import ChannelClosed
from gatewayd.keys.pin import Pin
from gatewayd.keys.process import HelperProcess
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import MODULE, PIN, SPY, SoftHsm
from tests.support.token_thread import TokenThreads
from tests.support.tpm import TpmToken

from .conftest import Token, on_both_tokens

ECDSA = ec.ECDSA(hashes.SHA256())


@on_both_tokens
@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
async def test_a_key_is_made_in_the_token_and_cannot_leave_it(
    keys: Pkcs11KeyStore, token: Token, algorithm: KeyAlgorithm
) -> None:
    public_key = await keys.generate(b"\x01\x02", "gw-1 generation 1", algorithm)
    assert public_key.key_size == int(algorithm.rpartition("-")[2].removeprefix("p"))
    assert await keys.generate(b"\x01\x02", "gw-1 generation 1", algorithm) == public_key
    assert await keys.find(public_key) == KeyRef(b"\x01\x02", algorithm)
    (private,) = [each for each in await keys.objects() if each.kind == "private-key"]
    assert (private.label, private.algorithm) == ("gw-1 generation 1", algorithm)
    assert (private.sensitive, private.extractable, private.local) == (True, False, True)
    listing = token.tool("--list-objects", "--type", "privkey", login=True)
    assert "Access:     sensitive, always sensitive, never extractable, local" in listing
    assert re.search("ID: +0102", listing)


@on_both_tokens
async def test_a_key_under_another_id_is_another_key_and_can_be_destroyed(keys: Pkcs11KeyStore) -> None:
    first = await keys.generate(b"1", "one", KeyAlgorithm.EC_P256)
    second = await keys.generate(b"2", "two", KeyAlgorithm.EC_P256)
    assert first != second
    key = keys.private_key(KeyRef(b"1", KeyAlgorithm.EC_P256), first)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key.sign(b"data", ECDSA)
    await keys.destroy(b"1")
    await keys.destroy(b"1")
    with pytest.raises(KeyMissing):
        key.sign(b"data", ECDSA)
    assert await keys.find(first) is None
    assert await keys.find(second) == KeyRef(b"2", KeyAlgorithm.EC_P256)
    assert keys.status().state is TokenState.READY


@on_both_tokens
async def test_a_key_is_found_again_after_a_restart(keys: Pkcs11KeyStore, token: Token) -> None:
    public_key = await keys.generate(b"1", "one", KeyAlgorithm.EC_P256)
    await keys.close()
    again = Pkcs11KeyStore(token.module, token.uri, token.pin)
    ref = await again.find(public_key)
    assert ref == KeyRef(b"1", KeyAlgorithm.EC_P256)
    key = again.private_key(ref, public_key)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)
    await again.close()


@on_both_tokens
async def test_more_keys_than_a_tpm_has_room_for_are_made_and_used_in_turn(keys: Pkcs11KeyStore) -> None:
    made = {}
    for number in range(5):
        key_id = bytes([number])
        public_key = await keys.generate(key_id, "one label for all", KeyAlgorithm.EC_P256)
        made[key_id] = keys.private_key(KeyRef(key_id, KeyAlgorithm.EC_P256), public_key)
        for key in made.values():
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)


@on_both_tokens
async def test_two_keys_with_one_id_are_not_confused(keys: Pkcs11KeyStore, token: Token) -> None:
    public_key = await keys.generate(b"1", "ours", KeyAlgorithm.EC_P256)
    token.tool("--keypairgen", "--key-type", "EC:prime256v1", "--id", "31", "--label", "theirs", login=True)
    await keys.close()
    again = Pkcs11KeyStore(token.module, token.uri, token.pin)
    signer = again.private_key(KeyRef(b"1", KeyAlgorithm.EC_P256), public_key)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    with pytest.raises(KeyAmbiguous):
        signer.sign(b"data", ECDSA)
    with pytest.raises(KeyAmbiguous):
        await again.generate(b"1", "ours", KeyAlgorithm.EC_P256)
    with pytest.raises(KeyAmbiguous):
        await again.destroy(b"1")
    assert len([each for each in await again.objects() if each.kind == "private-key"]) == 2
    await again.close()


async def test_a_key_is_not_taken_for_one_of_another_algorithm(keys: Pkcs11KeyStore) -> None:
    await keys.generate(b"1", "one", KeyAlgorithm.EC_P256)
    with pytest.raises(Internal, match="ec-p256"):
        await keys.generate(b"1", "one", KeyAlgorithm.EC_P384)


async def test_a_generation_that_was_cut_off_is_finished(keys: Pkcs11KeyStore, softhsm: SoftHsm) -> None:
    lost = await keys.generate(b"1", "one", KeyAlgorithm.EC_P256)
    softhsm.tool("--delete-object", "--type", "privkey", "--id", b"1".hex(), login=True)
    assert await keys.generate(b"1", "one", KeyAlgorithm.EC_P256) != lost
    assert len(await keys.objects()) == 2


async def test_a_key_that_the_token_does_not_protect_is_refused_and_destroyed(
    near_keys: Pkcs11KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_PROTECTION", {**objects._PROTECTION, Attribute.EXTRACTABLE: True})
    with pytest.raises(KeyNotProtected, match="CKA_EXTRACTABLE"):
        await near_keys.generate(b"1", "one", KeyAlgorithm.EC_P256)
    assert await near_keys.objects() == []


async def test_an_unprotected_key_that_was_there_is_refused_and_left(
    near_keys: Pkcs11KeyStore, threads: TokenThreads
) -> None:
    threads.connection.run(
        lambda session: session.generate_keypair(
            KeyType.RSA, 2048, id=b"1", store=True, private_template={Attribute.EXTRACTABLE: True}
        )
    )
    with pytest.raises(KeyNotProtected):
        await near_keys.generate(b"1", "one", KeyAlgorithm.RSA_2048)
    assert len(await near_keys.objects()) == 2


async def test_an_algorithm_that_the_token_lacks_is_refused_with_those_it_has(
    softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with softhsm.conf.open("a", encoding="utf-8") as conf:
        conf.write("slots.mechanisms = CKM_RSA_PKCS_KEY_PAIR_GEN,CKM_RSA_PKCS\n")
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin)
    with pytest.raises(AlgorithmUnsupported, match=r"no ec-p256 keys; it offers rsa-2048, rsa-3072"):
        await store.generate(b"1", "one", KeyAlgorithm.EC_P256)
    await store.close()


# --- the PIN -------------------------------------------------------------------------------------


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


# --- finding the token ---------------------------------------------------------------------------


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


# --- many callers, and faults --------------------------------------------------------------------


class Handle:
    """A private key's handle in the module, that does something else first."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def sign(self, data: bytes, **_: Any) -> bytes:
        self._before()
        return bytes(64)


def raising(error: Exception) -> Any:
    def function(*_: object) -> None:
        raise error

    return function


async def ec_key(store: Pkcs11KeyStore) -> ec.EllipticCurvePrivateKey:
    public_key = await store.generate(b"ec", "ec", KeyAlgorithm.EC_P256)
    key = store.private_key(KeyRef(b"ec", KeyAlgorithm.EC_P256), public_key)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


async def test_eight_threads_sign_without_an_error(keys: Pkcs11KeyStore) -> None:
    elliptic = await ec_key(keys)
    public_key = await keys.generate(b"rsa", "rsa", KeyAlgorithm.RSA_2048)
    other = keys.private_key(KeyRef(b"rsa", KeyAlgorithm.RSA_2048), public_key)
    assert isinstance(other, rsa.RSAPrivateKey)

    def sign_and_verify(number: int) -> None:
        data = number.to_bytes(4, "big")
        elliptic.public_key().verify(elliptic.sign(data, ECDSA), data, ECDSA)
        if number % 8 == 0:
            pkcs1 = padding.PKCS1v15()
            other.public_key().verify(other.sign(data, pkcs1, hashes.SHA256()), data, pkcs1, hashes.SHA256())

    with ThreadPoolExecutor(max_workers=8) as pool:
        await asyncio.gather(
            *(asyncio.get_running_loop().run_in_executor(pool, sign_and_verify, number) for number in range(800))
        )


async def test_a_fault_is_mended_by_one_reload_in_thirty_seconds(
    near_keys: Pkcs11KeyStore, threads: TokenThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await ec_key(near_keys)

    def break_handle() -> None:
        threads.connection._handles[b"ec"] = Handle(raising(pkcs11.DeviceError()))

    break_handle()
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)
    assert len(threads.started) == 2
    break_handle()
    with pytest.raises(TokenFault, match="DeviceError"):
        key.sign(b"data", ECDSA)
    assert len(threads.started) == 2
    assert near_keys.status().state is TokenState.FAULTY
    monkeypatch.setattr(token_module, "RELOAD_INTERVAL", 0.0)
    key.sign(b"data", ECDSA)
    assert len(threads.started) == 3
    assert (near_keys.status().state, near_keys.status().detail) == (TokenState.READY, "")


@pytest.mark.parametrize(
    ("answer", "error", "state"),
    [
        (pkcs11.GeneralError(), TokenFault, TokenState.FAULTY),
        (pkcs11.DeviceError(), TokenFault, TokenState.FAULTY),
        (pkcs11.SessionHandleInvalid(), TokenFault, TokenState.FAULTY),
        (pkcs11.DeviceRemoved(), TokenNotFound, TokenState.ABSENT),
        (pkcs11.TokenNotPresent(), TokenNotFound, TokenState.ABSENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_a_fault_is_cured_once_and_then_told(
    near_keys: Pkcs11KeyStore,
    threads: TokenThreads,
    caplog: pytest.LogCaptureFixture,
    answer: pkcs11.PKCS11Error,
    error: type[TokenError],
    state: TokenState,
) -> None:
    key = await ec_key(near_keys)
    threads.connection._handles[b"ec"] = Handle(raising(answer))
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)
    assert "the token's module is loaded afresh: The token " in caplog.text
    threads.connection._handles[b"ec"] = Handle(raising(answer))
    with pytest.raises(error, match=type(answer).__name__):
        key.sign(b"data", ECDSA)
    assert len(threads.started) == 2
    assert near_keys.status().state is state


async def test_a_module_that_somebody_finalised_is_initialised_again(near_keys: Pkcs11KeyStore) -> None:
    key = await ec_key(near_keys)
    key.sign(b"data", ECDSA)
    pkcs11.lib(str(MODULE)).finalize()
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)


async def test_a_token_that_hangs_fails_its_callers_in_time_and_recovers(
    softhsm: SoftHsm, threads: TokenThreads
) -> None:
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin, timeout=1.0, queue_size=2, spawn=threads.spawn)
    key = await ec_key(store)
    key.sign(b"data", ECDSA)
    released = threading.Event()
    real = threads.connection._handles[b"ec"]
    threads.connection._handles[b"ec"] = Handle(lambda: released.wait(10))
    with pytest.raises(TokenTimeout):
        key.sign(b"data", ECDSA)
    assert store.status().state is TokenState.FAULTY
    outcomes = await asyncio.gather(*(store.objects() for _ in range(5)), return_exceptions=True)
    assert {type(each) for each in outcomes} == {TokenTimeout, TokenBusy}
    threads.connection._handles[b"ec"] = real
    released.set()
    key.sign(b"data", ECDSA)
    assert store.status().state is TokenState.READY
    assert len(threads.started) == 1
    await store.close()


async def test_a_module_that_hangs_for_long_is_killed_and_loaded_afresh(
    softhsm: SoftHsm, threads: TokenThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_module, "_HANGING", 2)
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin, timeout=1.0, spawn=threads.spawn)
    key = await ec_key(store)
    released = threading.Event()
    threads.connection._handles[b"ec"] = Handle(lambda: released.wait(10))
    while not threads.started[0].killed:
        with pytest.raises(TokenTimeout):
            key.sign(b"data", ECDSA)
    released.set()
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)
    assert len(threads.started) == 2
    await store.close()


async def test_a_login_that_came_too_late_is_not_made_twice(
    softhsm: SoftHsm, threads: TokenThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    real = connection.TokenConnection._log_in

    def slow(self: Any, *arguments: Any, **named: Any) -> Any:
        logins.append(1)
        released.wait(10)
        return real(self, *arguments, **named)

    logins: list[int] = []
    monkeypatch.setattr(connection.TokenConnection, "_log_in", slow)
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, Pin("wrong-pin"), timeout=1.0, spawn=threads.spawn)
    with pytest.raises(TokenTimeout):
        await store.open()
    released.set()
    with pytest.raises(PinRefused):
        await store.open()
    assert logins == [1]
    await store.close()


async def test_a_crash_of_the_module_is_survived(keys: Pkcs11KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is ended as abort() in the module would end it."""
    key = await ec_key(keys)

    def crash() -> None:
        process = keys._exchange.process
        assert isinstance(process, HelperProcess)
        process._process.send_signal(signal.SIGABRT)
        process._process.wait(5)

    crash()
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)
    assert keys.status().state is TokenState.READY
    crash()
    with pytest.raises(TokenModuleBroken, match="SIGABRT"):
        key.sign(b"data", ECDSA)
    assert keys.status().state is TokenState.FAULTY
    with pytest.raises(TokenFault, match="at most once in 30 s"):
        key.sign(b"data", ECDSA)
    monkeypatch.setattr(token_module, "RELOAD_INTERVAL", 0.0)
    key.sign(b"data", ECDSA)
    assert keys.status().state is TokenState.READY


@pytest.mark.parametrize("nonsense", [b"", b"[]", b'"x"', b"[1,2]", b"\xff", b'[1,"done",[],{"state":"x"}]'])
async def test_a_process_that_makes_no_sense_is_replaced(
    near_keys: Pkcs11KeyStore, threads: TokenThreads, monkeypatch: pytest.MonkeyPatch, nonsense: bytes
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(helper.Server, "_reply", lambda self, *_: self._channel.send(b"J", nonsense))
        with pytest.raises(TokenModuleBroken):
            await near_keys.objects()
        assert near_keys.status().state is TokenState.FAULTY
    monkeypatch.setattr(token_module, "RELOAD_INTERVAL", 0.0)
    assert await near_keys.objects() == []
    assert near_keys.status().state is TokenState.READY


async def test_the_process_shows_no_pin_and_ends_with_the_daemon(softhsm: SoftHsm) -> None:
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin)
    await store.open()
    process = store._exchange.process
    assert isinstance(process, HelperProcess)
    shown = Path(f"/proc/{process._process.pid}")
    for name in ("cmdline", "environ"):
        assert softhsm.pin_text.encode() not in (shown / name).read_bytes()
    process._process.send_signal(signal.SIGTERM)  # as systemd does to all processes of a unit
    await store.objects()
    process.channel.close()  # as the daemon's end does, however it ends
    assert process._process.wait(5) == 0
    await store.close()


async def test_after_a_fork_nothing_is_done(keys: Pkcs11KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: -1)
        with pytest.raises(TokenFault, match="fork"):
            await keys.objects()


# --- a token made by the daemon ------------------------------------------------------------------


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


# --- what happens to a TPM -----------------------------------------------------------------------


async def test_a_token_restored_from_an_old_backup_lacks_the_keys_made_since(tpm: TpmToken, tmp_path: Path) -> None:
    store = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    old = await store.generate(b"old", "old", KeyAlgorithm.EC_P256)
    tpm.sim.backup(tmp_path / "backup")
    new = await store.generate(b"new", "new", KeyAlgorithm.EC_P256)
    await store.close()
    tpm.sim.restore(tmp_path / "backup")
    again = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    assert await again.find(old) is not None
    assert await again.find(new) is None
    lost = again.private_key(KeyRef(b"new", KeyAlgorithm.EC_P256), new)
    assert isinstance(lost, ec.EllipticCurvePrivateKey)
    with pytest.raises(KeyMissing):
        lost.sign(b"data", ECDSA)
    assert again.status().state is TokenState.READY
    await again.close()


async def test_keys_of_another_tpm_are_not_tried_until_it_locks(tpm: TpmToken, tmp_path: Path) -> None:
    """Each login to a token whose store does not belong to the TPM counts there as a wrong password."""
    tpm.sim.backup(tmp_path / "of-before")
    tpm.sim.clear()
    shutil.rmtree(tpm.sim.store)
    tpm.sim.store.mkdir(mode=0o700)
    tpm.initialize()
    tpm.sim.backup(tmp_path / "of-now")
    tpm.sim.restore(tmp_path / "of-before")
    store = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    for _ in range(5):
        with pytest.raises(TokenUnusable, match="cannot be logged in to"):
            await store.open()
    assert store.status().state is TokenState.UNUSABLE
    assert re.search(r"LOCKOUT_COUNTER: 0x1\n", tpm.sim.tool("tpm2_getcap", "properties-variable"))
    tpm.sim.restore(tmp_path / "of-now")
    await store.unlock(tpm.pin)
    assert store.status().state is TokenState.READY
    await store.close()


async def test_a_full_tpm_goes_on_making_keys_and_holds_no_other_token(tpm: TpmToken) -> None:
    """Its keys are in the module's store, encrypted: what its memory has to hold is the one key above them."""
    tpm.sim.fill()
    store = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    await store.generate(b"1", "one", KeyAlgorithm.EC_P256)
    await store.close()
    shutil.rmtree(tpm.sim.store)
    tpm.sim.store.mkdir(mode=0o700)
    tpm.sim.clear()
    tpm.sim.fill()
    other = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    with pytest.raises(TokenFault, match="C_InitToken"):
        await other.initialize(tpm.pin)
    await other.close()
