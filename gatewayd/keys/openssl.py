"""The functions of OpenSSL that the TLS bridge calls, declared for ctypes.

They are looked up through the ``_ssl`` extension itself, so that they are those of the very libssl and libcrypto that
Python's ``ssl`` module uses, not of another copy in the process (``cryptography`` carries one of its own).
"""

from __future__ import annotations

import ctypes
import functools
import ssl
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p
from typing import Any, Final

from ..errors import TlsBridgeUnsupported

EC_SIGN: Final = ctypes.CFUNCTYPE(
    c_int, c_int, c_void_p, c_int, c_void_p, ctypes.POINTER(c_uint), c_void_p, c_void_p, c_void_p
)
"""int sign(int type, const unsigned char *digest, int length, unsigned char *signature, unsigned int *size,
const BIGNUM *kinv, const BIGNUM *r, EC_KEY *key): 1, or 0 on failure."""

RSA_PRIVATE_ENCRYPT: Final = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p, c_void_p, c_int)
"""int rsa_priv_enc(int length, const unsigned char *from, unsigned char *to, RSA *key, int padding): the signature's
length, or -1 on failure."""

RSA_PKCS1_PADDING: Final = 1
RSA_NO_PADDING: Final = 3

X509_V_FLAG_USE_CHECK_TIME: Final = 0x2

c_time_t: Final = getattr(ctypes, "c_time_t", c_long)
"""Python has it since 3.12; before, on Debian 12, time_t is a long everywhere."""

SSL_CTRL_CHAIN: Final = 88
SSL_CTRL_CHAIN_CERT: Final = 89

# name: (result, arguments). Sizes and signs matter: a pointer without a declared type is cut to 32 bits.
_FUNCTIONS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "OpenSSL_version": (c_char_p, (c_int,)),
    "ERR_clear_error": (None, ()),
    "ERR_get_error": (c_ulong, ()),
    "ERR_error_string_n": (None, (c_ulong, c_char_p, c_size_t)),
    "d2i_X509": (c_void_p, (c_void_p, ctypes.POINTER(c_char_p), c_long)),
    "X509_free": (None, (c_void_p,)),
    "X509_get0_pubkey": (c_void_p, (c_void_p,)),
    "d2i_EC_PUBKEY": (c_void_p, (c_void_p, ctypes.POINTER(c_char_p), c_long)),
    "ECDSA_size": (c_int, (c_void_p,)),
    "EC_KEY_free": (None, (c_void_p,)),
    "EC_KEY_OpenSSL": (c_void_p, ()),
    "EC_KEY_METHOD_new": (c_void_p, (c_void_p,)),
    "EC_KEY_METHOD_set_sign": (None, (c_void_p, EC_SIGN, c_void_p, c_void_p)),
    "EC_KEY_set_method": (c_int, (c_void_p, c_void_p)),
    "d2i_RSA_PUBKEY": (c_void_p, (c_void_p, ctypes.POINTER(c_char_p), c_long)),
    "RSA_size": (c_int, (c_void_p,)),
    "RSA_free": (None, (c_void_p,)),
    "RSA_PKCS1_OpenSSL": (c_void_p, ()),
    "RSA_meth_dup": (c_void_p, (c_void_p,)),
    "RSA_meth_set_priv_enc": (c_int, (c_void_p, RSA_PRIVATE_ENCRYPT)),
    "RSA_set_method": (c_int, (c_void_p, c_void_p)),
    "EVP_PKEY_new": (c_void_p, ()),
    "EVP_PKEY_free": (None, (c_void_p,)),
    "EVP_PKEY_get_base_id": (c_int, (c_void_p,)),
    "EVP_PKEY_set1_EC_KEY": (c_int, (c_void_p, c_void_p)),
    "EVP_PKEY_set1_RSA": (c_int, (c_void_p, c_void_p)),
    "SSL_CTX_get_options": (c_uint64, (c_void_p,)),
    "SSL_CTX_ctrl": (c_long, (c_void_p, c_int, c_long, c_void_p)),
    "SSL_CTX_get0_param": (c_void_p, (c_void_p,)),
    "X509_VERIFY_PARAM_set_time": (None, (c_void_p, c_time_t)),
    "X509_VERIFY_PARAM_clear_flags": (c_int, (c_void_p, c_ulong)),
    "SSL_CTX_get0_certificate": (c_void_p, (c_void_p,)),
    "SSL_CTX_use_certificate": (c_int, (c_void_p, c_void_p)),
    "SSL_CTX_use_PrivateKey": (c_int, (c_void_p, c_void_p)),
    "SSL_CTX_check_private_key": (c_int, (c_void_p,)),
}


@functools.cache
def library() -> Any:
    """The library with every function's types declared. Raises TlsBridgeUnsupported."""
    try:
        import _ssl

        loaded = ctypes.CDLL(_ssl.__file__)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (ImportError, AttributeError, OSError) as error:
        raise TlsBridgeUnsupported(f"This Python's OpenSSL cannot be reached: {error}.") from error
    version = loaded.OpenSSL_version(0)
    if version is None or version.decode() != ssl.OPENSSL_VERSION:
        raise TlsBridgeUnsupported("Another OpenSSL was found than the one that this Python's ssl module uses.")
    return loaded


def check(result: int | None, what: str) -> int:
    """``result``, or ssl.SSLError with OpenSSL's reasons when it says failure (NULL, 0 or less)."""
    if result is not None and result > 0:
        return result
    raise ssl.SSLError(f"{what} failed: {drain() or 'no reason given'}")


def drain() -> str:
    """Empty this thread's error queue; what was in it, oldest first."""
    lib = library()
    reasons = []
    while code := lib.ERR_get_error():
        buffer = ctypes.create_string_buffer(256)
        lib.ERR_error_string_n(code, buffer, len(buffer))
        reasons.append(buffer.value.decode("ascii", "replace"))
    return "; ".join(reasons)
