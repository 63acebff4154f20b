"""The key store over a PKCS#11 token."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import Mechanism

from ..core.model import KeyAlgorithm, KeyRef
from ..errors import ConfigInvalid, TokenTimeout
from . import objects
from .base import PrivateKey, PublicKey, TokenObject, TokenStatus
from .connection import TokenConnection, utc_now
from .pin import Pin
from .signer import Scheme, TokenEcKey, TokenRsaKey
from .uri import parse
from .worker import Priority, Worker

T = TypeVar("T")

_MECHANISMS: Final = MappingProxyType(
    {
        Scheme.ECDSA: Mechanism.ECDSA,
        Scheme.RSA_PKCS1: Mechanism.RSA_PKCS,
        Scheme.RSA_RAW: Mechanism.RSA_X_509,
    }
)


class Pkcs11KeyStore:
    """``keys.base.KeyStore`` over python-pkcs11, all calls in one worker thread.

    One store for a module in a process: C_Initialize and C_Finalize belong to the whole process. Never fork without
    exec once it is open (``subprocess`` is fine).
    """

    def __init__(
        self,
        module: Path,
        uri: str,
        pin: Pin | None,
        *,
        timeout: float = 15.0,
        queue_size: int = 64,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``uri`` (RFC 7512) says which token; a module-path in it goes before ``module``. ``timeout`` is in
        seconds, for each call and its time in the queue. Raises ConfigInvalid."""
        wanted = parse(uri)
        if any(each is not None for each in (wanted.object, wanted.type, wanted.id, wanted.module_name)):
            raise ConfigInvalid("the token's PKCS#11 URI must name a token: no object, type, id or module-name")
        if wanted.module_path is not None:
            module = Path(wanted.module_path)
        self._connection = TokenConnection(module, wanted, pin, clock=clock, monotonic=monotonic)
        self._worker = Worker(timeout=timeout, queue_size=queue_size)

    async def open(self) -> None:
        await self._housekeeping(lambda session: None)

    async def close(self) -> None:
        await self._worker.stop(self._connection.close)

    def status(self) -> TokenStatus:
        return self._connection.status

    async def generate(self, key_id: bytes, label: str, algorithm: KeyAlgorithm) -> PublicKey:
        return await self._housekeeping(lambda session: objects.generate(session, key_id, label, algorithm))

    def private_key(self, ref: KeyRef, public_key: PublicKey) -> PrivateKey:
        """Its TLS signatures go before its other ones: what a signature is for follows from how it is asked."""
        sign = partial(self._sign, ref.id)
        if isinstance(public_key, rsa.RSAPublicKey):
            return TokenRsaKey(public_key, sign)
        return TokenEcKey(public_key, sign)

    async def find(self, public_key: PublicKey) -> KeyRef | None:
        found = await self._housekeeping(lambda session: objects.find(session, public_key))
        return KeyRef(*found) if found else None

    async def destroy(self, key_id: bytes) -> None:
        def work(session: Any) -> None:
            self._connection.forget(key_id)
            objects.destroy(session, key_id)

        await self._housekeeping(work)

    async def objects(self) -> list[TokenObject]:
        return await self._housekeeping(objects.inventory)

    async def _housekeeping(self, work: Callable[[Any], T]) -> T:
        try:
            return await self._worker.acall(Priority.HOUSEKEEPING, lambda: self._connection.run(work))
        except TokenTimeout as error:
            self._connection.unresponsive(error.message)
            raise

    def _sign(self, key_id: bytes, scheme: Scheme, data: bytes, priority: Priority) -> bytes:
        def work(session: Any) -> bytes:
            signature: bytes = self._connection.private_key(key_id).sign(data, mechanism=_MECHANISMS[scheme])
            return signature

        try:
            return self._worker.call(priority, lambda: self._connection.run(work))
        except TokenTimeout as error:
            self._connection.unresponsive(error.message)
            raise
