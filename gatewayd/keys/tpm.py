"""What a TPM says of its lockout. PKCS#11 has no place for it, and tpm2-pkcs11 tells neither tries nor time; the TPM
itself answers anybody who may open it, without an authorization (TPM2_GetCapability, TPM 2.0 Part 3, 30.2)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_GET_CAPABILITY: Final = struct.Struct(">HIIIII")
_NO_SESSIONS: Final = 0x8001
_CC_GET_CAPABILITY: Final = 0x17A
_TPM_PROPERTIES: Final = 6
_LOCKOUT_COUNTER: Final = 0x20E
"""The first of three in a row: failures that count, failures that are allowed, and the seconds after which one of
them is forgiven (TPM_PT, TPM 2.0 Part 2, 6.13)."""
_BLOCK: Final = -1
"""TSS2_TCTI_TIMEOUT_BLOCK: the only one that all ways know; whoever waits for this process has a time limit."""


@dataclass(frozen=True, slots=True)
class Lockout:
    tries_left: int
    forgives_after: int
    """Seconds without a failure, and with power, after which there is one try more."""


def lockout(environ: Mapping[str, str] = os.environ) -> Lockout | None:
    """Of the TPM that tpm2-pkcs11 uses in this environment; None when it cannot be asked."""
    try:
        tcti = environ.get("TPM2_PKCS11_TCTI")
        return _read(_ask(tcti.encode() if tcti else None, _request()))
    except (OSError, AttributeError, struct.error):
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


def _ask(tcti: bytes | None, request: bytes) -> bytes:
    """One command, over whatever way tpm2-pkcs11 itself takes: tpm2-tss knows them all. Raises OSError."""
    loader = ctypes.CDLL("libtss2-tctildr.so.0")
    loader.Tss2_TctiLdr_Initialize.argtypes = (ctypes.c_char_p, ctypes.POINTER(ctypes.POINTER(_Tcti)))
    loader.Tss2_TctiLdr_Finalize.argtypes = (ctypes.POINTER(ctypes.POINTER(_Tcti)),)
    way = ctypes.POINTER(_Tcti)()
    _check(loader.Tss2_TctiLdr_Initialize(tcti, ctypes.byref(way)))
    try:
        _check(way.contents.transmit(way, len(request), request))
        answer, size = ctypes.create_string_buffer(4096), ctypes.c_size_t(4096)
        _check(way.contents.receive(way, ctypes.byref(size), answer, _BLOCK))
        return answer.raw[: size.value]
    finally:
        loader.Tss2_TctiLdr_Finalize(ctypes.byref(way))


def _check(code: int) -> None:
    if code:
        raise OSError(f"tpm2-tss answered 0x{code:x}")


class _Tcti(ctypes.Structure):
    """TSS2_TCTI_CONTEXT_COMMON_V1, as far as it is used (TCG TSS 2.0 TCTI specification, 6)."""

    _fields_ = (
        ("magic", ctypes.c_uint64),
        ("version", ctypes.c_uint64),
        ("transmit", ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)),
        (
            "receive",
            ctypes.CFUNCTYPE(
                ctypes.c_uint32, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.c_char_p, ctypes.c_int32
            ),
        ),
    )
