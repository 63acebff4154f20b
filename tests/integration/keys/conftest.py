"""A key store on a token of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from gatewayd.keys.base import KeyStore
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.softhsm import SoftHsm, softhsm, softhsm_template

__all__ = ["keys", "softhsm", "softhsm_template"]


@pytest_asyncio.fixture
async def keys(softhsm: SoftHsm) -> AsyncIterator[Pkcs11KeyStore]:
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin)
    port: KeyStore = store  # the type checker holds the store to its port
    await port.open()
    yield store
    await store.close()
