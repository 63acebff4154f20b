"""The way to the TPM that tpm2-pkcs11 itself takes: one connection, commands and answers as plain bytes.

tpm2-tss knows all ways (a device, the resource manager's D-Bus service, a simulator); this is the one function of it
that sends and receives (TCG TSS 2.0 TCTI Specification).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

_BLOCK: Final = -1
"""TSS2_TCTI_TIMEOUT_BLOCK: the only one that all ways know; whoever waits for this process has a time limit."""
_LONGEST: Final = 4096
"""Octets of an answer (TPM2_MAX_RESPONSE_SIZE)."""


class Tcti:
    """One connection: objects and sessions that it loads are its own, and gone when it ends."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """The way that ``TPM2_PKCS11_TCTI`` names, or else tpm2-tss's own first choice. Raises OSError when there is
        no tpm2-tss or no TPM."""
        name = environ.get("TPM2_PKCS11_TCTI")
        self._loader = _library()
        self._context = ctypes.POINTER(_Context)()
        _check(self._loader.Tss2_TctiLdr_Initialize(name.encode() if name else None, ctypes.byref(self._context)))

    def run(self, command: bytes) -> bytes:
        """One command; its answer, with whatever code is in it. Raises OSError."""
        answer, size = ctypes.create_string_buffer(_LONGEST), ctypes.c_size_t(_LONGEST)
        _check(self._context.contents.transmit(self._context, len(command), command))
        _check(self._context.contents.receive(self._context, ctypes.byref(size), answer, _BLOCK))
        return answer.raw[: size.value]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loader.Tss2_TctiLdr_Finalize(ctypes.byref(self._context))


def _library() -> Any:
    loader = ctypes.CDLL("libtss2-tctildr.so.0")
    try:
        loader.Tss2_TctiLdr_Initialize.argtypes = (ctypes.c_char_p, ctypes.POINTER(ctypes.POINTER(_Context)))
        loader.Tss2_TctiLdr_Finalize.argtypes = (ctypes.POINTER(ctypes.POINTER(_Context)),)
    except AttributeError as error:
        raise OSError(f"libtss2-tctildr has no {error.name}") from error
    return loader


def _check(code: int) -> None:
    if code:
        raise OSError(f"tpm2-tss answered 0x{code & 0xFFFFFFFF:x}")


class _Context(ctypes.Structure):
    """TSS2_TCTI_CONTEXT_COMMON_V1, as far as it is used (TCG TSS 2.0 TCTI Specification, 6)."""

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
