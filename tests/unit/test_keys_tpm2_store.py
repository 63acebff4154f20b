"""What is read of tpm2-pkcs11's file, whoever wrote it: the module, or its tpm2_ptool."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatewayd.errors import AttestationUnsupported, TokenFault
from gatewayd.keys import tpm2_store
from gatewayd.keys.pin import Pin

WRAPPING_KEY = bytes(range(32))
SEALED = AESGCM(WRAPPING_KEY).encrypt(bytes(12), b"secret of the key", None)
ENCRYPTED = ":".join(part.hex() for part in (bytes(12), SEALED[-16:], SEALED[:-16])).encode().hex()
ATTRIBUTES = {0: "3", 2: "true", 258: "0102", 3: "6777", 2399141891: "0001aa", 2399141890: "0001bb"}
ATTRIBUTES |= {2399141889: ENCRYPTED}

BY_MODULE = "---\n!!map {\n" + "".join(f'  ? !!int "{k}"\n  : !!str "{v}",\n' for k, v in ATTRIBUTES.items())
BY_PTOOL = "".join(f"{key}: {value if key in (0, 2) else repr(value)}\n" for key, value in ATTRIBUTES.items())
NAME = "000b" + bytes(range(32)).hex()
PRIMARY = "810000010022" + NAME + 8 * "00"
PRIMARY_BY_MODULE = f'  ? !!str "transient"\n  : !!bool "false",\n  ? !!str "esys-tr"\n  : !!str "{PRIMARY}",\n'
PRIMARY_BY_PTOOL = f"esys-tr: '{PRIMARY}'\ntransient: false\n"


def store(directory: Path, primary: str, attributes: str) -> dict[str, str]:
    with sqlite3.connect(directory / "tpm2_pkcs11.sqlite3") as database:
        database.executescript(
            "CREATE TABLE pobjects (id, hierarchy, config, objauth); CREATE TABLE tokens (id, pid, label, config);"
            "CREATE TABLE sealobjects (id, tokid, userpub, userpriv, userauthsalt);"
            "CREATE TABLE tobjects (id, tokid, attrs)"
        )
        database.execute("INSERT INTO pobjects VALUES (1, 'o', ?, 'above')", (primary,))
        database.execute("INSERT INTO tokens VALUES (7, 1, 'gatewayd', '')")
        database.execute("INSERT INTO sealobjects VALUES (1, 7, x'11', x'22', 'ab12')")
        database.execute("INSERT INTO tobjects VALUES (1, 7, ?)", (attributes.replace("0102", "0101"),))
        database.execute("INSERT INTO tobjects VALUES (2, 7, ?)", (attributes,))
    database.close()
    return {"TPM2_PKCS11_STORE": str(directory)}


@pytest.mark.parametrize(
    ("primary", "attributes"), [(PRIMARY_BY_MODULE, BY_MODULE), (PRIMARY_BY_PTOOL, BY_PTOOL)], ids=["module", "ptool"]
)
def test_a_key_and_its_secret_are_found(tmp_path: Path, primary: str, attributes: str) -> None:
    found = tpm2_store.find("gatewayd", b"\x01\x02", store(tmp_path, primary, attributes))
    assert (found.parent, found.parent_auth) == (0x81000001, b"above")
    assert found.parent_name.hex() == NAME
    assert found.sealed == tpm2_store.Wrapped(private=b"\x22", public=b"\x11")
    assert found.key == tpm2_store.Wrapped(private=bytes.fromhex("0001aa"), public=bytes.fromhex("0001bb"))
    # SHA-256 of "1234ab12".
    assert found.pin_auth(Pin("1234")) == b"f05a479d94daf83d83790af7aaf7bf9f"
    assert found.unwrapped_auth(WRAPPING_KEY.hex().encode()) == b"secret of the key"
    for wrong in (bytes(32).hex().encode(), b"no key"):
        with pytest.raises(TokenFault):
            found.unwrapped_auth(wrong)
    assert "above" not in repr(found)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AttestationUnsupported, match="no store"):
        tpm2_store.find("gatewayd", b"\x01\x02", {"TPM2_PKCS11_STORE": str(tmp_path)})
    environ = store(tmp_path, "transient: true\n", BY_PTOOL)
    with pytest.raises(AttestationUnsupported, match="does not have it"):
        tpm2_store.find("another", b"\x01\x02", environ)
    with pytest.raises(AttestationUnsupported, match="not kept in the TPM"):
        tpm2_store.find("gatewayd", b"\x01\x02", environ)
    (tmp_path / "tpm2_pkcs11.sqlite3").write_bytes(b"no database, by any means" * 100)
    with pytest.raises(TokenFault, match="DatabaseError"):
        tpm2_store.find("gatewayd", b"\x01\x02", environ)
