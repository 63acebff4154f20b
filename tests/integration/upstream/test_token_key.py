"""HubLink with a key that never leaves the token: the daemon's real way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.errors import HubUnreachable
from gatewayd.keys import tls
from gatewayd.keys.token import Pkcs11KeyStore
from gatewayd.upstream.base import LinkState
from gatewayd.upstream.device import HubLink
from gatewayd.upstream.registry import HubRegistry
from tests.support.lab import Lab
from tests.support.softhsm import SoftHsm

from .conftest import GATEWAY, Credentials


@pytest.fixture
async def keys(softhsm: SoftHsm) -> AsyncIterator[Pkcs11KeyStore]:
    store = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin)
    await store.open()
    yield store
    await store.close()


async def test_each_kind_of_key_connects_and_a_token_that_is_gone_does_not(
    keys: Pkcs11KeyStore, lab: Lab, registry: HubRegistry, credentials: Credentials
) -> None:
    await registry.ensure(GATEWAY)
    link = HubLink(lab.address, GATEWAY, tls.bind, lab.web_root.read_text(), 5.0)
    for number, algorithm in enumerate((KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048)):
        ref = KeyRef(bytes([number + 1]), algorithm)
        public = await keys.generate(ref.id, f"hub-{number}", algorithm)
        credential = credentials.make(key=keys.private_key(ref, public))
        await link.connect(credential)
        await link.report({"gatewayd": {"certificate": {"generation": number}}})
        current = [each for each in lab.get("hub", "/lab/connections")["current"] if each["deviceId"] == GATEWAY]
        assert [int(each["serial"], 16) for each in current] == [credential.certificate.serial_number]

    await keys.close()
    with pytest.raises(HubUnreachable, match="TLS failed"):
        await link.connect(credential)
    assert link.status().state is LinkState.UNREACHABLE
    await link.close()
