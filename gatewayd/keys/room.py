"""Whether there is room where a token keeps its keys.

Of a full disk a module says no more than that something went wrong (SoftHSM CKR_FUNCTION_FAILED, tpm2-pkcs11
CKR_GENERAL_ERROR). So it is tried out, and only once the module has failed.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_ENOUGH: Final = 64 * 1024
"""Octets: more than any key takes, with a database's journal."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def full_place(library: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The directory in which this library (by its manufacturer) keeps its tokens, if nothing more can be written
    there; None also when it keeps them elsewhere."""
    for place in _places(library, environ):
        try:
            with tempfile.TemporaryFile(dir=place, buffering=0) as probe:
                if probe.write(bytes(_ENOUGH)) < _ENOUGH:
                    return place
                os.fsync(probe.fileno())
        except OSError as error:
            if error.errno in _FULL:
                return place
    return None


def _places(library: str, environ: Mapping[str, str]) -> list[Path]:
    if library.startswith("SoftHSM"):
        return _softhsm(Path(environ.get("SOFTHSM2_CONF") or "/etc/softhsm/softhsm2.conf"))
    if library.startswith("tpm2-software"):
        return tpm2_pkcs11(environ)
    return []


def _softhsm(configuration: Path) -> list[Path]:
    try:
        found = re.search(r"^\s*directories\.tokendir\s*=\s*(.*?)\s*$", configuration.read_text(), re.M)
    except (OSError, UnicodeDecodeError):
        return []
    return [Path(found[1])] if found else []


def tpm2_pkcs11(environ: Mapping[str, str]) -> list[Path]:
    """Where tpm2-pkcs11 looks for its store, in that order."""
    if chosen := environ.get("TPM2_PKCS11_STORE"):
        return [Path(chosen)]
    return [Path("/etc/tpm2_pkcs11"), Path(environ.get("HOME", "/")) / ".tpm2_pkcs11"]
