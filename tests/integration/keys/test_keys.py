"""Keys in the token: made, read back, found, told apart and destroyed."""

from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.errors import (
    AlgorithmUnsupported,
    Internal,
    KeyAmbiguous,
    KeyMissing,
    KeyNotProtected,
)
from gatewayd.keys import objects
from gatewayd.keys.base import TokenState
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import SoftHsm
from tests.support.token_thread import TokenThreads

from .conftest import Token, on_both_tokens
from .support import ECDSA


@on_both_tokens
async def test_keys_of_each_algorithm_are_made_and_found(keys: Pkcs11KeyStore) -> None:
    for algorithm in KeyAlgorithm:
        key_id = algorithm.encode()
        public_key = await keys.generate(key_id, "a key", algorithm)
        assert public_key.key_size == int(algorithm.rpartition("-")[2].removeprefix("p"))
        assert await keys.generate(key_id, "a key", algorithm) == public_key
        assert await keys.find(public_key) == KeyRef(key_id, algorithm)
    made = [each for each in await keys.objects() if each.kind == "private-key"]
    assert {each.algorithm for each in made} == set(KeyAlgorithm)
    assert {(each.sensitive, each.extractable, each.local) for each in made} == {(True, False, True)}


@on_both_tokens
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048])
async def test_a_key_is_made_in_the_token_and_cannot_leave_it(
    keys: Pkcs11KeyStore, token: Token, algorithm: KeyAlgorithm
) -> None:
    await keys.generate(b"\x01\x02", "gw-1 generation 1", algorithm)
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
