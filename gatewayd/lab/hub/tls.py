"""The MQTT listener's TLS: any client certificate gets through, and CONNECT decides.

A device in ``selfSigned`` mode is known by its thumbprint alone, so a chain to nowhere must not end the handshake, and
CONNACK 5 must be able to reach whoever presents a bad certificate. Python's ``ssl`` cannot say "request but do not
judge": CERT_OPTIONAL fails on an unknown chain and CERT_NONE requests nothing. OpenSSL can: a verify callback that
answers 1. It is set through ctypes on the very libssl that ``_ssl`` is linked to; what was presented is then judged
with ``cryptography`` in admission.py. Nothing else relies on this: the REST port uses plain ``ssl``.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
from typing import Final

_SSL_VERIFY_PEER: Final = 1
_Verify = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


def _admit(preverified: int, store_context: int | None) -> int:
    return 1


_CALLBACK: Final = _Verify(_admit)
"""Kept for the life of the process: OpenSSL calls it whenever a client presents a certificate."""


def admit_any_certificate(context: ssl.SSLContext) -> None:
    """Make ``context`` request a client certificate and accept whatever comes, or none.

    No session tickets and no resumption: each connection must present its certificate anew. Raises RuntimeError when
    this Python lays out SSLContext in a way that is not known here.
    """
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    libssl = ctypes.CDLL(_ssl.__file__)
    libssl.SSL_CTX_get_options.restype = ctypes.c_uint64
    libssl.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
    libssl.SSL_CTX_set_verify.restype = None
    libssl.SSL_CTX_set_verify.argtypes = [ctypes.c_void_p, ctypes.c_int, _Verify]
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    if libssl.SSL_CTX_get_options(pointer) != int(context.options) & 0xFFFFFFFFFFFFFFFF:
        raise RuntimeError("the layout of ssl.SSLContext in this Python is unknown; the hub stand-in cannot run on it")
    libssl.SSL_CTX_set_verify(pointer, _SSL_VERIFY_PEER, _CALLBACK)
    if context.verify_mode is not ssl.CERT_OPTIONAL:
        raise RuntimeError("OpenSSL did not take the verify mode; the hub stand-in cannot run on this Python")
