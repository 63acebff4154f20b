"""One fake for each port that services stand before; the store is the real one.

Each does its work in memory and can be told to fail, before the work or after it, or to be held in the middle: that is
all the ways in which a wire, a token or a power cut can disappoint. ``asyncio.CancelledError`` as a failure is a crash
at that very point: the engine's task ends there, and the store holds what was written before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gatewayd.ca.base import CertificateRequest, Holder, Issued, Working
from gatewayd.core.clock import Verdict
from gatewayd.core.model import KeyAlgorithm, KeyRef, RevocationReason
from gatewayd.errors import IssuerRejected, KeyMissing
from gatewayd.keys.base import PrivateKey, PublicKey, TokenObject, TokenState, TokenStatus
from gatewayd.keys.pin import Pin
from gatewayd.keys.signer import TokenEcKey, TokenRsaKey
from gatewayd.pki import certificates
from gatewayd.pki.csr import public_key_sha256
from gatewayd.pki.names import general_name
from gatewayd.services.clock import ClockStatus
from tests.support.authority import CLIENT, SERVER, Authority

START = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)


class FakeClock:
    def __init__(self, start: datetime = START) -> None:
        self.time = start
        self.right = True
        self.throw = 0.5

    def now(self) -> datetime:
        return self.time

    def sane(self) -> bool:
        return self.right

    def dice(self) -> float:
        return self.throw

    def status(self) -> ClockStatus:
        verdict = Verdict.SANE if self.right else Verdict.BEHIND
        return ClockStatus(verdict, False, self.time, self.time, self.time)

    def advance(self, **by: float) -> None:
        self.time += timedelta(**by)


@dataclass
class Hold:
    """A call that was stopped in its middle."""

    after: bool
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def stop(self) -> None:
        self.reached.set()
        await self.released.wait()


@dataclass
class _Failure:
    error: BaseException
    after: bool
    times: int | None


class Faults:
    """What the next calls of a port do instead of succeeding."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._failures: dict[str, list[_Failure]] = {}
        self._holds: dict[str, Hold] = {}

    def fail(self, call: str, error: BaseException, *, after: bool = False, times: int | None = 1) -> None:
        """``after``: the work is done all the same; ``times`` None: for good."""
        self._failures.setdefault(call, []).append(_Failure(error, after, times))

    def hold(self, call: str, *, after: bool = False) -> Hold:
        """Stop the next ``call`` in its middle, before or after its work."""
        hold = self._holds[call] = Hold(after)
        return hold

    def mend(self) -> None:
        self._failures.clear()
        self._holds.clear()

    def count(self, call: str) -> int:
        return Counter(self.calls)[call]

    @asynccontextmanager
    async def around(self, call: str) -> AsyncIterator[None]:
        self.calls.append(call)
        failure = self._next(call)
        hold = self._holds.pop(call, None)
        if hold is not None and not hold.after:
            await hold.stop()
        if failure is not None and not failure.after:
            raise failure.error
        yield
        if hold is not None and hold.after:
            await hold.stop()
        if failure is not None:
            raise failure.error

    def _next(self, call: str) -> _Failure | None:
        for failure in self._failures.get(call, []):
            if failure.times is not None:
                failure.times -= 1
                if failure.times == 0:
                    self._failures[call].remove(failure)
            return failure
        return None


class FakeIssuer:
    """A CA that keeps account of each certificate it has ever minted."""

    can_find = True

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.authority = Authority("Fake", clock.now)
        self.faults = Faults()
        self.minted: list[x509.Certificate] = []
        self.revoked: dict[str, RevocationReason] = {}
        self.lifetime = timedelta(days=30)
        self.working: list[Working] = []
        """What to answer instead of a certificate, in turn."""
        self.spoil: dict[str, Any] = {}
        """Arguments of Authority.leaf for the next certificate, which make it another one than was asked for."""

    def serials(self) -> list[str]:
        return [certificates.serial_hex(each) for each in self.minted]

    async def issue(self, request: CertificateRequest) -> Issued | Working:
        async with self.faults.around("issue"):
            return self._mint(request)

    async def renew(self, request: CertificateRequest, holder: Holder) -> Issued | Working:
        async with self.faults.around("renew"):
            if certificates.serial_hex(holder.certificate) in self.revoked:
                raise IssuerRejected("The certificate has been revoked.")
            return self._mint(request)

    def _mint(self, request: CertificateRequest) -> Issued | Working:
        if self.working:
            return self.working.pop(0)
        key = x509.load_der_x509_csr(request.csr).public_key()
        wanted: dict[str, Any] = {
            "device_id": request.device_id,
            "names": [general_name(each) for each in request.sans],
            "purposes": (CLIENT, SERVER) if request.server_auth else (CLIENT,),
            "lasts": self.lifetime,
        }
        spoiled, self.spoil = self.spoil, {}
        certificate = self.authority.leaf(key, **(wanted | spoiled))
        self.minted.append(certificate)
        return Issued(certificate, self.authority.chain)

    async def find(self, request: CertificateRequest) -> Issued | None:
        async with self.faults.around("find"):
            key = public_key_sha256(x509.load_der_x509_csr(request.csr).public_key())
            for each in reversed(self.minted):
                alive = (
                    self._clock.now() < each.not_valid_after_utc and certificates.serial_hex(each) not in self.revoked
                )
                if alive and certificates.public_key_sha256_of(each) == key:
                    return Issued(each, self.authority.chain)
            return None

    async def alive(self, device_id: str) -> tuple[x509.Certificate, ...]:
        async with self.faults.around("alive"):
            return tuple(
                each
                for each in self.minted
                if certificates.common_name(each) == device_id
                and certificates.serial_hex(each) not in self.revoked
                and self._clock.now() < each.not_valid_after_utc
            )

    async def revoke(self, certificate: x509.Certificate, reason: RevocationReason) -> str:
        async with self.faults.around("revoke"):
            self.revoked[certificates.serial_hex(certificate)] = reason
            return "revoked by the fake CA"

    async def anchors(self) -> tuple[x509.Certificate, ...]:
        return self.authority.chain


