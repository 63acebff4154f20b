"""The one bridge into OpenSSL: TLS with a key that stays in the token.

Python's ``ssl`` takes private keys from files only. Here OpenSSL gets a key of its own kind that holds the public half
and calls back for each signature (EC_KEY_METHOD, RSA_METHOD): OpenSSL marks such a key as foreign and leaves its own
arithmetic out. ``bind`` is all that the rest of the daemon knows of it.

Lifetimes. There is one method for a kind of key and one EVP_PKEY for a key; neither is ever freed, because a context
somewhere, or a connection made from it, may still call back. That costs a few KB for each generation of a key that
the process has used. The signature is made inside the handshake and blocks that thread.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import ssl
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import GatewayError, TlsBridgeUnsupported
from . import openssl, tls_proof
from .base import Priority, Scheme
from .openssl import check
from .signer import TokenEcKey, TokenRsaKey

log = logging.getLogger(__name__)

Key = TokenEcKey | TokenRsaKey


def bind(
    ctx: ssl.SSLContext,
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    """Have ``ctx`` present ``certificate`` and ``chain`` (issuer first) and sign with ``key``, as client or server.

    ``key`` is one that ``KeyStore.private_key`` made. Binding again replaces the certificate for the handshakes to
    come; when the kind of key changes (EC, RSA), take a fresh context, for OpenSSL would go on offering the other
    one. Not while another thread is in a handshake with this context.

    Raises TlsBridgeUnsupported; ValueError, and leaves the context as it was, when the key is not in the token or not
    the certificate's, or the context holds a certificate of the other kind; ssl.SSLError when OpenSSL refuses the
    certificate or the chain. A signature that fails later fails that handshake with ssl.SSLError; the log says why.
    """
    prove()
    _bind(ctx, certificate, chain, key)


def judge_at(ctx: ssl.SSLContext, moment: datetime | None) -> None:
    """Have ``ctx`` judge its peers' certificates as of ``moment``, in the handshakes to come; None: as of the machine's
    time again."""
    prove()
    lib = openssl.library()
    param = lib.SSL_CTX_get0_param(_context_pointer(ctx))
    if moment is None:
        lib.X509_VERIFY_PARAM_clear_flags(param, openssl.X509_V_FLAG_USE_CHECK_TIME)
    else:
        lib.X509_VERIFY_PARAM_set_time(param, int(moment.timestamp()))


@functools.cache
def prove() -> None:
    """Prove once, at start-up, that the bridge works with this Python and this OpenSSL.

    The SSL_CTX is taken from an address inside the SSLContext object; that it is one is shown by its options. Then
    server and client shake hands in memory, each with a key made for this behind the bridge, first EC and then RSA.
    Raises TlsBridgeUnsupported.
    """
    if sys.implementation.name != "cpython":
        raise TlsBridgeUnsupported(f"The TLS bridge knows CPython only, not {sys.implementation.name}.")
    _prove_layout()
    try:
        tls_proof.shake_hands(_bind)
    except (ssl.SSLError, ValueError) as error:
        raise TlsBridgeUnsupported(f"A trial handshake through the TLS bridge failed: {error}.") from error


def _prove_layout() -> None:
    lib = openssl.library()
    for extra in (0, ssl.OP_NO_TICKET, ssl.OP_NO_RENEGOTIATION):
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.options |= extra
        pointer = _context_pointer(ctx)
        if not pointer or lib.SSL_CTX_get_options(pointer) != ctx.options:
            raise TlsBridgeUnsupported("The SSLContext of this Python is not laid out as expected.")


def _context_pointer(ctx: ssl.SSLContext) -> int | None:
    """The SSL_CTX *: the first field after the object's head (PySSLContext in Modules/_ssl.c)."""
    return ctypes.c_void_p.from_address(id(ctx) + object.__basicsize__).value


