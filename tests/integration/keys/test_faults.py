"""Many callers at once, and what a token or its module may do to them."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.errors import (
    PinRefused,
    TokenBusy,
    TokenError,
    TokenFault,
    TokenModuleBroken,
    TokenNotFound,
    TokenTimeout,
)
from gatewayd.keys import connection, helper
from gatewayd.keys import token as token_module
from gatewayd.keys.base import TokenState
from gatewayd.keys.pin import Pin
from gatewayd.keys.process import HelperProcess
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import MODULE, SoftHsm
from tests.support.token_thread import TokenThreads

from .support import ECDSA, Handle, ec_key, raising


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


def crashing(path: Path) -> Path:
    """SoftHSM's module with an illegal instruction where its first function begins."""
    address = ctypes.cast(ctypes.CDLL(str(MODULE)).C_GetFunctionList, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        extent, _, offset, *_ = line.split()
        first, end = (int(each, 16) for each in extent.split("-"))
        if first <= address < end:
            code = bytearray(MODULE.read_bytes())
            at = address - first + int(offset, 16)
            code[at : at + 2] = b"\x0f\x0b"  # ud2
            path.write_bytes(code)
            return path
    raise AssertionError


async def test_a_module_that_crashes_as_it_is_loaded_is_told_and_can_be_exchanged(
    softhsm: SoftHsm, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = crashing(tmp_path / "module.so")
    store = Pkcs11KeyStore(module, softhsm.uri, softhsm.pin)
    with pytest.raises(TokenModuleBroken, match=r"module\.so ended with SIGILL") as caught:
        await store.open()
    assert "Check [token] module" in caught.value.remedy
    assert store.status().state is TokenState.FAULTY
    assert f"The PKCS#11 module {module} ended with SIGILL." in caplog.text
    with pytest.raises(TokenFault, match="at most once in 30 s"):
        await store.open()
    module.write_bytes(MODULE.read_bytes())
    monkeypatch.setattr(token_module, "RELOAD_INTERVAL", 0.0)
    await store.open()
    assert store.status().state is TokenState.READY
    await store.close()
