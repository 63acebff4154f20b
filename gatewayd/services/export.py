"""What other services of this machine (mosquitto, nginx) need to refuse a revoked certificate, as files.

- ``crl.pem``: the verified CRLs, one after the other, signed by the CA and therefore good for any TLS server;
- ``refused.json``: the certificates that are refused here, also those that the CA's CRL does not name yet.

Each takes its place by a rename, so that a reader finds the old one or the new one, whole; it is only written when it
differs. What is to be done then (most servers must be told to read them again) is up to who listens for ``EXPORTED``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from ..core.model import JournalEntry
from ..errors import GatewayError
from ..store.base import Store, Tx
from .clock import Clock
from .events import DAEMON, Alarm, Events
from .views import when

log = logging.getLogger(__name__)

EXPORTED = "revocations exported"
"""What happened, in the events of this process: a file of the directory has changed."""

_LONGEST_SLEEP = 3600.0
_SETTLE = 0.2
"""Seconds between two exports: a hundred revocations at once make a few."""
_LINE = 48
_LINES_AT_ONCE = 1024


class Export:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        directory: Path,
        mode: int,
        crls: Callable[[], Iterable[Path]],
    ) -> None:
        """``crls``: the files of the verified CRLs, in DER, in a fixed order; one that is missing is left out."""
        self._store = store
        self._clock = clock
        self._events = events
        self._directory = directory
        self._mode = mode
        self._crls = crls
        self._alarm = Alarm()
        self._exported: object = None

    def ring(self) -> None:
        self._alarm.ring()

    async def run(self) -> None:
        while True:
            try:
                if await self._export():
                    where = str(self._directory)
                    self._events.publish(JournalEntry(self._clock.now(), None, DAEMON, EXPORTED, "done", where))
            except GatewayError as error:
                log.error("export of revocations: %s", error)
            except OSError as error:
                log.error("export of revocations to %s: %s", self._directory, error.strerror)
            await asyncio.sleep(_SETTLE)
            await self._alarm.sleep(_LONGEST_SLEEP)

    async def _export(self) -> bool:
        now = self._clock.now()
        refused = json.dumps(await self._store.read(lambda tx: _refused(tx, now)), indent=1) + "\n"
        return await asyncio.to_thread(self._write, refused, list(self._crls()))

    def _write(self, refused: str, crls: list[Path]) -> bool:
        """Whether anything has changed."""
        versions = [_version(each) for each in crls]
        if (refused, versions) == self._exported:
            return False
        changed = self._replace("refused.json", [refused.encode()])
        changed |= self._replace("crl.pem", (part for each in crls for part in _pem(each)))
        self._exported = (refused, versions)
        return changed

    def _replace(self, name: str, parts: Iterable[bytes]) -> bool:
        target, scratch = self._directory / name, self._directory / f".{name}.new"
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fchmod(descriptor, self._mode)
            os.fsync(descriptor)
        if _same(scratch, target):
            scratch.unlink()
            return False
        scratch.replace(target)
        return True


def _refused(tx: Tx, now: datetime) -> list[dict[str, str | None]]:
    return [
        {"device_id": device_id, "serial": serial, "sha256": thumbprint, "not_after": when(not_after)}
        for device_id, serial, thumbprint, not_after in tx.credentials.refused(now)
    ]


def _version(crl: Path) -> tuple[int, int] | None:
    try:
        found = crl.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _pem(crl: Path) -> Iterable[bytes]:
    """RFC 7468, 6; a piece at a time."""
    try:
        file = crl.open("rb")
    except FileNotFoundError:
        return
    with file:
        yield b"-----BEGIN X509 CRL-----\n"
        while block := file.read(_LINE * _LINES_AT_ONCE):
            for at in range(0, len(block), _LINE):
                yield base64.b64encode(block[at : at + _LINE]) + b"\n"
        yield b"-----END X509 CRL-----\n"


def _same(one: Path, other: Path) -> bool:
    try:
        if one.stat().st_size != other.stat().st_size or one.stat().st_mode != other.stat().st_mode:
            return False
        with one.open("rb") as first, other.open("rb") as second:
            while block := first.read(1 << 20):
                if block != second.read(1 << 20):
                    return False
    except FileNotFoundError:
        return False
    return True
