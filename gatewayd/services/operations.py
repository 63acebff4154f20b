"""What an administrator may do (control.base.Operations): check, write the intent down, hand it to the loops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..ca.base import Issuer
from ..core import lifecycle
from ..core import replacement as swap
from ..core import revocation as table
from ..core.listing import Wanted
from ..core.model import (
    CredentialState,
    Device,
    DeviceState,
    JournalEntry,
    KeyAlgorithm,
    RevocationReason,
)
from ..errors import (
    DeviceHealthy,
    DeviceRevoked,
    DeviceUnknown,
    GatewayError,
    InvalidArgument,
    KeyMissing,
    NotBootstrapped,
    all_errors,
)
from ..keys.base import KeyStore
from ..pki import pem
from ..store.base import Store, Tx
from . import generations, revoking
from .audit import AuditTrail
from .clock import Clock, require
from .credentials import CredentialEngine
from .doctor import Doctor
from .events import Events, Progress, telling
from .leaves import Leaves
from .maintenance import Maintenance
from .registrar import Registrar
from .status import StatusReader
from .steps import FACTORY, GatewaySteps
from .swaps import Swaps
from .technician import Technicians
from .token_keeper import algorithm_refusal
from .token_operations import Caller, TokenOperations
from .transfers import Transfers

Data = dict[str, Any]


Work = Callable[[Progress], Awaitable[Data]]


class Operations:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        keys: KeyStore,
        engine: CredentialEngine,
        steps: GatewaySteps,
        registrar: Registrar,
        reader: StatusReader,
        bootstrap_issuer: Callable[[str], Issuer],
        trust_clock: Callable[[], Awaitable[None]],
        gateway_id: str,
        algorithm: KeyAlgorithm,
        swaps: Swaps,
        try_ca: Callable[[], None],
        ring: Callable[[], None],
        token: TokenOperations,
        maintenance: Maintenance,
        audit: AuditTrail,
        doctor: Doctor,
        page: Technicians,
        leaves: Leaves,
        transfers: Transfers,
    ) -> None:
        """``bootstrap_issuer`` makes the CA's port with a person's token; ``trust_clock`` takes the machine's time as
        right; ``try_ca`` lets the next request to the CA through even if it is being left alone; ``ring`` wakes the
        loops."""
        self._store = store
        self._clock = clock
        self._events = events
        self._keys = keys
        self._engine = engine
        self._steps = steps
        self._registrar = registrar
        self._reader = reader
        self._bootstrap_issuer = bootstrap_issuer
        self._trust_clock = trust_clock
        self._gateway_id = gateway_id
        self._algorithm = algorithm
        self._swaps = swaps
        self._try_ca = try_ca
        self._ring = ring
        self.token = token
        self.maintenance = maintenance
        self._audit = audit
        self._doctor = doctor
        self.page = page
        self.leaves = leaves
        self._transfers = transfers

    # --- reads -----------------------------------------------------------------------------------

    async def status(self) -> Data:
        return await self._reader.status()

    async def device_list(self, wanted: Wanted, room: int | None = None) -> list[Data]:
        return await self._reader.device_list(wanted, room)

    async def device_row(self, device_id: str) -> Data:
        return await self._reader.device_row(device_id)

    async def device_show(self, device_id: str) -> Data:
        return await self._reader.device_show(device_id)

    async def registrar_certificate(self, caller: Caller) -> str:
        return pem.encode([await self._registrar.to_upload()])

    async def diagnose(self) -> list[Data]:
        return await self._doctor.diagnose()

    async def audit_verify(self, caller: Caller) -> Data:
        return await self._audit.verify()

    async def clock_trust(self, caller: Caller) -> Data:
        await self._trust_clock()
        entry = JournalEntry(self._clock.now(), self._gateway_id, _who(caller), "clock trusted", "done")
        await self._store.write(lambda tx: tx.journal.append(entry))
        self._events.publish(entry)
        self._ring()
        status: Data = (await self._reader.status())["clock"]
        return status

    # --- leaves ----------------------------------------------------------------------------------

    async def device_add(
        self,
        caller: Caller,
        device_id: str,
        sans: list[str],
        code_lifetime: int,
        manufacturer: str = "",
        serial: str = "",
    ) -> Data:
        return await self.leaves.add(caller, device_id, sans, code_lifetime, manufacturer, serial)

    async def device_code(self, caller: Caller, device_id: str, code_lifetime: int) -> Data:
        return await self.leaves.new_code(caller, device_id, code_lifetime)

    async def device_replace(
        self,
        caller: Caller,
        device_id: str,
        reason: str,
        code_lifetime: int,
        manufacturer: str = "",
        serial: str = "",
    ) -> tuple[Data, Work]:
        binding = self.leaves.binding(manufacturer, serial)
        require(self._clock)
        data = await self._swaps.begin(_who(caller), device_id, reason, code_lifetime, binding)
        return data, lambda progress: self._swaps.follow(device_id, progress)

    async def device_replace_cancel(self, caller: Caller, device_id: str) -> Data:
        return await self._swaps.cancel(_who(caller), device_id)

    # --- the gateway's certificate ---------------------------------------------------------------

    async def export(self, caller: Caller) -> str:
        return await self._transfers.export(_who(caller))

    async def adopt(self, caller: Caller, text: str, reason: str, max_age: int, token: str) -> Work:
        """Then the new hardware's certificate: with a person's token where there is one, or as registrar."""
        await self._transfers.adopt(_who(caller), text, reason, max_age)
        if token:
            await self.bootstrap(caller, token)
        else:
            await self._refuse_bootstrapped()
            self._engine.start(self._gateway_id, await self._begin(caller, "bootstrap", self._algorithm))
        return lambda progress: self._swaps.follow(self._gateway_id, progress)

    async def bootstrap(self, caller: Caller, token: str) -> Work:
        if not token or len(token) > 16384 or not token.isascii() or any(each.isspace() for each in token):
            raise InvalidArgument("That is not a bearer token.")
        await self._refuse_bootstrapped()
        # Before the intent is written: from then on the loop may be the one that drives it.
        self._steps.bootstrap = issuer = self._bootstrap_issuer(token)

        def forget(_: object) -> None:
            if self._steps.bootstrap is issuer:
                self._steps.bootstrap = None

        try:
            generation = await self._begin(caller, "bootstrap", self._algorithm)
        except GatewayError:
            forget(None)
            raise
        self._engine.start(self._gateway_id, generation).add_done_callback(forget)
        return lambda progress: self._drive(generation, progress)

    async def bootstrap_with_certificate(self, caller: Caller, text: str) -> Work:
        await self._refuse_bootstrapped()
        try:
            chain = pem.certificates(text)
        except GatewayError as error:
            raise InvalidArgument(f"No certificate can be read: {error.message}") from None
        if not chain:
            raise InvalidArgument("There is no PEM certificate in it.")
        public_key = chain[0].public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise InvalidArgument("The certificate's key is neither EC nor RSA.")
        if chain[0].not_valid_after_utc <= self._clock.now():
            raise InvalidArgument(f"The certificate expired at {chain[0].not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}.")
        ref = await self._keys.find(public_key)
        if ref is None:
            raise KeyMissing("The token holds no private key for this certificate.", device=self._gateway_id)
        kept = json.dumps({"key_id": ref.id.hex(), "algorithm": ref.algorithm, "certificates": pem.encode(chain)})
        # Used only while there is no certificate of its own, and so of no consequence should _begin refuse.
        self._steps.factory = self._steps.with_key(chain[0], chain[1:], ref)
        generation = await self._begin(caller, "bootstrap from a certificate", self._algorithm, factory=kept)
        return lambda progress: self._drive(generation, progress)

    async def renew(self, caller: Caller, device_id: str, key_algorithm: str) -> Work:
        try:
            algorithm = KeyAlgorithm(key_algorithm) if key_algorithm else self._algorithm
        except ValueError:
            known = ", ".join(KeyAlgorithm)
            raise InvalidArgument(f"{key_algorithm!r} is not a key algorithm ({known}).") from None
        if device_id != self._gateway_id:
            await self._store.read(lambda tx: _known(tx, device_id))
            raise InvalidArgument(f"{device_id} renews by itself over EST: only it has its key.")
        if await self._store.read(lambda tx: tx.credentials.current(device_id)) is None:
            raise NotBootstrapped(f"{device_id} has no certificate yet.", device=device_id)
        require(self._clock)
        self._try_ca()
        generation = await self._begin(caller, "renewal", algorithm)
        return lambda progress: self._drive(generation, progress)

    async def _refuse_bootstrapped(self) -> None:
        require(self._clock)
        current = await self._store.read(lambda tx: tx.credentials.current(self._gateway_id))
        if current is None or current.not_after is None or current.not_after <= self._clock.now():
            return
        if await self._steps.has_key(self._steps.as_link(current)):
            raise InvalidArgument(f"{self._gateway_id} has a valid certificate; 'gatewayctl renew' renews it.")

    async def _begin(self, caller: Caller, what: str, algorithm: KeyAlgorithm, *, factory: str | None = None) -> int:
        if refusal := algorithm_refusal(self._keys.status(), algorithm):
            raise refusal
        now = self._clock.now()

        def work(tx: Tx) -> tuple[int, JournalEntry]:
            record = _known(tx, self._gateway_id)
            if record.state is DeviceState.REVOKED:
                raise DeviceRevoked(f"{self._gateway_id} has been revoked.", device=self._gateway_id)
            if factory is not None:
                tx.settings.set(FACTORY, factory)
            credential = generations.begin(tx, record, algorithm, now)
            words = f"generation {credential.generation}"
            entry = JournalEntry(now, self._gateway_id, _who(caller), what, "done", words)
            tx.journal.append(entry)
            return credential.generation, entry

        generation, entry = await self._store.write(work)
        self._events.publish(entry)
        return generation

    async def _drive(self, generation: int, progress: Progress) -> Data:
        with self._events.listening(self._gateway_id, telling(progress)):
            driven = await self._engine.drive(self._gateway_id, generation)
            if driven.error is None and driven.credential.state in lifecycle.UNFINISHED:
                # It joined a drive that was about to end when this one was asked for.
                driven = await self._engine.drive(self._gateway_id, generation)
        self._ring()
        if driven.error is not None:
            raise driven.error
        if driven.credential.state is not CredentialState.CURRENT:
            raise _as_error(driven.credential.last_error, self._gateway_id)
        shown = await self._reader.device_show(self._gateway_id)
        result: Data = shown["device"]
        return result

    # --- revocation ------------------------------------------------------------------------------

    async def revoke(self, caller: Caller, device_id: str, reason: str) -> Work:
        return await self.revoke_for(_who(caller), device_id, reason)

    async def revoke_for(self, who: str, device_id: str, reason: str) -> Work:
        """The same, in the name of ``who``: also for one who is not on this machine."""
        try:
            why = RevocationReason(reason)
        except ValueError:
            known = ", ".join(RevocationReason)
            raise InvalidArgument(f"{reason!r} is not a reason for a revocation ({known}).") from None
        now = self._clock.now()

        def work(tx: Tx) -> list[JournalEntry]:
            record, current = _known(tx, device_id), tx.credentials.current(device_id)
            if why is RevocationReason.SUPERSEDED and swap.is_healthy(record, current, now):
                raise DeviceHealthy(
                    f"{device_id} is healthy, and nothing supersedes its certificate.", device=device_id
                )
            return revoking.revoke_device(tx, device_id, why, who, now)

        entries = await self._store.write(work)
        self._events.publish(*entries)
        self._try_ca()
        self._ring()
        return lambda progress: self._follow(device_id, entries, progress)

    async def _follow(self, device_id: str, entries: list[JournalEntry], progress: Progress) -> Data:
        """Tell each milestone as it comes, until all of the device's revocations are closed."""
        changed = asyncio.Event()
        tell = telling(progress)
        told: set[str] = set()

        def listener(entry: JournalEntry) -> None:
            tell(entry)
            if entry.outcome == "done":  # nothing else closes anything
                changed.set()
                told.add(entry.what)

        for entry in entries:
            listener(entry)
        with self._events.listening(device_id, listener):
            while True:
                changed.clear()
                unfinished, records = await self._store.read(
                    lambda tx: (generations.unfinished_of(tx, device_id), tx.revocations.all(device_id))
                )
                if not unfinished and all(table.is_closed(each) for each in records):
                    break
                await changed.wait()
        for record in records:  # what was seen written down before it was announced
            for milestone, done in record.progress.items():
                if milestone not in told:
                    progress(milestone, "done", done.evidence or "")
        shown = await self._reader.device_show(device_id)
        return {"device": shown["device"], "revocations": shown["revocations"]}


def _who(caller: Caller) -> str:
    return f"uid:{caller.uid}"


def _known(tx: Tx, device_id: str) -> Device:
    record = tx.devices.get(device_id)
    if record is None:
        raise DeviceUnknown(f"There is no device {device_id!r}.", device=device_id)
    return record


def _as_error(last_error: str | None, device_id: str) -> GatewayError:
    """A recorded failure as the error it was."""
    name, _, sentence = (last_error or "Internal: it did not finish.").partition(": ")
    return all_errors().get(name, GatewayError)(sentence, device=device_id)