def _bind(
    ctx: ssl.SSLContext,
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    if not isinstance(key, TokenEcKey | TokenRsaKey):
        raise ValueError("only a key in the token can be bound")
    if certificate.public_key() != key.public_key():
        raise ValueError("the certificate is not for this key")
    lib = openssl.library()
    lib.ERR_clear_error()
    pointer = _context_pointer(ctx)
    pkey = _pkey(key)
    present = lib.SSL_CTX_get0_certificate(pointer)
    if present and lib.EVP_PKEY_get_base_id(lib.X509_get0_pubkey(present)) != lib.EVP_PKEY_get_base_id(pkey):
        raise ValueError("the context holds a certificate for another kind of key: take a fresh one")
    with _X509(certificate) as x:
        check(lib.SSL_CTX_use_certificate(pointer, x), "SSL_CTX_use_certificate")
    # The chain belongs to the certificate used last.
    check(lib.SSL_CTX_ctrl(pointer, openssl.SSL_CTRL_CHAIN, 0, None), "SSL_CTX_clear_chain_certs")
    for each in chain:
        with _X509(each) as x:
            check(lib.SSL_CTX_ctrl(pointer, openssl.SSL_CTRL_CHAIN_CERT, 1, x), "SSL_CTX_add1_chain_cert")
    check(lib.SSL_CTX_use_PrivateKey(pointer, pkey), "SSL_CTX_use_PrivateKey")
    check(lib.SSL_CTX_check_private_key(pointer), "SSL_CTX_check_private_key")
    lib.ERR_clear_error()


class _X509:
    """A certificate as OpenSSL's X509, for as long as the block lasts."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self._der = certificate.public_bytes(Encoding.DER)
        self._pointer = 0

    def __enter__(self) -> int:
        self._pointer = check(_from_der("d2i_X509", self._der), "d2i_X509")
        return self._pointer

    def __exit__(self, *_: object) -> None:
        openssl.library().X509_free(self._pointer)


def _from_der(function: str, der: bytes) -> int | None:
    """Call a d2i function, which advances the pointer that it is given."""
    decoded: int | None = getattr(openssl.library(), function)(None, ctypes.byref(ctypes.c_char_p(der)), len(der))
    return decoded


# --- keys that call back -------------------------------------------------------------------------

_lock: Final = threading.Lock()
_pkeys: Final[dict[bytes, tuple[int, int]]] = {}
"""SubjectPublicKeyInfo → its EVP_PKEY *, and the EC_KEY * or RSA * inside."""
_keys: Final[dict[int, Key]] = {}
"""EC_KEY * or RSA * → the key that signs for it."""


def _pkey(key: Key) -> int:
    """The EVP_PKEY for this key. A newer signer for the same key takes over for contexts bound earlier too."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with _lock:
        if spki not in _pkeys:
            _pkeys[spki] = _make_ec(spki) if isinstance(key, TokenEcKey) else _make_rsa(spki)
        pkey, inner = _pkeys[spki]
        _keys[inner] = key
        return pkey


def _make_ec(spki: bytes) -> tuple[int, int]:
    lib = openssl.library()
    inner = check(_from_der("d2i_EC_PUBKEY", spki), "d2i_EC_PUBKEY")
    try:
        # Before EVP_PKEY_set1_EC_KEY, which is where OpenSSL looks whether the key is foreign.
        check(lib.EC_KEY_set_method(inner, _ec_method()), "EC_KEY_set_method")
        return _wrap(inner, "EVP_PKEY_set1_EC_KEY"), inner
    finally:
        lib.EC_KEY_free(inner)


def _make_rsa(spki: bytes) -> tuple[int, int]:
    lib = openssl.library()
    inner = check(_from_der("d2i_RSA_PUBKEY", spki), "d2i_RSA_PUBKEY")
    try:
        check(lib.RSA_set_method(inner, _rsa_method()), "RSA_set_method")
        return _wrap(inner, "EVP_PKEY_set1_RSA"), inner
    finally:
        lib.RSA_free(inner)


def _wrap(inner: int, set1: str) -> int:
    """An EVP_PKEY that holds a reference of its own to ``inner``."""
    lib = openssl.library()
    pkey = check(lib.EVP_PKEY_new(), "EVP_PKEY_new")
    try:
        check(getattr(lib, set1)(pkey, inner), set1)
    except ssl.SSLError:
        lib.EVP_PKEY_free(pkey)
        raise
    return pkey


@functools.cache
def _ec_method() -> int:
    lib = openssl.library()
    method = check(lib.EC_KEY_METHOD_new(lib.EC_KEY_OpenSSL()), "EC_KEY_METHOD_new")
    # Nothing but ``sign`` is offered: whatever else would want the private key fails.
    lib.EC_KEY_METHOD_set_sign(method, _EC_SIGN, None, None)
    return method


@functools.cache
def _rsa_method() -> int:
    lib = openssl.library()
    method = check(lib.RSA_meth_dup(lib.RSA_PKCS1_OpenSSL()), "RSA_meth_dup")
    check(lib.RSA_meth_set_priv_enc(method, _RSA_PRIVATE_ENCRYPT), "RSA_meth_set_priv_enc")
    return method


def _on_ec_sign(
    _type: int, digest: int, length: int, signature: int, size: Any, _kinv: int, _r: int, inner: int
) -> int:
    """OpenSSL wants an ECDSA signature in DER."""
    try:
        key = _keys[inner]
        assert isinstance(key, TokenEcKey)
        made = key.sign_digest(ctypes.string_at(digest, length), Priority.HANDSHAKE)
        size[0] = _deliver(made, signature, openssl.library().ECDSA_size(inner))
        return 1
    except BaseException as error:  # nothing may cross into C
        _report(error)
        return 0


def _on_rsa_private_encrypt(length: int, data: int, signature: int, inner: int, padding: int) -> int:
    """OpenSSL wants the private key applied: to a DigestInfo (padding 1), or to a block it has padded (3, PSS)."""
    try:
        key = _keys[inner]
        assert isinstance(key, TokenRsaKey)
        scheme = {openssl.RSA_PKCS1_PADDING: Scheme.RSA_PKCS1, openssl.RSA_NO_PADDING: Scheme.RSA_RAW}[padding]
        made = key.private_operation(scheme, ctypes.string_at(data, length), Priority.HANDSHAKE)
        return _deliver(made, signature, openssl.library().RSA_size(inner))
    except BaseException as error:  # nothing may cross into C
        _report(error)
        return -1


# ctypes does not keep what it has handed to C alive; these do, for as long as the process runs.
_EC_SIGN: Final = openssl.EC_SIGN(_on_ec_sign)
_RSA_PRIVATE_ENCRYPT: Final = openssl.RSA_PRIVATE_ENCRYPT(_on_rsa_private_encrypt)


def _deliver(made: bytes, target: int, room: int) -> int:
    if len(made) > room:
        raise ValueError(f"a signature of {len(made)} bytes does not fit into {room}")
    ctypes.memmove(target, made, len(made))
    return len(made)


def _report(error: BaseException) -> None:
    """All that is known of a failed signature: the peer and the caller only see that the handshake failed."""
    reason = f"{error.name()}: {error.message}" if isinstance(error, GatewayError) else repr(error)
    log.error("the signature for a TLS handshake failed: %s", reason)
