"""After a renewal: certificate files for local services, and commands such as ``systemctl reload``.

A hook never stops a renewal: it comes after, fails by itself, is tried again, and its failure is in the status. Files
are replaced whole, so that who reads them sees the old ones or the new ones; keys are never among them. A command has
no shell, no input, a time limit, and of the daemon's environment nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import grp
import json
import logging
import os
import pwd
import signal
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..config import HookSettings
from ..core import hooks as rules
from ..core.hooks import HookRecord
from ..core.model import Credential, JournalEntry
from ..core.renewal import retry_at
from ..errors import HookFailed
from ..store.base import Store, Tx
from . import views
from .clock import Clock
from .events import DAEMON, Alarm, Events

log = logging.getLogger(__name__)

_LONGEST_SLEEP: Final = 600.0
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HEARD: Final = 2048
"""Bytes of what a command prints that are kept: the last ones, for the error."""


class Hooks:
    def __init__(
        self, hooks: Sequence[HookSettings], *, store: Store, clock: Clock, events: Events, gateway_id: str
    ) -> None:
        self._hooks = hooks
        self._store = store
        self._clock = clock
        self._events = events
        self._gateway_id = gateway_id
        self._alarm = Alarm()

    def ring(self) -> None:
        """There may be a new certificate."""
        self._alarm.ring()

    def take_up(self, hooks: Sequence[HookSettings]) -> None:
        """These hold from now on; one that is under way is finished as it was."""
        self._hooks = hooks
        self._alarm.ring()

    async def run(self) -> None:
        await self._alarm.rounds("hooks", self.round, _LONGEST_SLEEP)

    async def round(self) -> float | None:
        """Do what is due, in the order of the configuration. Returns the seconds until something may be due again."""
        hooks = self._hooks
        current, records = await self._store.read(lambda tx: _read(tx, hooks, self._gateway_id))
        if current is None or current.thumbprint is None:
            return None
        moments: list[datetime] = []
        for hook in hooks:
            record = records[hook.name]
            if rules.is_due(record, current.thumbprint, self._clock.now()):
                record = await self._do(hook, record, current, current.thumbprint)
            if record.done_for != current.thumbprint and record.next_attempt_at is not None:
                moments.append(record.next_attempt_at)
        if not moments:
            return None
        return max((min(moments) - self._clock.now()).total_seconds(), 1.0)

    async def _do(self, hook: HookSettings, record: HookRecord, current: Credential, live: str) -> HookRecord:
        try:
            await asyncio.to_thread(_write_files, hook, current)
            if hook.command:
                await _run(hook, self._gateway_id)
        except HookFailed as error:
            now = self._clock.now()
            attempts = rules.attempts_for(record, live) + 1
            again = retry_at(now, attempts, self._clock.dice(), longest=rules.LONGEST)
            record = rules.failed(record, live, f"{error.name()}: {error.message}", now, again)
            await self._keep(hook, record, "failed", error.message)
        else:
            record = rules.done(live, self._clock.now())
            await self._keep(hook, record, "done", f"for serial {current.serial}")
        return record

    async def _keep(self, hook: HookSettings, record: HookRecord, outcome: str, detail: str) -> None:
        entry = JournalEntry(self._clock.now(), self._gateway_id, DAEMON, f"hook {hook.name}", outcome, detail)
        text = json.dumps(dataclasses.asdict(record), default=datetime.isoformat)

        def work(tx: Tx) -> None:
            tx.settings.set(_setting(hook), text)
            tx.journal.append(entry)

        await self._store.write(work)
        self._events.publish(entry)

    def shown(self, tx: Tx) -> list[dict[str, Any]]:
        """For status."""
        current, records = _read(tx, self._hooks, self._gateway_id)
        return [_shown(name, record, current.thumbprint if current else None) for name, record in records.items()]


def _read(tx: Tx, hooks: Sequence[HookSettings], gateway_id: str) -> tuple[Credential | None, dict[str, HookRecord]]:
    kept = {hook.name: tx.settings.get(_setting(hook)) for hook in hooks}
    records = {name: _record(text) if text else HookRecord() for name, text in kept.items()}
    return tx.credentials.current(gateway_id), records


def _setting(hook: HookSettings) -> str:
    return f"hook/{hook.name}"


def _record(text: str) -> HookRecord:
    kept = json.loads(text)
    for name in ("done_at", "next_attempt_at", "last_error_at"):
        kept[name] = datetime.fromisoformat(kept[name]) if kept[name] else None
    return HookRecord(**kept)


def _shown(name: str, record: HookRecord, live: str | None) -> dict[str, Any]:
    state = "idle" if live is None else "done" if record.done_for == live else "failed" if record.attempts else "due"
    return views.present(
        {
            "name": name,
            "state": state,
            "last_success_at": views.when(record.done_at),
            "attempts": record.attempts or None,
            "next_attempt_at": views.when(record.next_attempt_at) if state == "failed" else None,
            "last_error": record.last_error,
            "last_error_at": views.when(record.last_error_at),
        }
    )


# --- files ---------------------------------------------------------------------------------------


def _write_files(hook: HookSettings, current: Credential) -> None:
    """Raises HookFailed."""
    assert current.certificate is not None
    chain = [_pem(each) for each in current.chain]
    own = _pem(current.certificate)
    for path, text in ((hook.certificate, b"".join((own, *chain))), (hook.chain, b"".join(chain))):
        if path is None:
            continue
        try:
            _replace(path, text, int(hook.mode, 8), _ids(hook.owner))
        except (OSError, LookupError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.args[0]
            raise HookFailed(f"Hook {hook.name}: {path} could not be written: {reason}.") from None


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _ids(owner: str) -> tuple[int, int]:
    """``user``, ``user:group`` or ``:group``; -1 leaves it as it is. Raises LookupError."""
    user, _, group = owner.partition(":")
    uid = pwd.getpwnam(user).pw_uid if user else -1
    return uid, grp.getgrnam(group).gr_gid if group else -1


def _replace(path: Path, text: bytes, mode: int, ids: tuple[int, int]) -> None:
    scratch = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        scratch.unlink()
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        if ids != (-1, -1):
            os.fchown(descriptor, *ids)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    scratch.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# --- commands ------------------------------------------------------------------------------------


async def _run(hook: HookSettings, gateway_id: str) -> None:
    """Raises HookFailed."""
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "GATEWAYD_DEVICE_ID": gateway_id}
    if hook.certificate is not None:
        environment["GATEWAYD_CERTIFICATE"] = str(hook.certificate)
    try:
        process = await asyncio.create_subprocess_exec(
            *hook.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env=environment,
            start_new_session=True,
            **_as_user(hook.user),
        )
    except (OSError, LookupError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.args[0]
        raise HookFailed(f"Hook {hook.name}: {hook.command[0]} could not be started: {reason}.") from None
    assert process.stdout is not None
    heard = bytearray()
    try:
        async with asyncio.timeout(hook.timeout):
            while block := await process.stdout.read(4096):
                heard += block
                del heard[:-_HEARD]
            status = await process.wait()
    except (TimeoutError, asyncio.CancelledError) as error:
        # Whatever it has started goes with it, so that nothing piles up.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise HookFailed(f"Hook {hook.name}: {hook.command[0]} took longer than {hook.timeout:g} s.") from None
    if status != 0:
        words = " ".join(heard.decode("utf-8", "replace").split())[-200:]
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise HookFailed(f"Hook {hook.name}: {hook.command[0]} ended with {how}{f': {words}' if words else ''}.")


def _as_user(name: str) -> dict[str, Any]:
    """Raises LookupError."""
    if not name:
        return {}
    user = pwd.getpwnam(name)
    if user.pw_uid == os.geteuid():
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(name, user.pw_gid)}
