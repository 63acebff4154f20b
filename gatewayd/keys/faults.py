"""What the module's answers mean: python-pkcs11's exceptions → our errors, and what may be tried about them."""

from __future__ import annotations

from typing import Final

import pkcs11

from ..errors import AlgorithmUnsupported, KeyAmbiguous, KeyMissing, TokenError, TokenFault, TokenNotFound
from .base import PinTries

PIN: Final = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked, pkcs11.PinExpired)
"""The PIN was refused: never try it again."""

STALE: Final = (pkcs11.KeyHandleInvalid, pkcs11.ObjectHandleInvalid)
"""A cached handle does not hold any more: look the key up again."""

ABSENT: Final = (pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised, pkcs11.DeviceRemoved, pkcs11.UserPinNotInitialized)

BROKEN: Final = (pkcs11.GeneralError, pkcs11.DeviceError, pkcs11.FunctionFailed)
"""At a login: the module works and the token is there, but what is in it cannot be used. So does a TPM answer that was
cleared since the token was made, or is another one."""

ALGORITHM: Final = (
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.KeyTypeInconsistent,
    pkcs11.KeySizeRange,
    pkcs11.DomainParamsInvalid,
)

_ABOUT_THE_REQUEST: Final = (
    *PIN,
    *STALE,
    *ALGORITHM,
    pkcs11.NoSuchKey,
    pkcs11.UserPinNotInitialized,
    pkcs11.TemplateIncomplete,
    pkcs11.TemplateInconsistent,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.AttributeReadOnly,
    pkcs11.AttributeSensitive,
    pkcs11.ArgumentsBad,
    pkcs11.DataInvalid,
    pkcs11.DataLenRange,
    pkcs11.FunctionNotSupported,
    pkcs11.TokenWriteProtected,
    pkcs11.MultipleObjectsReturned,
)


def cured_by_reload(error: pkcs11.PKCS11Error) -> bool:
    """Whether finalising and initialising the module may help: true of everything that is not about the request
    itself, such as CKR_GENERAL_ERROR, CKR_DEVICE_ERROR, a lost session or login, and codes that nobody knows."""
    return not isinstance(error, _ABOUT_THE_REQUEST)


def translate(error: pkcs11.PKCS11Error) -> TokenError:
    """The error that callers see. PINs are none of its business: the login handles them."""
    if isinstance(error, pkcs11.NoSuchKey | STALE[0] | STALE[1]):
        return KeyMissing("The key is not in the token.")
    if isinstance(error, pkcs11.MultipleObjectsReturned):
        return KeyAmbiguous("Several keys in the token have the id of this one.")
    if isinstance(error, pkcs11.UserPinNotInitialized):
        return TokenNotFound("The token has no user PIN yet.")
    if isinstance(error, ABSENT):
        return TokenNotFound(f"The token is gone ({name(error)}).")
    if isinstance(error, ALGORITHM):
        return AlgorithmUnsupported(f"The token does not do this with this key ({name(error)}).")
    return TokenFault(f"The token answered with a fault ({name(error)}).")


def name(error: pkcs11.PKCS11Error) -> str:
    """Such as ``DeviceError``, python-pkcs11's name of CKR_DEVICE_ERROR, or its words for a code without a class."""
    return str(error).rstrip(".") if type(error) is pkcs11.PKCS11Error else type(error).__name__


USER_PIN_COUNT_LOW: Final = 0x00010000
USER_PIN_FINAL_TRY: Final = 0x00020000
USER_PIN_LOCKED: Final = 0x00040000
"""Flags of CK_TOKEN_INFO (PKCS#11 2.40, table 9) that python-pkcs11 does not name."""


def login_refusal(flags: int, *, final_try: bool = False) -> str | None:
    """Why a login must not even be tried, by the token's own count of failures; None when it may.

    The last try before the lock is left to a person, who says ``final_try``: a service that comes back again and again
    would spend it.
    """
    if flags & USER_PIN_LOCKED:
        return "The token has locked its PIN after too many failures."
    if flags & USER_PIN_FINAL_TRY and not final_try:
        return "The token allows one more try of the PIN before it locks; it is left to a person."
    return None


def tries_left(flags: int) -> PinTries:
    for flag, left in (
        (USER_PIN_LOCKED, PinTries.NONE),
        (USER_PIN_FINAL_TRY, PinTries.ONE),
        (USER_PIN_COUNT_LOW, PinTries.FEWER),
    ):
        if flags & flag:
            return left
    return PinTries.UNKNOWN