class FakeKeyStore:
    """Keys in memory; ``clear`` is what a TPM clear does."""

    def __init__(self, clock: FakeClock) -> None:
        self.faults = Faults()
        self.keys: dict[bytes, tuple[str, KeyAlgorithm, PrivateKey]] = {}
        self._status = TokenStatus(TokenState.READY, "fake", "01", "Fake", "Fakes", "/fake.so", "", clock.now())

    def clear(self) -> None:
        self.keys.clear()

    def say(self, state: TokenState) -> None:
        self._status = replace(self._status, state=state)

    def offer(self, *algorithms: KeyAlgorithm) -> None:
        """What the token says that it can make."""
        self._status = replace(self._status, algorithms=algorithms)

    async def open(self) -> None:
        async with self.faults.around("open"):
            pass

    async def unlock(self, pin: Pin, *, final_try: bool = False) -> None:
        async with self.faults.around("unlock"):
            self.say(TokenState.READY)

    async def initialize(self, pin: Pin) -> None:
        async with self.faults.around("initialize"):
            self.say(TokenState.READY)

    async def close(self) -> None:
        pass

    def status(self) -> TokenStatus:
        return self._status

    async def generate(self, key_id: bytes, label: str, algorithm: KeyAlgorithm) -> PublicKey:
        async with self.faults.around("generate"):
            if key_id not in self.keys:
                self.keys[key_id] = (label, algorithm, _make(algorithm))
            return self.keys[key_id][2].public_key()

    def private_key(self, ref: KeyRef, public_key: PublicKey) -> PrivateKey:
        if ref.id in self.keys and self.keys[ref.id][2].public_key() == public_key:
            return self.keys[ref.id][2]
        kind = TokenRsaKey if isinstance(public_key, rsa.RSAPublicKey) else TokenEcKey
        return kind(public_key, _missing)  # type: ignore[arg-type]

    async def find(self, public_key: PublicKey) -> KeyRef | None:
        for key_id, (_, algorithm, key) in self.keys.items():
            if key.public_key() == public_key:
                return KeyRef(key_id, algorithm)
        return None

    async def destroy(self, key_id: bytes) -> None:
        async with self.faults.around("destroy"):
            self.keys.pop(key_id, None)

    async def objects(self) -> list[TokenObject]:
        async with self.faults.around("objects"):
            return [
                TokenObject("private-key", key_id, label, algorithm, sensitive=True, extractable=False, local=True)
                for key_id, (label, algorithm, _) in self.keys.items()
            ]


def _missing(*_: object) -> bytes:
    raise KeyMissing("The key is not in the token.")


def _make(algorithm: KeyAlgorithm) -> PrivateKey:
    if algorithm.is_rsa:
        return rsa.generate_private_key(65537, 2048 if algorithm is KeyAlgorithm.RSA_2048 else 3072)
    return ec.generate_private_key(ec.SECP384R1() if algorithm is KeyAlgorithm.EC_P384 else ec.SECP256R1())


class FakeAttester:
    """A TPM that says little."""

    async def attest(self, key_id: bytes, nonce: bytes) -> dict[str, bytes]:
        return {"key.name": key_id, "quote.msg": nonce}

    async def activate(self, challenge: bytes) -> bytes:
        return challenge[::-1]


class FakeTokens:
    """A TokenSource."""

    def __init__(self) -> None:
        self.faults = Faults()

    async def token(self, scope: str) -> str:
        async with self.faults.around("token"):
            return f"token for {scope}"
