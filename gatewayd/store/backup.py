"""A backup: a tar of ``manifest.json`` and ``gatewayd.db``, a consistent copy of the database that may be in use.

There is no key, PIN or code in it: the database holds none, and the hashes of the enrollment codes are left out, so
that a code that was used up since does not work again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from .. import __version__
from ..core import audit
from ..errors import BackupUnusable, OutputLost, StoreBroken
from .faults import broken
from .journal import JournalRows
from .migrations import version_of

FORMAT: Final = "gatewayd backup 1"
_MANIFEST: Final = "manifest.json"
_DATABASE: Final = "gatewayd.db"
_LARGEST_MANIFEST: Final = 64 * 1024
_PIECE: Final = 1024 * 1024
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Manifest:
    format: str
    version: str
    """Of gatewayd."""
    schema: int
    device_id: str
    """The gateway's."""
    created_at: str
    """RFC 3339, UTC."""
    devices: int
    credentials: int
    revocations: int
    journal_records: int
    journal_hash: str
    """Hex: the newest of the audit trail."""
    sha256: str
    """Hex, of the database."""
    size: int
    """Bytes."""


@contextlib.contextmanager
def opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    with closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    ) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def make(database: Path, scratch: Path, target: IO[bytes], now: datetime) -> Manifest:
    """Write a backup of ``database`` to ``target``, by way of the file ``scratch``. Nobody waits for it: the copy is
    made from a snapshot. Raises StoreBroken, and OutputLost when there is no room for it."""
    with contextlib.suppress(FileNotFoundError):
        scratch.unlink()
    try:
        os.close(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with opened(database, "ro") as source:
            source.execute("VACUUM INTO ?", (str(scratch),))
        with opened(scratch, "rw") as copy:
            copy.execute("PRAGMA secure_delete = ON")
            copy.execute("DELETE FROM enrollment_codes")
            check(copy)
            manifest = _describe(copy, scratch, now)
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.USTAR_FORMAT) as tar, scratch.open("rb") as file:
            text = (json.dumps(asdict(manifest), indent=2) + "\n").encode()
            for name, size, content in ((_MANIFEST, len(text), io.BytesIO(text)), (_DATABASE, manifest.size, file)):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = size, 0o600, int(now.timestamp())
                tar.addfile(entry, content)
        target.flush()
    except sqlite3.Error as error:
        raise broken(error, database) from error
    except OSError as error:
        what = f"The backup could not be written: {error.strerror}."
        raise (OutputLost(what) if error.errno in _FULL else StoreBroken(what)) from error
    finally:
        scratch.unlink(missing_ok=True)
    return manifest


def check(connection: sqlite3.Connection) -> None:
    """Raises StoreBroken when the database is not whole."""
    found = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise StoreBroken(f"The database is damaged: {'; '.join(found)}.")
    if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise StoreBroken("The database is damaged: its records do not fit together.")


def _describe(copy: sqlite3.Connection, path: Path, now: datetime) -> Manifest:
    counts = [
        copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - one of these constants
        for table in ("devices", "credentials", "revocations", "journal")
    ]
    (gateway,) = copy.execute("SELECT device_id FROM devices WHERE kind = 'gateway'").fetchone()
    last = copy.execute("SELECT hash FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Manifest(
        format=FORMAT,
        version=__version__,
        schema=version_of(copy),
        device_id=gateway,
        created_at=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        devices=counts[0],
        credentials=counts[1],
        revocations=counts[2],
        journal_records=counts[3],
        journal_hash=(audit.FIRST if last is None else bytes(last["hash"])).hex(),
        sha256=digest,
        size=path.stat().st_size,
    )


def unpack(source: IO[bytes], target: Path) -> Manifest:
    """Take the database out of a backup, into the file ``target``, and check it against the manifest, as far as that
    can be done without opening it. Raises BackupUnusable, StoreBroken."""
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            manifest = _manifest(tar)
            entry = tar.next()
            content = tar.extractfile(entry) if entry is not None and entry.name == _DATABASE else None
            if content is None:
                raise BackupUnusable("There is no database in it.")
            _write(content, target, manifest)
    except (tarfile.TarError, EOFError) as error:
        raise BackupUnusable(f"It is not a backup of gatewayd, or it was cut off ({error}).") from None
    except OSError as error:
        raise StoreBroken(f"The backup could not be unpacked: {error.strerror or error}.") from error
    return manifest


def _manifest(tar: tarfile.TarFile) -> Manifest:
    entry = tar.next()
    content = tar.extractfile(entry) if entry is not None and entry.name == _MANIFEST else None
    if content is None:
        raise BackupUnusable("It is not a backup of gatewayd: it does not begin with a manifest.")
    try:
        manifest = Manifest(**json.loads(content.read(_LARGEST_MANIFEST)))
    except (ValueError, TypeError, RecursionError):
        raise BackupUnusable("Its manifest cannot be read.") from None
    if manifest.format != FORMAT:
        raise BackupUnusable(f"Its format is {manifest.format!r}, and this gatewayd reads {FORMAT!r}.")
    return manifest


def _write(content: IO[bytes], target: Path, manifest: Manifest) -> None:
    target.unlink(missing_ok=True)
    digest, size = hashlib.sha256(), 0
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as out:
        while piece := content.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    if size != manifest.size or digest.hexdigest() != manifest.sha256:
        raise BackupUnusable("Its database is not the one that its manifest describes.")


def check_trail(journal: JournalRows) -> None:
    """Raises BackupUnusable when the audit trail in it is not a whole chain."""
    verification = audit.Verification((), lambda _: False)
    first = 1
    while records := journal.records(first, 1000):
        verification.take(records)
        first = records[-1].seq + 1
    if findings := verification.findings(journal.written()):
        words = "; ".join(f"{each.fault} {each.first}-{each.last}" for each in findings[:5])
        raise BackupUnusable(f"Its audit trail is not as it was written: {words}.")
