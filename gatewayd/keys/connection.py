"""The way into the token: load the module, find the token, log in, and come back after a fault.

All of it runs in the token's one worker thread; only ``status`` is read from others.

What is tried again by itself and what is not: after a fault that finalising may cure, the module is finalised and
initialised, at most once in 30 s, and the call is made once more. The PIN is tried once for each initialisation as
long as it is accepted; once refused it is never tried again, whatever is reloaded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import ObjectClass

from ..errors import PinMissing, PinRefused, TokenError, TokenFault, TokenModuleBroken, TokenNotFound
from . import faults
from .base import TokenState, TokenStatus
from .pin import Pin
from .uri import Pkcs11Uri

log = logging.getLogger(__name__)

T = TypeVar("T")

RELOAD_INTERVAL: Final = 30.0
"""Seconds: a broken device is not made whole by haste, and each reload is a login."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class TokenConnection:
    """A logged-in session with one token, made when it is first needed."""

    def __init__(
        self,
        module: Path,
        uri: Pkcs11Uri,
        pin: Pin | None,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._module = module
        self._uri = uri
        self._pin = pin
        self._clock = clock
        self._monotonic = monotonic
        self._lib: Any = None
        self._session: Any = None
        self._handles: dict[bytes, Any] = {}
        self._refused: str | None = None
        self._reloaded_at: float | None = None
        self.status = TokenStatus(
            state=TokenState.ABSENT,
            label=uri.token or "",
            serial=uri.serial or "",
            model="",
            manufacturer="",
            module=str(module),
            detail="The token has not been opened yet.",
            since=clock(),
        )

    def run(self, work: Callable[[Any], T]) -> T:
        """``work(session)``, connecting first where needed. Raises a TokenError."""
        try:
            return self._attempt(work)
        except pkcs11.PKCS11Error as error:
            if not self._mend(error):
                raise self._failed(error) from error
        try:
            return self._attempt(work)
        except pkcs11.PKCS11Error as error:
            raise self._failed(error) from error

    def private_key(self, key_id: bytes) -> Any:
        """The handle of a private key, cached. Only within ``run``; raises pkcs11.NoSuchKey."""
        handle = self._handles.get(key_id)
        if handle is None:
            handle = self._session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=key_id)
            self._handles[key_id] = handle
        return handle

    def forget(self, key_id: bytes) -> None:
        self._handles.pop(key_id, None)

    def close(self) -> None:
        """Log out and finalise: a TPM keeps the handles of a module that was not finalised."""
        self._disconnect()
        self._set(TokenState.ABSENT, "The token has been closed.")

    def unresponsive(self, detail: str) -> None:
        """A caller's time ran out; called from that caller's thread. The next success makes it good again."""
        self._set(TokenState.FAULTY, detail)

    def _attempt(self, work: Callable[[Any], T]) -> T:
        if self._session is None:
            self._session = self._connect()
        result = work(self._session)
        self._set(TokenState.READY, "")
        return result

    def _mend(self, error: pkcs11.PKCS11Error) -> bool:
        """Do what may cure ``error``; False when nothing may, or not yet."""
        if isinstance(error, faults.STALE):
            self._handles.clear()
            return True
        if faults.cured_by_reload(error) and self._claim_reload():
            log.warning("the token answered with %s: its module is initialised again", faults.name(error))
            self._disconnect()
            return True
        return False

    def _claim_reload(self) -> bool:
        now = self._monotonic()
        if self._reloaded_at is not None and now - self._reloaded_at < RELOAD_INTERVAL:
            return False
        self._reloaded_at = now
        return True

    def _failed(self, error: pkcs11.PKCS11Error) -> TokenError:
        translated = faults.translate(error)
        if isinstance(translated, TokenNotFound):
            self._set(TokenState.ABSENT, translated.message)
        elif isinstance(translated, TokenFault) and faults.cured_by_reload(error):
            self._set(TokenState.FAULTY, translated.message)
        return translated

    def _connect(self) -> Any:
        if self._refused is not None:
            self._set(TokenState.PIN_REFUSED, self._refused)
            raise PinRefused(self._refused)
        if self._pin is None:
            message = "The token needs a PIN and none was given."
            self._set(TokenState.PIN_MISSING, message)
            raise PinMissing(message)
        token = self._find_token()
        if token is None and self._claim_reload():
            # Some modules learn of a token that came later only when they are initialised.
            self._disconnect()
            token = self._find_token()
        if token is None:
            message = f"No token matches {self._uri} in {self._module}."
            self._set(TokenState.ABSENT, message)
            raise TokenNotFound(message)
        self.status = replace(
            self.status,
            label=token.label,
            serial=token.serial.decode("ascii", "replace"),
            model=token.model,
            manufacturer=token.manufacturer_id,
        )
        return self._log_in(token, self._pin)

    def _log_in(self, token: Any, pin: Pin) -> Any:
        refusal = faults.login_refusal(token.flags)
        if refusal is None:
            try:
                return token.open(rw=True, user_pin=pin.reveal())
            except faults.PIN as error:
                refusal = f"The token {token.label!r} refused the PIN ({faults.name(error)})."
        self._refused = refusal
        self._set(TokenState.PIN_REFUSED, refusal)
        log.error("%s It is not tried again.", refusal)
        raise PinRefused(refusal)

    def _find_token(self) -> Any:
        """The one token that matches, or None. Raises TokenModuleBroken, and TokenNotFound when several match."""
        if self._lib is None:
            try:
                self._lib = load(self._module)
            except TokenModuleBroken as error:
                self._set(TokenState.ABSENT, error.message)
                raise
        found = [token for token in present_tokens(self._lib) if self._matches(token)]
        if len(found) > 1:
            message = f"{len(found)} tokens match {self._uri}: add the serial to the URI."
            self._set(TokenState.ABSENT, message)
            raise TokenNotFound(message)
        return found[0] if found else None

    def _matches(self, token: Any) -> bool:
        wanted = self._uri
        slot, lib = token.slot, self._lib
        major, minor = lib.library_version
        facts = (
            (wanted.token, token.label),
            (wanted.serial, token.serial.decode("ascii", "replace")),
            (wanted.model, token.model),
            (wanted.manufacturer, token.manufacturer_id),
            (wanted.slot_id, slot.slot_id),
            (wanted.slot_description, slot.slot_description),
            (wanted.slot_manufacturer, slot.manufacturer_id),
            (wanted.library_manufacturer, lib.manufacturer_id),
            (wanted.library_description, lib.library_description),
            (_full_version(wanted.library_version), f"{major}.{minor}"),
        )
        return all(want is None or want == have for want, have in facts)

    def _disconnect(self) -> None:
        """Finalise the module, which ends its sessions too, in whatever state it is."""
        self._handles.clear()
        self._session = None
        lib, self._lib = self._lib, None
        if lib is not None:
            try:
                lib.finalize()
            except pkcs11.PKCS11Error as error:
                log.info("finalising the token's module answered %s", faults.name(error))

    def _set(self, state: TokenState, detail: str) -> None:
        status = self.status
        if (status.state, status.detail) != (state, detail):
            since = status.since if status.state is state else self._clock()
            self.status = replace(status, state=state, detail=detail, since=since)


def load(module: Path) -> Any:
    """Load the module and initialise it. Raises TokenModuleBroken."""
    try:
        return pkcs11.lib(str(module))
    except pkcs11.PKCS11Error as error:
        raise TokenModuleBroken(f"The PKCS#11 module {module} does not load: {faults.name(error)}.") from error


def present_tokens(lib: Any) -> list[Any]:
    """The initialised tokens in the module's slots, as they are now."""
    tokens = []
    for slot in lib.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except (pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
            continue
        if token.flags & pkcs11.TokenFlag.TOKEN_INITIALIZED:
            tokens.append(token)
    return tokens


def _full_version(version: str | None) -> str | None:
    """A version without its minor part means minor 0 (RFC 7512, 2.3)."""
    return version if version is None or "." in version else f"{version}.0"
