"""A file that a command writes: whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidArgument, OutputLost

LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What an output fails with that could be begun."""


@contextmanager
def written(file: str) -> Iterator[int]:
    """A descriptor to write to what is to be ``file`` (mode 0600), in whose place it comes at the end, on the disk for
    good; whatever is raised meanwhile, nothing of it is left. Raises InvalidArgument, OutputLost."""
    target = Path(file)
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
            os.fsync(descriptor)
            partial.replace(target)
        finally:
            os.close(descriptor)
            partial.unlink(missing_ok=True)
        _sync(target.parent)
    except OSError as error:
        what = f"{file} cannot be written: {error.strerror}"
        raise (OutputLost(what) if error.errno in LOST else InvalidArgument(what)) from None


def _sync(directory: Path) -> None:
    """After this the rename has survived a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
