"""The way into the token: load the module, find the token, log in. Runs in the token's own process (helper.py).

Nothing is tried again here but a key's handle that has gone stale: what may be cured by loading the module afresh is
cured by a fresh process, and the daemon decides when (token.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import ObjectClass

from ..errors import PinRefused, TokenError, TokenFault, TokenModuleBroken, TokenNotFound, TokenUnusable
from . import faults, objects, tpm
from .base import PinTries, TokenState, TokenStatus
from .pin import Pin
from .uri import Pkcs11Uri

T = TypeVar("T")

_TPM2_PKCS11: Final = "tpm2-software.github.io"
_SLOTS: Final = MappingProxyType({_TPM2_PKCS11: 2})
"""By the library's manufacturer: objects that may stay loaded. tpm2-pkcs11 loads a key into the TPM when it is made or
first used, and unloads it at the logout only. A TPM has three slots, the kernel's resource manager gives each client no
more, and one is needed for the keys' parent: the third key would fail, and go on failing."""
_SLOTS_OF_A_NEW_KEY: Final = 2
"""tpm2-pkcs11 loads its public half, too."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class TokenConnection:
    """A logged-in session with one token."""

    def __init__(self, module: Path, uri: Pkcs11Uri, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._module = module
        self._uri = uri
        self._clock = clock
        self._lib: Any = None
        self._session: Any = None
        self._handles: dict[bytes, Any] = {}
        self._slots_taken = 0
        self._pin: Pin | None = None
        """Kept only where slots are few."""
        self.status = TokenStatus.of_unopened(uri.token, uri.serial, module, clock())

    def open(self, pin: Pin, about_to_log_in: Callable[[], None], *, final_try: bool = False) -> None:
        """Find the token and log in; ``about_to_log_in`` is called before the PIN is tried. Raises TokenError, and
        what python-pkcs11 raises."""
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
        try:
            self._session = self._log_in(token, pin, about_to_log_in, final_try)
        except faults.BROKEN as error:
            message = f"The token {token.label!r} is there, and cannot be logged in to ({faults.name(error)})."
            self._set(TokenState.UNUSABLE, message)
            raise TokenUnusable(message) from error
        self._pin = pin if self._lib.manufacturer_id in _SLOTS else None
        algorithms = tuple(objects.offered_algorithms(token.slot))
        self.status = replace(
            self.status, pin_tries=PinTries.UNKNOWN, pin_tries_left=None, locked_until=None, algorithms=algorithms
        )
        self._set(TokenState.READY, "")

    @property
    def library(self) -> str:
        """The module by its manufacturer."""
        return str(self._lib.manufacturer_id)

    @property
    def is_open(self) -> bool:
        return self._session is not None

    def run(self, work: Callable[[Any], T], *, makes_key: bool = False) -> T:
        """``work(session)``; once more when a handle has gone stale. Raises what python-pkcs11 raises."""
        if self._session is None:
            raise TokenFault("The token is not open.")
        if makes_key:
            self._take_slots(_SLOTS_OF_A_NEW_KEY)
        try:
            result = work(self._session)
        except faults.STALE:
            self._handles.clear()
            result = work(self._session)
        self._set(TokenState.READY, "")
        return result

    def private_key(self, key_id: bytes) -> Any:
        """The handle of a private key, cached. Only within ``run``; raises pkcs11.NoSuchKey."""
        handle = self._handles.get(key_id)
        if handle is None:
            self._take_slots(1)
            handle = self._session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=key_id)
            self._handles[key_id] = handle
        return handle

    def forget(self, key_id: bytes) -> None:
        self._handles.pop(key_id, None)

    def _take_slots(self, number: int) -> None:
        """Where slots are few, have so many free, by a logout and a login when they are not."""
        if self._pin is None:
            return
        if self._slots_taken + number > _SLOTS[self._lib.manufacturer_id]:
            session, token = self._session, self._session.token
            self._drop()
            session.close()
            self._session = self._log_in(token, self._pin, lambda: None, final_try=False)
        self._slots_taken += number

    def _drop(self) -> None:
        self._handles.clear()
        self._slots_taken = 0
        self._session = None

    def close(self) -> None:
        """Finalise the module, which logs out too: a TPM keeps the handles of one that was not finalised."""
        self._drop()
        lib, self._lib = self._lib, None
        if lib is not None:
            lib.finalize()

    def failed(self, error: pkcs11.PKCS11Error) -> TokenError:
        """The error that callers see, and what it says of the token's state."""
        translated = faults.translate(error)
        if isinstance(translated, TokenNotFound):
            self._set(TokenState.ABSENT, translated.message)
        elif isinstance(translated, TokenFault) and faults.cured_by_reload(error):
            self._set(TokenState.FAULTY, translated.message)
        return translated

    def _log_in(self, token: Any, pin: Pin, about_to_log_in: Callable[[], None], final_try: bool) -> Any:
        locked = False
        refusal = faults.login_refusal(token.flags, final_try=final_try)
        if refusal is None:
            about_to_log_in()
            try:
                return token.open(rw=True, user_pin=pin.reveal())
            except faults.PIN as error:
                refusal = f"The token {token.label!r} refused the PIN ({faults.name(error)})."
                locked = isinstance(error, pkcs11.PinLocked)
        self._note_tries(token, locked)
        self._set(TokenState.PIN_REFUSED, refusal)
        raise PinRefused(refusal)

    def _note_tries(self, token: Any, locked: bool) -> None:
        """What can be known of the tries that are left, after a refusal."""
        try:
            tries = PinTries.NONE if locked else faults.tries_left(token.slot.get_token().flags)
        except pkcs11.PKCS11Error:
            tries = PinTries.UNKNOWN
        number, until = None, None
        if self._lib.manufacturer_id == _TPM2_PKCS11 and (found := tpm.lockout()) is not None:
            number = found.tries_left
            tries = {0: PinTries.NONE, 1: PinTries.ONE}.get(number, PinTries.FEWER)
            until = self._clock() + timedelta(seconds=found.forgives_after) if number == 0 else None
        self.status = replace(self.status, pin_tries=tries, pin_tries_left=number, locked_until=until)

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
