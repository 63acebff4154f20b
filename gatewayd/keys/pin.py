"""The token's PIN: from where it may come, and a holder that does not show it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from ..errors import PinMissing

_LONGEST: Final = 255
"""Bytes; what SoftHSM takes at most, and more than a TPM does."""


class Pin:
    """A PIN on its way to C_Login. Neither printed, compared, copied into a pickle nor iterated by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """For the call into the token, and for nothing else."""
        return self._value

    def __repr__(self) -> str:
        return "Pin(hidden)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PIN is not serialised")


def from_fd(fd: int) -> Pin:
    """Read the PIN from an inherited file descriptor to its end, and close it. Raises PinMissing."""
    try:
        with os.fdopen(fd, "rb") as source:
            raw = source.read(_LONGEST + 3)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file descriptor"
        raise PinMissing(f"The PIN could not be read from file descriptor {fd}: {reason}.") from None
    return _pin(raw, f"file descriptor {fd}")


def from_credential(name: str, environ: Mapping[str, str] = os.environ) -> Pin:
    """Read the systemd credential ``$CREDENTIALS_DIRECTORY/<name>`` (systemd.exec(5)). Raises PinMissing."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise PinMissing(f"There is no systemd credential {name!r}: CREDENTIALS_DIRECTORY is not set.")
    if not name or "/" in name or name in (".", ".."):
        raise PinMissing(f"{name!r} cannot be the name of a systemd credential.")
    try:
        with (Path(directory) / name).open("rb") as source:
            raw = source.read(_LONGEST + 3)
    except OSError as error:
        raise PinMissing(f"The systemd credential {name!r} could not be read: {error.strerror}.") from None
    return _pin(raw, f"systemd credential {name!r}")


def _pin(raw: bytes, source: str) -> Pin:
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not raw:
        raise PinMissing(f"The {source} is empty where the PIN should be.")
    if len(raw) > _LONGEST or b"\n" in raw or b"\0" in raw:
        raise PinMissing(f"The {source} must hold the PIN alone: one line of at most {_LONGEST} bytes.")
    try:
        return Pin(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise PinMissing(f"The PIN in {source} is not UTF-8.") from None
