"""An authorization session with a TPM: what proves the knowledge of a secret without sending it.

The session's key is agreed upon with a key of the TPM's own (the salt), so that whoever listens on the wires between
the processor and the chip learns neither an authorization nor what an answer holds (TPM 2.0 Part 1, 17 and 19).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from .tpm_types import Reader, TpmError, ecc_point, public_key, sized

PASSWORD: Final = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
"""TPM_RS_PW with an empty password: for what has no secret."""

_CONTINUE: Final = 0x01
_ENCRYPT: Final = 0x40
"""TPMA_SESSION (Part 2, 8.4): the session stays; the answer's first parameter comes encrypted."""
_NONCE: Final = 16


def salt(public: bytes) -> tuple[bytes, bytes]:
    """A secret for this key of the TPM (TPMT_PUBLIC), and the same encrypted for it (Part 1, B.10.3 and C.6.1)."""
    key = public_key(public)
    if isinstance(key, rsa.RSAPublicKey):
        secret = os.urandom(32)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"SECRET\0")
        return secret, key.encrypt(secret, oaep)
    ours = ec.generate_private_key(key.curve)
    shared = ours.exchange(ec.ECDH(), key)
    parties = [ecc_point(each) for each in (ours.public_key(), key)]
    (our_x, our_y), (their_x, _) = parties
    secret = hashlib.sha256(struct.pack(">I", 1) + shared + b"SECRET\0" + our_x + their_x).digest()
    return secret, sized(our_x) + sized(our_y)


def policy(handle: int) -> bytes:
    """A policy session's place in a command; the session ends with it."""
    return struct.pack(">IHBH", handle, 0, 0, 0)


class Session:
    """One HMAC session with SHA-256 and XOR."""

    def __init__(self, handle: int, secret: bytes, nonce: bytes, tpm_nonce: bytes) -> None:
        """``secret`` is the salt; the nonces are those that TPM2_StartAuthSession has exchanged."""
        self.handle = handle
        self._key = _kdfa(secret, b"ATH", tpm_nonce, nonce, 32)
        self._nonce, self._tpm_nonce = nonce, tpm_nonce
        self._attributes = 0
        self._secret = b""

    def authorize(self, auth: bytes, code: int, names: list[bytes], parameters: bytes, *, encrypt: bool) -> bytes:
        """The session's place in this command. ``auth`` is the secret of the first thing that it names."""
        self._secret = self._key + auth.rstrip(b"\0")
        self._attributes = _CONTINUE | (_ENCRYPT if encrypt else 0)
        self._nonce = os.urandom(_NONCE)
        subject = hashlib.sha256(struct.pack(">I", code) + b"".join(names) + parameters).digest()
        proof = self._hmac(subject, self._nonce, self._tpm_nonce, self._attributes)
        return struct.pack(">I", self.handle) + sized(self._nonce) + bytes([self._attributes]) + sized(proof)

    def accept(self, code: int, parameters: bytes, auths: Reader) -> bytes:
        """The parameters of the answer, in the clear. Raises TpmError when it is not the TPM's."""
        self._tpm_nonce, attributes, proof = auths.sized(), auths.take(1)[0], auths.sized()
        subject = hashlib.sha256(struct.pack(">II", 0, code) + parameters).digest()
        if not hmac.compare_digest(proof, self._hmac(subject, self._tpm_nonce, self._nonce, attributes)):
            raise TpmError("the answer to a command is not from the TPM that was asked")
        if not self._attributes & _ENCRYPT:
            return parameters
        length = struct.unpack_from(">H", parameters)[0]
        first, rest = parameters[2 : 2 + length], parameters[2 + length :]
        mask = _kdfa(self._secret, b"XOR", self._tpm_nonce, self._nonce, length)
        return sized(bytes(a ^ b for a, b in zip(first, mask, strict=True))) + rest

    def _hmac(self, subject: bytes, newer: bytes, older: bytes, attributes: int) -> bytes:
        return hmac.digest(self._secret, subject + newer + older + bytes([attributes]), "sha256")


def _kdfa(key: bytes, label: bytes, newer: bytes, older: bytes, length: int) -> bytes:
    """KDFa with SHA-256 (Part 1, 11.4.10.2)."""
    fixed = label + b"\0" + newer + older + struct.pack(">I", 8 * length)
    blocks = range(1, -(-length // 32) + 1)
    return b"".join(hmac.digest(key, struct.pack(">I", each) + fixed, "sha256") for each in blocks)[:length]
