"""The token's PIN: from where it may come, and a holder that does not show it."""

from __future__ import annotations

import os
import stat
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


def from_fd(fd: int, source_name: str = "") -> Pin:
    """Read the PIN from an inherited file descriptor to its end, and close it. Raises PinMissing."""
    source_name = source_name or f"file descriptor {fd}"
    try:
        with os.fdopen(fd, "rb") as source:
            raw = source.read(_LONGEST + 3)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file descriptor"
        raise PinMissing(f"The PIN could not be read from {source_name}: {reason}.") from None
    return _pin(raw, source_name)


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


def from_file(path: Path) -> Pin:
    """Read the PIN from a file of ours or root's that nobody but its owner can read (0400), and no link.
    Raises PinMissing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PinMissing(f"The PIN file {path} could not be read: {error.strerror}.") from None
    facts = os.fstat(fd)
    mode = stat.S_IMODE(facts.st_mode)
    flaw = None
    if not stat.S_ISREG(facts.st_mode):
        flaw = "is not a regular file"
    elif mode & ~stat.S_IRUSR:
        flaw = f"has mode {mode:04o}: it must be 0400, readable by its owner and nothing else"
    elif facts.st_uid not in (0, os.geteuid()):
        flaw = f"belongs to uid {facts.st_uid}: it must be the daemon's own or root's"
    if flaw is not None:
        os.close(fd)
        raise PinMissing(f"The PIN file {path} {flaw}.")
    return from_fd(fd, f"PIN file {path}")


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
