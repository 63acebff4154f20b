"""A key store on a token of its own: SoftHSM's, and for tests that are marked ``on_both_tokens`` a TPM's too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gatewayd.keys.base import KeyStore
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import SoftHsm, softhsm, softhsm_template
from tests.support.token_thread import TokenThreads
from tests.support.tpm import TpmToken, tpm, tpm_template

__all__ = ["keys", "near_keys", "softhsm", "softhsm_template", "threads", "token", "tpm", "tpm_template"]

Token = SoftHsm | TpmToken

on_both_tokens = pytest.mark.parametrize("token", ["softhsm", "tpm"], indirect=True)


@pytest.fixture
def token(request: pytest.FixtureRequest) -> Token:
    made: Token = request.getfixturevalue(getattr(request, "param", "softhsm"))
    return made


@pytest_asyncio.fixture
async def keys(token: Token) -> AsyncIterator[Pkcs11KeyStore]:
    store = Pkcs11KeyStore(token.module, token.uri, token.pin)
    port: KeyStore = store  # the type checker holds the store to its port
    await port.open()
    yield store
    await store.close()


@pytest.fixture
def threads() -> TokenThreads:
    return TokenThreads()


@pytest_asyncio.fixture
async def near_keys(softhsm: SoftHsm, threads: TokenThreads) -> AsyncIterator[Pkcs11KeyStore]:
    """A key store whose token is served by a thread of this process: to be tampered with."""
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin, spawn=threads.spawn)
    await store.open()
    yield store
    await store.close()
