"""What is made of a TPM's answer, or of none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from gatewayd.keys.tpm import Lockout, lockout


def answer(failures: int, allowed: int, seconds: int, *, code: int = 0) -> bytes:
    values = struct.pack(">IIIIII", 0x20E, failures, 0x20F, allowed, 0x210, seconds)
    return struct.pack(">HIIBII", 0x8001, 43, code, 0, 6, 3) + values


@pytest.mark.parametrize(
    ("said", "made_of_it"),
    [
        (answer(1, 32, 7200), Lockout(31, 7200)),
        (answer(33, 32, 600), Lockout(0, 600)),
        (answer(1, 32, 7200, code=0x101), None),
        (answer(1, 32, 7200)[:30], None),
        (b"", None),
    ],
)
def test_the_tries_that_are_left(said: bytes, made_of_it: Lockout | None, tmp_path: Path) -> None:
    """The TPM is a command that hears the 22 bytes of the question out, and says this whatever it was."""
    file = tmp_path / "answer"
    file.write_bytes(said)
    tpm = f"cmd:head -c 22 >/dev/null; exec cat {file}"
    assert lockout({"TPM2_PKCS11_TCTI": tpm, "TSS2_LOG": "all+none"}) == made_of_it


@pytest.mark.parametrize("tcti", ["nonsense:", "swtpm:port=1", "device:/nonexistent"])
def test_a_tpm_that_cannot_be_asked_says_nothing(tcti: str) -> None:
    assert lockout({"TPM2_PKCS11_TCTI": tcti}) is None
