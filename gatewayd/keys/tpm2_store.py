"""What tpm2-pkcs11 keeps of a token and of a key in it, in its SQLite file (1.x; its own tpm2_ptool reads the same).

A key's blobs are encrypted for the one TPM. The secret without which the TPM does not use the key is encrypted under
the token's wrapping key; and that is an object sealed in the TPM, whose secret is made of the user PIN.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import AttestationUnsupported, TokenFault
from . import room
from .pin import Pin

_FILE: Final = "tpm2_pkcs11.sqlite3"
_PRIVATE_KEY: Final = 3
_CLASS, _ID = 0x0, 0x102
_OBJECT_AUTH, _PUBLIC, _PRIVATE = 0x8F000001, 0x8F000002, 0x8F000003
"""CKA_CLASS and CKA_ID, and tpm2-pkcs11's own CKA_TPM2_OBJAUTH_ENC, CKA_TPM2_PUB_BLOB and CKA_TPM2_PRIV_BLOB."""

_ATTRIBUTE: Final = re.compile(
    r"""["']?(\d+)["']?\s*:\s*(?:!!\w+\s+)?(["']?)([0-9a-fA-F]+)\2(?=[,\s])""",
)
"""In YAML, as the module writes it (``? !!int "258" : !!str "0102"``) or as tpm2_ptool does (``258: '0102'``)."""
_PERSISTENT: Final = re.compile(
    r"""["']?esys-tr["']?\s*:\s*(?:!!str\s+)?["']?([0-9a-fA-F]{8})0022(000[bB][0-9a-fA-F]{64})""",
)
"""A serialised ESYS_TR, which begins with the handle and the name (TPM2B_NAME)."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A private and a public blob: TPM2B_PRIVATE and TPM2B_PUBLIC."""

    private: bytes
    public: bytes


@dataclass(frozen=True, slots=True)
class StoredKey:
    parent: int
    """The persistent handle of the key above all of the token's."""
    parent_name: bytes
    parent_auth: bytes = field(repr=False)
    sealed: Wrapped
    """The wrapping key."""
    salt: str
    key: Wrapped
    key_auth: str = field(repr=False)
    """Encrypted: IV, tag and ciphertext in hex."""

    def pin_auth(self, pin: Pin) -> bytes:
        """What unseals the wrapping key."""
        return hashlib.sha256((pin.reveal() + self.salt).encode()).hexdigest()[:32].encode()

    def unwrapped_auth(self, wrapping_key: bytes) -> bytes:
        """The secret of the key itself. Raises TokenFault."""
        try:
            iv, tag, encrypted = (bytes.fromhex(each) for each in self.key_auth.split(":"))
            return AESGCM(bytes.fromhex(wrapping_key.decode())).decrypt(iv, encrypted + tag, None)
        except (ValueError, InvalidTag):
            raise TokenFault("What tpm2-pkcs11 keeps of this key cannot be decrypted.") from None


def find(label: str, key_id: bytes, environ: Mapping[str, str] = os.environ) -> StoredKey:
    """The private key with this id in the token. Raises AttestationUnsupported when tpm2-pkcs11 has none there, and
    TokenFault when its file cannot be read."""
    path = next((each / _FILE for each in room.tpm2_pkcs11(environ) if (each / _FILE).exists()), None)
    if path is None:
        raise AttestationUnsupported(f"The token {label!r} is not in a TPM: there is no store of tpm2-pkcs11.")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return _find(database, label, key_id)
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise TokenFault(f"{path} cannot be read ({type(error).__name__}).") from error


def _find(database: sqlite3.Connection, label: str, key_id: bytes) -> StoredKey:
    token = database.execute(
        "SELECT tokens.id, pobjects.config, objauth, userpriv, userpub, userauthsalt FROM tokens"
        " JOIN pobjects ON pobjects.id = tokens.pid JOIN sealobjects ON sealobjects.tokid = tokens.id"
        " WHERE label = ?",
        (label,),
    ).fetchone()
    if token is None:
        raise AttestationUnsupported(f"The token {label!r} is not in a TPM: tpm2-pkcs11 does not have it.")
    token_id, config, parent_auth, private, public, salt = token
    handle = _PERSISTENT.search(config)
    if handle is None:
        raise AttestationUnsupported(f"The key above all keys of the token {label!r} is not kept in the TPM.")
    for (text,) in database.execute("SELECT attrs FROM tobjects WHERE tokid = ?", (token_id,)):
        attributes = {int(number): value for number, _, value in _ATTRIBUTE.findall(text)}
        if attributes.get(_CLASS) == str(_PRIVATE_KEY) and attributes.get(_ID, "").lower() == key_id.hex():
            return StoredKey(
                parent=int(handle[1], 16),
                parent_name=bytes.fromhex(handle[2]),
                parent_auth=parent_auth.encode(),
                sealed=Wrapped(private, public),
                salt=salt,
                key=Wrapped(bytes.fromhex(attributes[_PRIVATE]), bytes.fromhex(attributes[_PUBLIC])),
                key_auth=bytes.fromhex(attributes[_OBJECT_AUTH]).decode(),
            )
    raise AttestationUnsupported(f"The token {label!r} that tpm2-pkcs11 has in the TPM does not hold the key.")
