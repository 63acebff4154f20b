"""Where the database lies on the disk: who may read it, and that one process alone works on it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from ..errors import StoreBroken, StoreInUse


def claim(path: Path) -> int:
    """Make the directory (0700) and the database file (0600) where they are missing, and take the lock beside it.

    Returns the lock's file descriptor: closing it, or the end of the process, however it comes, releases the lock.
    The process's umask is left alone: modes are given at creation, and SQLite gives its -wal and -shm files the mode
    of the database. Raises StoreInUse, StoreBroken.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_open_directory(path.parent)
        lock = _lock(path)
    except OSError as error:
        raise StoreBroken(f"The state directory {path.parent} cannot be used: {error.strerror}.") from error
    try:
        # Only ever with the lock held: closing any descriptor of a database drops the process's own POSIX locks on it.
        os.close(_open_private(path))
    except OSError as error:
        os.close(lock)
        raise StoreBroken(f"The database {path} cannot be opened: {error.strerror}.") from error
    return lock


def _refuse_open_directory(directory: Path) -> None:
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreBroken(f"The state directory {directory} can be written by others (mode {mode:04o}): make it 0700.")


def _open_private(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o177:
        os.fchmod(descriptor, 0o600)
    return descriptor


def _lock(path: Path) -> int:
    descriptor = _open_private(path.with_name(path.name + ".lock"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreInUse(f"The database {path} is in use by another process ({holder or 'unknown'}).") from None
    except OSError:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def sync_directory(directory: Path) -> None:
    """After a rename in it: that has survived a power cut when this returns. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
