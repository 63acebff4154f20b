"""The key store over a PKCS#11 token, whose module runs in a process of its own (helper.py).

What is tried again by itself and what is not. After a fault that a fresh start of the module may cure (its crash and
its hanging among them) the process is ended and another one started, at most once in 30 s, and the call is made once
more. The PIN is tried once for each process as long as it is accepted; once refused it is never tried again, whatever
is restarted, until a person gives one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from ..core.model import KeyAlgorithm, KeyRef
from ..errors import (
    ConfigInvalid,
    GatewayError,
    PinMissing,
    PinRefused,
    TokenBusy,
    TokenError,
    TokenExists,
    TokenFault,
    TokenModuleBroken,
    TokenTimeout,
    TokenUnusable,
)
from ..messages import kind
from . import public
from .base import Priority, PrivateKey, PublicKey, Scheme, TokenObject, TokenState, TokenStatus
from .exchange import ALONE, Arguments, Called, Exchange, Lost, token_object
from .pin import Pin
from .process import HelperProcess, Spawn
from .signer import TokenEcKey, TokenRsaKey
from .turns import Turns
from .uri import parse_token

log = logging.getLogger(__name__)

RELOAD_INTERVAL: Final = 30.0
"""Seconds: a broken device is not made whole by haste, and each fresh start is a login."""

LOGIN_INTERVALS: Final = (30.0, 3600.0)
"""Seconds from a login that failed, though not because of the PIN, to the next, the first time and at most; it doubles
each time. With keys of another TPM, or of this one before it was cleared, each login counts as a wrong password in the
TPM, which locks after some; more slowly than that it forgets them."""

_HANGING: Final = 4
"""A process that owes an answer for so many times the time limit is killed. Not sooner: a token that was only slow, or
frozen for a while, goes on where it was, and a module that is killed may leave its sessions in a TPM."""

_MAY_BE_MADE: Final = (TokenState.ABSENT, TokenState.PIN_MISSING, TokenState.UNUSABLE)
"""When a token that is to be made is looked for once more; it is not made where there is one."""

_PLACES: Final = {scheme: place for place, scheme in enumerate(Scheme)}

T = TypeVar("T")


class _Curable(Exception):
    """A fresh start of the module may cure it."""

    def __init__(self, error: TokenError) -> None:
        self.error = error


class Pkcs11KeyStore:
    """``keys.base.KeyStore`` over one token. Its callers take turns (turns.py); each store has a process of its own,
    so that several tokens are several stores, of one module or of several."""

    def __init__(
        self,
        module: Path,
        uri: str,
        pin: Pin | None,
        *,
        timeout: float = 15.0,
        queue_size: int = 64,
        spawn: Spawn = HelperProcess,
        called: Called = lambda *_: None,
    ) -> None:
        """``uri`` (RFC 7512) says which token; a module-path in it goes before ``module``. ``timeout`` is in
        seconds, for each call and its time in the queue. Raises ConfigInvalid."""
        wanted = parse_token(uri)
        self._module = Path(wanted.module_path) if wanted.module_path is not None else module
        self._uri = wanted
        self._pin = pin
        self._timeout = timeout
        self.turns = Turns(queue_size)
        self._queue_size = queue_size
        self._threads = ThreadPoolExecutor(max_workers=queue_size + 2, thread_name_prefix="token")  # one to close it
        self._threads_busy = 0
        self._pid = os.getpid()
        self._exchange = Exchange(partial(spawn, self._module, wanted), called)
        self._open = False
        self._closed = False
        self._started = False
        self._reloaded_at: float | None = None
        self._unusable: TokenUnusable | None = None
        self._login_not_before = 0.0
        self._login_interval = 0.0
        self._refused: str | None = None
        self._pin_accepted = False
        self._status = TokenStatus.of_unopened(wanted.token, wanted.serial, self._module, datetime.now(UTC))

    # --- the port --------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Start the token's process ahead of its first use: it comes up while the daemon does."""
        with self.turns.take(Priority.HOUSEKEEPING, self._timeout):
            if self._exchange.process is None and self._pin is not None:
                self._start()

    async def open(self) -> None:
        await self._background(self._call, Priority.HOUSEKEEPING, None)

    async def unlock(self, pin: Pin, *, final_try: bool = False) -> None:
        await self._background(self._unlock, pin, final_try)

    async def initialize(self, pin: Pin) -> None:
        await self._background(self._initialize, pin)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._threads, self._close)
            self._threads.shutdown(wait=False)

    def status(self) -> TokenStatus:
        return self._status

    async def generate(self, key_id: bytes, label: str, algorithm: KeyAlgorithm) -> PublicKey:
        return public.from_numbers(
            await self._housekeeping("generate", id=key_id.hex(), label=label, algorithm=str(algorithm))
        )

    def private_key(self, ref: KeyRef, public_key: PublicKey) -> PrivateKey:
        """Its TLS signatures go before its other ones: what a signature is for follows from how it is asked."""
        sign = partial(self._sign, ref.id)
        if isinstance(public_key, rsa.RSAPublicKey):
            return TokenRsaKey(public_key, sign)
        return TokenEcKey(public_key, sign)

    async def find(self, public_key: PublicKey) -> KeyRef | None:
        numbers = public.to_numbers(public_key)
        found = await self._housekeeping("find", public=numbers) if numbers is not None else None
        return KeyRef(bytes.fromhex(found[0]), KeyAlgorithm(found[1])) if found else None

    async def destroy(self, key_id: bytes) -> None:
        await self._housekeeping("destroy", id=key_id.hex())

    async def objects(self) -> list[TokenObject]:
        return [token_object(each) for each in await self._housekeeping("objects")]

    async def beside(self, use: Callable[[Pin, float], T]) -> T:
        """``use(pin, deadline)`` in the token's turn, with a PIN that it has accepted: for what goes past the module to
        its device. ``use`` blocks its thread until the deadline (time.monotonic) at most. Raises what it raises."""
        return await self._background(self._beside, use)

    # --- one call --------------------------------------------------------------------------------

    async def _background(self, function: Callable[..., T], *arguments: Any) -> T:
        """A thread for each: one at the token, the others in its queue, and none more than that holds."""
        if self._threads_busy > self._queue_size:
            raise TokenBusy(f"{self._queue_size} calls wait for the token already.")
        self._threads_busy += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        future.add_done_callback(self._thread_free)
        return await asyncio.shield(future)

    def _thread_free(self, _: object) -> None:
        self._threads_busy -= 1

    async def _housekeeping(self, what: str, **arguments: Any) -> Any:
        return await self._background(self._call, Priority.HOUSEKEEPING, what, arguments)

    def _sign(self, key_id: bytes, scheme: Scheme, data: bytes, priority: Priority) -> bytes:
        body = bytes((_PLACES[scheme], len(key_id))) + key_id + data
        made: bytes | str = self._call(priority, "sign", body)
        return made if isinstance(made, bytes) else bytes.fromhex(made)

    def _call(self, priority: Priority, what: str | None, arguments: Arguments = None) -> Any:
        """Open the token where needed and make this request of its process (None: only open). Blocks the thread."""
        if os.getpid() != self._pid:
            raise TokenFault("The token was opened before a fork and cannot be used after it.")
        deadline = time.monotonic() + self._timeout
        sent = 0

        def send_ahead() -> None:
            """A signature is asked for while the one before is made, or while its caller wakes up."""
            nonlocal sent
            if isinstance(arguments, bytes) and self._open:
                sent = self._exchange.send_ahead(arguments)

        with self.turns.take(priority, self._timeout, send_ahead):
            try:
                return self._attempt(what, arguments, deadline, sent)
            except _Curable as curable:
                if not self._may_reload():
                    raise curable.error from None
                log.warning("the token's module is loaded afresh: %s", curable.error, extra=kind("token-reloaded"))
                self._end()
            try:
                return self._attempt(what, arguments, deadline)
            except _Curable as curable:
                raise curable.error from None

    def _attempt(self, what: str | None, arguments: Arguments, deadline: float, sent: int = 0) -> Any:
        """``sent`` is the number of this request where it was sent ahead; it may have been lost since."""
        self._settle(deadline, sent)
        if self._exchange.owes_answer:
            return self._receive(deadline, self.turns.overlapped())
        if not self._open:
            self._log_in(deadline, final_try=False)
        if what is None and self._status.state is not TokenState.READY:
            what = "probe"
        return self._ask(what, arguments, deadline) if what is not None else None

    def _log_in(self, deadline: float, *, final_try: bool) -> None:
        if self._refused is not None:
            self._set(TokenState.PIN_REFUSED, self._refused)
            raise PinRefused(self._refused)
        if self._pin is None:
            message = "The token needs a PIN and none was given."
            self._set(TokenState.PIN_MISSING, message)
            raise PinMissing(message)
        if self._unusable is not None and time.monotonic() < self._login_not_before:
            raise self._unusable
        self._ask("open", {"pin": self._pin.reveal(), "final_try": final_try}, deadline)

    def _unlock(self, pin: Pin, final_try: bool) -> None:
        deadline = time.monotonic() + self._timeout
        with self.turns.take(Priority.HOUSEKEEPING, self._timeout):
            try:
                self._settle(deadline)
                if self._open:
                    return
                self._pin, self._pin_accepted, self._refused, self._unusable = pin, False, None, None
                self._log_in(deadline, final_try=final_try)
            except _Curable as curable:
                raise curable.error from None

    def _initialize(self, pin: Pin) -> None:
        """In a process of its own, because the module is finalised on the way."""
        label = self._uri.token
        if not label or self._uri.serial is not None:
            raise ConfigInvalid("the token's URI must name the token to make, without a serial: pkcs11:token=LABEL")
        deadline = time.monotonic() + self._timeout
        with self.turns.take(Priority.HOUSEKEEPING, self._timeout):
            if self._open or self._status.state not in _MAY_BE_MADE:
                raise TokenExists(f"There is a token {label!r} already; nothing was changed.")
            self._end()
            self._exchange.start()
            self._started = True
            arguments = {"label": label, "pin": pin.reveal()}
            try:
                if not self._ask("initialize", arguments, deadline)["created"]:
                    raise TokenExists(f"There is a token {label!r} already; nothing was changed.")
                self._pin, self._pin_accepted, self._refused, self._unusable = pin, False, None, None
                self._log_in(deadline, final_try=False)
            except _Curable as curable:
                raise curable.error from None

    def _beside(self, use: Callable[[Pin, float], T]) -> T:
        deadline = time.monotonic() + self._timeout
        with self.turns.take(Priority.HOUSEKEEPING, self._timeout):
            try:
                self._attempt(None, None, deadline)
            except _Curable as curable:
                raise curable.error from None
            assert self._pin is not None
            return use(self._pin, deadline)

    def _close(self) -> None:
        with self.turns.last(self._timeout):
            self._end()
            self._set(TokenState.ABSENT, "The token has been closed.")

    # --- one request -----------------------------------------------------------------------------

    def _settle(self, deadline: float, sent: int = 0) -> None:
        """Wait for what earlier callers did not wait for: it may be the answer to a login. When the token is not open
        after it, that to ``sent`` is none either. Raises TokenTimeout, _Curable."""
        while (owed := self._exchange.owes_answer) and not (owed == sent and self._open):
            try:
                self._receive(deadline)
            except TokenTimeout:
                raise
            except GatewayError:
                pass

    def _ask(self, what: str, arguments: Arguments, deadline: float) -> Any:
        """Raises TokenError, _Curable."""
        if self._exchange.process is None:
            self._start()
        try:
            self._exchange.send(what, arguments)
        except Lost as lost:
            raise self._lost(lost) from None
        return self._receive(deadline, self.turns.overlapped() if what == "sign" else ALONE)

    def _receive(self, deadline: float, waiting: AbstractContextManager[None] = ALONE) -> Any:
        """The answer that is owed, and what follows from it. Raises TokenError, _Curable."""
        try:
            answer = self._exchange.receive(deadline, waiting)
        except TimeoutError:
            raise self._too_slow() from None
        except Lost as lost:
            raise self._lost(lost) from None
        if answer.status is not None:
            self._status = answer.status
        if (failure := answer.failure) is None:
            if answer.what == "open":
                self._open = self._pin_accepted = True
                self._unusable, self._login_interval = None, 0.0
            if self._open and self._status.state is not TokenState.READY:
                self._set(TokenState.READY, "")  # what a time limit or a crash had set is over
            return answer.result
        error = failure.error
        self._open = self._open and failure.still_open
        if isinstance(error, PinRefused) and answer.what != "initialize":
            self._refuse(error.message)
        if isinstance(error, TokenUnusable):
            self._put_off_login(error)
        raise _Curable(error) if failure.reload and isinstance(error, TokenError) else error

    def _put_off_login(self, error: TokenUnusable) -> None:
        """And have it made by a fresh process, which sees what has become of the token meanwhile."""
        first, longest = LOGIN_INTERVALS
        self._login_interval = min(max(2 * self._login_interval, first), longest)
        self._login_not_before = time.monotonic() + self._login_interval
        self._unusable = error
        self._end()

    def _refuse(self, message: str) -> None:
        self._refused = message
        log.error("%s It is not tried again.", message)

    def _too_slow(self) -> TokenTimeout:
        error = TokenTimeout(f"The token did not answer within {self._timeout:g} s.")
        if self._exchange.silent_for >= _HANGING * self._timeout:
            log.error("the token's module has been silent for %g s: it is killed", _HANGING * self._timeout)
            self._exchange.kill()
        self._set(TokenState.FAULTY, error.message)
        return error

    def _lost(self, lost: Lost) -> GatewayError | _Curable:
        self._open = False
        message = f"The PKCS#11 module {self._module} {lost.how}."
        if lost.trying_pin and not self._pin_accepted:
            refusal = f"{message} That was while the PIN was tried; whether it was accepted is not known."
            self._refuse(refusal)
            self._set(TokenState.PIN_REFUSED, refusal)
            return PinRefused(refusal)
        log.error("%s", message)
        self._set(TokenState.FAULTY, message)
        return _Curable(TokenModuleBroken(message))

    # --- the process -----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._started:
            if not self._may_reload():
                raise TokenFault("The token's module is down; it is loaded afresh at most once in 30 s.")
            self._reloaded_at = time.monotonic()
        self._started = True
        self._exchange.start()

    def _may_reload(self) -> bool:
        return self._reloaded_at is None or time.monotonic() - self._reloaded_at >= RELOAD_INTERVAL

    def _end(self) -> None:
        self._open = False
        self._exchange.end()

    def _set(self, state: TokenState, detail: str) -> None:
        status = self._status
        if (status.state, status.detail) != (state, detail):
            since = status.since if status.state is state else datetime.now(UTC)
            self._status = replace(status, state=state, detail=detail, since=since)
