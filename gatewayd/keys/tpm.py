"""What a TPM says of its lockout. PKCS#11 has no place for it, and tpm2-pkcs11 tells neither tries nor time; the TPM
itself answers anybody who may open it, without an authorization (TPM2_GetCapability, TPM 2.0 Part 3, 30.2)."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .tcti import Tcti

_GET_CAPABILITY: Final = struct.Struct(">HIIIII")
_NO_SESSIONS: Final = 0x8001
_CC_GET_CAPABILITY: Final = 0x17A
_TPM_PROPERTIES: Final = 6
_LOCKOUT_COUNTER: Final = 0x20E
"""The first of three in a row: failures that count, failures that are allowed, and the seconds after which one of
them is forgiven (TPM_PT, TPM 2.0 Part 2, 6.13)."""


@dataclass(frozen=True, slots=True)
class Lockout:
    tries_left: int
    forgives_after: int
    """Seconds without a failure, and with power, after which there is one try more."""


def lockout(environ: Mapping[str, str] = os.environ) -> Lockout | None:
    """Of the TPM that tpm2-pkcs11 uses in this environment; None when it cannot be asked."""
    try:
        with Tcti(environ) as tcti:
            return _read(tcti.run(_request()))
    except (OSError, struct.error):
        return None


def _request() -> bytes:
    arguments = (_TPM_PROPERTIES, _LOCKOUT_COUNTER, 3)
    return _GET_CAPABILITY.pack(_NO_SESSIONS, _GET_CAPABILITY.size, _CC_GET_CAPABILITY, *arguments)


def _read(answer: bytes) -> Lockout | None:
    _, _, code, _, capability, count = struct.unpack_from(">HIIBII", answer)
    if code or capability != _TPM_PROPERTIES or count != 3:
        return None
    values = struct.unpack_from(">IIIIII", answer, struct.calcsize(">HIIBII"))
    if values[::2] != (_LOCKOUT_COUNTER, _LOCKOUT_COUNTER + 1, _LOCKOUT_COUNTER + 2):
        return None
    failures, allowed, forgives_after = values[1::2]
    return Lockout(max(allowed - failures, 0), forgives_after)
