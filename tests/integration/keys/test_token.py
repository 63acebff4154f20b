"""The key store on a real SoftHSM token."""

from __future__ import annotations

import asyncio
import re
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
    KeyMissing,
    KeyNotProtected,
    PinMissing,
    PinRefused,
    TokenBusy,
    TokenFault,
    TokenModuleBroken,
    TokenNotFound,
    TokenTimeout,
)
from gatewayd.keys import connection, objects
from gatewayd.keys.base import TokenState
from gatewayd.keys.pin import Pin
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import MODULE, PIN, SPY, SoftHsm

ECDSA = ec.ECDSA(hashes.SHA256())


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
async def test_a_key_is_made_in_the_token_and_cannot_leave_it(
    keys: Pkcs11KeyStore, softhsm: SoftHsm, algorithm: KeyAlgorithm
) -> None:
    public_key = await keys.generate(b"\x01\x02", "gw-1 generation 1", algorithm)
    assert public_key.key_size == int(algorithm.rpartition("-")[2].removeprefix("p"))
    assert await keys.generate(b"\x01\x02", "gw-1 generation 1", algorithm) == public_key
    assert await keys.find(public_key) == KeyRef(b"\x01\x02", algorithm)
    (private,) = [each for each in await keys.objects() if each.kind == "private-key"]
    assert (private.label, private.algorithm) == ("gw-1 generation 1", algorithm)
    assert (private.sensitive, private.extractable, private.local) == (True, False, True)
    listing = softhsm.tool("--list-objects", "--type", "privkey", login=True)
    assert "Access:     sensitive, always sensitive, never extractable, local" in listing
    assert re.search("ID: +0102", listing)


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


async def test_a_key_is_not_taken_for_one_of_another_algorithm(keys: Pkcs11KeyStore) -> None:
    await keys.generate(b"1", "one", KeyAlgorithm.EC_P256)
    with pytest.raises(Internal, match="ec-p256"):
        await keys.generate(b"1", "one", KeyAlgorithm.EC_P384)


async def test_a_generation_that_was_cut_off_is_finished(keys: Pkcs11KeyStore) -> None:
    lost = await keys.generate(b"1", "one", KeyAlgorithm.EC_P256)

    def lose_private_half(session: Any) -> None:
        session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, id=b"1").destroy()

    await keys._housekeeping(lose_private_half)
    assert await keys.generate(b"1", "one", KeyAlgorithm.EC_P256) != lost
    assert len(await keys.objects()) == 2


async def test_a_key_that_the_token_does_not_protect_is_refused_and_destroyed(
    keys: Pkcs11KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_PROTECTION", {**objects._PROTECTION, Attribute.EXTRACTABLE: True})
    with pytest.raises(KeyNotProtected, match="CKA_EXTRACTABLE"):
        await keys.generate(b"1", "one", KeyAlgorithm.EC_P256)
    assert await keys.objects() == []


async def test_an_unprotected_key_that_was_there_is_refused_and_left(keys: Pkcs11KeyStore) -> None:
    await keys._housekeeping(
        lambda session: session.generate_keypair(
            KeyType.RSA, 2048, id=b"1", store=True, private_template={Attribute.EXTRACTABLE: True}
        )
    )
    with pytest.raises(KeyNotProtected):
        await keys.generate(b"1", "one", KeyAlgorithm.RSA_2048)
    assert len(await keys.objects()) == 2


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


async def test_a_refused_pin_is_tried_once_and_never_again(
    softhsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied = tmp_path / "calls.log"
    monkeypatch.setenv("PKCS11SPY", str(MODULE))
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(spied))
    now = 0.0
    store = Pkcs11KeyStore(SPY, softhsm.uri, Pin("wrong-pin"), monotonic=lambda: now)
    for _ in range(3):
        with pytest.raises(PinRefused) as caught:
            await store.open()
        assert "wrong-pin" not in caught.value.message
        now += 100.0
    with pytest.raises(PinRefused):
        await store.objects()
    status = store.status()
    assert (status.state, status.label) == (TokenState.PIN_REFUSED, softhsm.label)
    await store.close()
    assert spied.read_text(encoding="utf-8", errors="replace").count("C_Login\n") == 1
    assert "user PIN count low" in softhsm.tool("--list-token-slots")


async def test_a_pin_that_was_changed_meanwhile_is_tried_once_after_a_reload(
    keys: Pkcs11KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys._housekeeping(lambda session: session.set_pin(PIN, "another-pin"))
    loads = count_loads(monkeypatch)

    def fault(session: Any) -> None:
        raise pkcs11.GeneralError

    for _ in range(3):
        with pytest.raises(PinRefused):
            await keys._housekeeping(fault)
    assert loads == [MODULE]
    assert keys.status().state is TokenState.PIN_REFUSED


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


async def test_a_token_that_comes_later_is_found(softhsm: SoftHsm, tmp_path: Path) -> None:
    away = softhsm.tokens.rename(tmp_path / "unplugged")
    softhsm.tokens.mkdir()
    now = 0.0
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin, monotonic=lambda: now)
    with pytest.raises(TokenNotFound):
        await store.open()
    softhsm.tokens.rmdir()
    away.rename(softhsm.tokens)
    now = 31.0
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


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    loads: list[Path] = []
    real = connection.load

    def load(module: Path) -> Any:
        loads.append(module)
        return real(module)

    monkeypatch.setattr(connection, "load", load)
    return loads


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
    softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin, monotonic=lambda: now)
    key = await ec_key(store)
    loads = count_loads(monkeypatch)

    def break_handle() -> None:
        def fault() -> None:
            raise pkcs11.DeviceError

        store._connection._handles[b"ec"] = Handle(fault)

    break_handle()
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)
    assert len(loads) == 1
    break_handle()
    now += 29.0
    with pytest.raises(TokenFault, match="DeviceError"):
        key.sign(b"data", ECDSA)
    assert len(loads) == 1
    assert store.status().state is TokenState.FAULTY
    now += 1.0
    key.sign(b"data", ECDSA)
    assert len(loads) == 2
    assert (store.status().state, store.status().detail) == (TokenState.READY, "")
    await store.close()


async def test_a_module_that_somebody_finalised_is_initialised_again(keys: Pkcs11KeyStore) -> None:
    key = await ec_key(keys)
    key.sign(b"data", ECDSA)
    pkcs11.lib(str(MODULE)).finalize()
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)


async def test_a_token_that_hangs_fails_its_callers_in_time_and_recovers(softhsm: SoftHsm) -> None:
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin, timeout=0.3, queue_size=2)
    key = await ec_key(store)
    key.sign(b"data", ECDSA)
    released = threading.Event()
    real = store._connection._handles[b"ec"]
    store._connection._handles[b"ec"] = Handle(lambda: released.wait(10))
    with pytest.raises(TokenTimeout):
        key.sign(b"data", ECDSA)
    assert store.status().state is TokenState.FAULTY
    for _ in range(2):
        with pytest.raises(TokenTimeout):
            await store.objects()
    with pytest.raises(TokenBusy):
        key.sign(b"data", ECDSA)
    released.set()
    store._connection._handles[b"ec"] = real
    await asyncio.sleep(0.05)
    key.sign(b"data", ECDSA)
    assert store.status().state is TokenState.READY
    await store.close()
