"""What happens to a TPM."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.errors import (
    KeyMissing,
    TokenFault,
    TokenUnusable,
)
from gatewayd.keys.base import TokenState
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.tpm import TpmToken

from .support import ECDSA


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
