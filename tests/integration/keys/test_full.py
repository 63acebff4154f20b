"""A token that has no room for another key."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pkcs11
import pytest

from gatewayd.core.model import KeyAlgorithm
from gatewayd.errors import TokenFull
from gatewayd.keys.base import TokenState
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.mounts import PRIVATE_MOUNTS
from tests.support.softhsm import SoftHsm
from tests.support.token_thread import TokenThreads

from .conftest import Token, on_both_tokens
from .support import ECDSA, ec_key


class Full:
    """A session with a token whose memory is taken up."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def generate_keypair(self, *_: object, **__: object) -> None:
        raise pkcs11.DeviceMemory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


async def test_a_token_that_says_that_it_is_full_is_believed(near_keys: Pkcs11KeyStore, threads: TokenThreads) -> None:
    key = await ec_key(near_keys)
    session = threads.connection._session
    threads.connection._session = Full(session)
    with pytest.raises(TokenFull, match="no room for key 6f6e65") as caught:
        await near_keys.generate(b"one", "one", KeyAlgorithm.RSA_2048)
    assert "Make room" in caught.value.remedy
    assert near_keys.status().state is TokenState.READY
    key.sign(b"data", ECDSA)
    threads.connection._session = session
    await near_keys.generate(b"one", "one", KeyAlgorithm.RSA_2048)
    assert len(threads.started) == 1


if PRIVATE_MOUNTS is not None:  # elsewhere there is no disk to be filled

    @on_both_tokens
    def test_a_token_whose_disk_is_full_goes_on_signing_and_makes_keys_once_there_is_room(token: Token) -> None:
        """The module says that a function failed, or that there was a general error, and no more."""
        place = token.tokens if isinstance(token, SoftHsm) else token.sim.store
        child = [sys.executable, "-m", "tests.integration.keys.full_token", str(token.module), token.uri, str(place)]
        command = [*(PRIVATE_MOUNTS or []), *child]
        pin = f"{token.pin_text}\n"
        done = subprocess.run(
            command, env=token.env, input=pin, capture_output=True, text=True, timeout=60, umask=0o077
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["error"], report["state"]) == ("TokenFull", "ready")
        assert report["message"].endswith(f": the disk is full under {place}.")
        assert "loaded afresh" not in done.stderr
