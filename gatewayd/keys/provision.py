"""Initialising a token: what ``gatewayd token-init`` does.

PINs go straight into the module, never through a command line or the environment.
"""

from __future__ import annotations

import ctypes
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pkcs11
from pkcs11 import TokenFlag

from ..errors import InvalidArgument, PinRefused, TokenFault, TokenFull, TokenNotFound
from . import faults
from .connection import load, present_tokens
from .pin import Pin


@dataclass(frozen=True, slots=True)
class InitializedToken:
    label: str
    serial: str
    created: bool
    """False when a token with this label was there already and was left as it is."""


def init_token(module: Path, label: str, so_pin: Pin | None, pin: Pin) -> InitializedToken:
    """Make a token with this label in the first free slot, with ``pin`` as its user PIN.

    Without ``so_pin`` a random one is used and thrown away: then nobody can ever reset the user PIN, and a token
    whose PIN is lost has to be made anew, which for keys that can be enrolled again is the better end. A token with
    this label that has a user PIN is left alone; one without (an initialisation that was cut off) gets it, if
    ``so_pin`` is that token's.

    Not to be called while a key store is open in this process: it finalises the module when it is done. Raises
    InvalidArgument, TokenModuleBroken, TokenFull, PinRefused, TokenFault.
    """
    if not 0 < len(label.encode()) <= _LABEL_LENGTH:
        raise InvalidArgument(f"A token's label has 1 to {_LABEL_LENGTH} bytes.")
    lib = load(module)
    try:
        token = _labelled(lib, label)
        if token is not None and token.flags & TokenFlag.USER_PIN_INITIALIZED:
            return InitializedToken(label, _serial(token), created=False)
        if token is None:
            so_pin = so_pin or Pin(secrets.token_hex(12))
            token = _initialize(lib, module, label, so_pin, pin)
        elif so_pin is None:
            raise PinRefused(f"The token {label!r} has no user PIN, and only its SO PIN can set one.")
        with token.open(rw=True, so_pin=so_pin.reveal()) as session:
            session.init_pin(pin.reveal())
        return InitializedToken(label, _serial(token), created=True)
    except faults.PIN as error:
        raise PinRefused(f"The token {label!r} refused a PIN ({faults.name(error)}).") from error
    except pkcs11.PKCS11Error as error:
        raise faults.translate(error) from error
    finally:
        lib.finalize()


def _labelled(lib: Any, label: str) -> Any:
    return next((token for token in present_tokens(lib) if token.label == label), None)


def _serial(token: Any) -> str:
    serial: bytes = token.serial
    return serial.decode("ascii", "replace")


def _initialize(lib: Any, module: Path, label: str, so_pin: Pin, pin: Pin) -> Any:
    """C_InitToken in the first slot that holds an uninitialised token; the token as the module then shows it."""
    slot = _free_slot(lib)
    if slot is None:
        raise TokenFull("The module has no slot with an uninitialised token.")
    functions = _functions(module)
    info = _TokenInfo()
    _check(functions.get_token_info(slot.slot_id, ctypes.byref(info)), "C_GetTokenInfo")
    # Before anything is made: a token whose user PIN is refused later could not be finished by anybody.
    for each in (so_pin, pin):
        if not info.ulMinPinLen <= len(each.reveal().encode()) <= info.ulMaxPinLen:
            raise PinRefused(f"The token takes PINs of {info.ulMinPinLen} to {info.ulMaxPinLen} bytes.")
    octets = so_pin.reveal().encode()
    padded = label.encode().ljust(_LABEL_LENGTH)
    _check(functions.init_token(slot.slot_id, octets, len(octets), padded), "C_InitToken")
    token = _labelled(lib, label)
    if token is None:
        raise TokenNotFound(f"The token {label!r} was initialised and cannot be found.")
    return token


def _free_slot(lib: Any) -> Any:
    for slot in lib.get_slots(token_present=True):
        try:
            if not slot.get_token().flags & TokenFlag.TOKEN_INITIALIZED:
                return slot
        except (pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
            continue
    return None


# --- C_InitToken, which python-pkcs11 does not offer ---------------------------------------------

_LABEL_LENGTH: Final = 32
_GET_TOKEN_INFO: Final = 6
_INIT_TOKEN: Final = 9
"""Places in CK_FUNCTION_LIST (PKCS#11 2.40, 3.6): the same in every version, since later ones append."""


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST up to C_InitToken."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("functions", ctypes.c_void_p * (_INIT_TOKEN + 1)),
    )


class _TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO."""

    _fields_ = (
        ("label", ctypes.c_ubyte * 32),
        ("manufacturerID", ctypes.c_ubyte * 32),
        ("model", ctypes.c_ubyte * 16),
        ("serialNumber", ctypes.c_ubyte * 16),
        ("flags", ctypes.c_ulong),
        ("ulMaxSessionCount", ctypes.c_ulong),
        ("ulSessionCount", ctypes.c_ulong),
        ("ulMaxRwSessionCount", ctypes.c_ulong),
        ("ulRwSessionCount", ctypes.c_ulong),
        ("ulMaxPinLen", ctypes.c_ulong),
        ("ulMinPinLen", ctypes.c_ulong),
        ("ulTotalPublicMemory", ctypes.c_ulong),
        ("ulFreePublicMemory", ctypes.c_ulong),
        ("ulTotalPrivateMemory", ctypes.c_ulong),
        ("ulFreePrivateMemory", ctypes.c_ulong),
        ("hardwareVersion", ctypes.c_ubyte * 2),
        ("firmwareVersion", ctypes.c_ubyte * 2),
        ("utcTime", ctypes.c_ubyte * 16),
    )


@dataclass(frozen=True, slots=True)
class _Functions:
    get_token_info: Any
    init_token: Any


_GetTokenInfo = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(_TokenInfo))
_InitToken = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _functions(module: Path) -> _Functions:
    """The functions of the module that ``load`` has loaded and initialised: the loader gives the same one again."""
    library = ctypes.CDLL(str(module))
    get_list = library.C_GetFunctionList
    get_list.restype = ctypes.c_ulong
    get_list.argtypes = (ctypes.POINTER(ctypes.POINTER(_FunctionList)),)
    pointer = ctypes.POINTER(_FunctionList)()
    _check(get_list(ctypes.byref(pointer)), "C_GetFunctionList")
    addresses = pointer.contents.functions
    return _Functions(_GetTokenInfo(addresses[_GET_TOKEN_INFO]), _InitToken(addresses[_INIT_TOKEN]))


def _check(code: int, function: str) -> None:
    if code == _CKR_PIN_INCORRECT:
        raise PinRefused("The token refused the SO PIN.")
    if code:
        raise TokenFault(f"{function} answered 0x{code:x}.")


_CKR_PIN_INCORRECT: Final = 0xA0
