"""What the doctor says: facts in, findings out. Pure.

A finding has a class, and each class an exit status of its own, so that a script knows what kind of thing is wrong.
Where several are, the first in the order of ``Area`` counts: what comes later may be nothing but its consequence.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from . import clock


class Area(StrEnum):
    """Classes of findings, the most basic first."""

    CONFIGURATION = "configuration"
    DAEMON = "daemon"
    PERMISSIONS = "permissions"
    DISK = "disk"
    CLOCK = "clock"
    TOKEN = "token"  # noqa: S105
    NAMES = "names"
    CA = "ca"
    HUB = "hub"
    EXPIRY = "expiry"

    @property
    def exit_code(self) -> int:
        """Beside those of sysexits.h, which say that the doctor itself could not be called."""
        return 10 + list(Area).index(self)


class Verdict(StrEnum):
    FINE = "fine"
    WARNING = "warning"
    """It works; somebody should look at it."""
    PROBLEM = "problem"
    UNKNOWN = "unknown"
    """It could not be checked."""


@dataclass(frozen=True, slots=True)
class Finding:
    area: Area
    check: str
    """What was looked at, in a word or two."""
    verdict: Verdict
    what: str
    """One sentence."""
    remedy: str = ""
    """What to do; empty when it is fine."""


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when there is no problem."""
    return min((each.area.exit_code for each in findings if each.verdict is Verdict.PROBLEM), default=0)


def unknown(area: Area, check: str, why: str, remedy: str) -> Finding:
    return Finding(area, check, Verdict.UNKNOWN, why, remedy)


# --- this machine --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Of lstat(2), and whether the process that looked may write."""

    mode: int
    uid: int
    writable: bool = True


LEAST_FREE: Final = 32 * 1024 * 1024
LITTLE_FREE: Final = 256 * 1024 * 1024
"""Bytes."""
LEAST_INODES: Final = 100


def disk(path: str, free: int, inodes: int | None) -> Finding:
    """``free`` in bytes; ``inodes``: how many are free, None where the file system does not count them."""
    megabytes = f"{free // (1024 * 1024)} MB are free where {path} is."
    remedy = f"Make room: 'du -xsh {path} /var/log'. No restart is needed."
    if free < LEAST_FREE:
        return Finding(Area.DISK, "space", Verdict.PROBLEM, megabytes, remedy)
    if inodes is not None and inodes < LEAST_INODES:
        what = f"{inodes} files are left that can be made where {path} is."
        return Finding(Area.DISK, "space", Verdict.PROBLEM, what, remedy)
    if free < LITTLE_FREE:
        return Finding(Area.DISK, "space", Verdict.WARNING, megabytes, remedy)
    return Finding(Area.DISK, "space", Verdict.FINE, megabytes)


def private_directory(path: str, facts: FileFacts | None, owner: str, uid: int | None) -> Finding:
    """A directory that is to be the daemon's alone; ``uid``: of ``owner``, None when it is not known here."""
    check = "state directory"
    fix = f"install -d -m 0700 -o {owner} -g {owner} {path}"
    if facts is None:
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, f"{path} does not exist.", f"Make it: '{fix}'.")
    if not stat.S_ISDIR(facts.mode):
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, f"{path} is no directory.", "Move it out of the way.")
    mode = stat.S_IMODE(facts.mode)
    if mode & 0o022:
        what, remedy = f"{path} can be written by others (mode {mode:04o}).", f"'chmod 0700 {path}'."
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, what, remedy)
    if uid is not None and facts.uid != uid:
        what, remedy = f"{path} belongs to uid {facts.uid}, not to {owner}.", f"'chown -R {owner}: {path}'."
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, what, remedy)
    if not facts.writable:
        what = f"gatewayd cannot write to {path}."
        remedy = "Is its file system mounted read-only ('findmnt -T'), or does the unit protect it (ReadWritePaths=)?"
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, what, remedy)
    if mode & 0o055:
        what, remedy = f"{path} can be read by others (mode {mode:04o}).", f"'chmod 0700 {path}'."
        return Finding(Area.PERMISSIONS, check, Verdict.WARNING, what, remedy)
    return Finding(Area.PERMISSIONS, check, Verdict.FINE, f"{path} is the daemon's alone.")


def secret_file(check: str, path: str, facts: FileFacts | None, uid: int | None) -> Finding:
    """The PIN's: 0400 and the daemon's (``uid``, where it is known) or root's."""
    if facts is None:
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, f"{path} does not exist.", "Write the PIN into it.")
    mode = stat.S_IMODE(facts.mode)
    if not stat.S_ISREG(facts.mode):
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, f"{path} is not a regular file.", "Make it one.")
    if mode & ~stat.S_IRUSR:
        what, remedy = f"{path} has mode {mode:04o}, and is not read.", f"'chmod 0400 {path}'."
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, what, remedy)
    if uid is not None and facts.uid not in (0, uid):
        what, remedy = f"{path} belongs to uid {facts.uid}, and is not read.", f"'chown gatewayd: {path}'."
        return Finding(Area.PERMISSIONS, check, Verdict.PROBLEM, what, remedy)
    return Finding(Area.PERMISSIONS, check, Verdict.FINE, f"{path} is readable by its owner alone.")


def credential(check: str, name: str, given: bool) -> Finding:
    """systemd's."""
    if given:
        return Finding(Area.PERMISSIONS, check, Verdict.FINE, f"The credential {name} is there.")
    what = f"systemd has not given gatewayd the credential {name}."
    remedy = f"LoadCredentialEncrypted={name} in the unit, from /etc/credstore.encrypted/{name} (systemd-creds(1))."
    return Finding(Area.PERMISSIONS, check, Verdict.WARNING, what, remedy)


def time_of_day(verdict: clock.Verdict, synchronised: bool, says: datetime) -> Finding:
    if verdict is not clock.Verdict.SANE:
        what = f"The machine's clock says {says:%Y-%m-%d %H:%M}Z, which cannot be: nothing is decided by date."
        remedy = "Have it synchronised ('timedatectl set-ntp true'); if it is right, run 'gatewayctl clock trust'."
        return Finding(Area.CLOCK, "time", Verdict.PROBLEM, what, remedy)
    if not synchronised:
        what = f"The machine's clock says {says:%Y-%m-%d %H:%M}Z, and nothing that is known of keeps it right."
        remedy = "'timedatectl set-ntp true'; beside another NTP client see [clock] in gatewayd.toml(5)."
        return Finding(Area.CLOCK, "time", Verdict.WARNING, what, remedy)
    return Finding(Area.CLOCK, "time", Verdict.FINE, "The machine's clock is synchronised.")


# --- peers ---------------------------------------------------------------------------------------


class Reached(StrEnum):
    """How far a connection came."""

    TRUSTED = "trusted"
    UNRESOLVED = "unresolved"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    UNTRUSTED = "untrusted"
    NO_TLS = "no-tls"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One that gatewayd connects to."""

    area: Area
    name: str
    """Which, such as ``EZCA``."""
    setting: str
    """Where it is configured: ``[hub] host``."""
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Contact:
    how: Reached
    detail: str = ""
    """What the machine or the peer said."""
    within: float = 0.0
    """Seconds that it was given."""


def peer(it: Endpoint, contact: Contact, *, has_bundle: bool) -> list[Finding]:
    """Of its name, and of the way to it."""
    where = f"{it.host}:{it.port}"
    name = Finding(Area.NAMES, it.host, Verdict.FINE, "It resolves.")
    match contact.how:
        case Reached.TRUSTED:
            return [name, Finding(it.area, it.name, Verdict.FINE, f"{where} answers and is trusted.")]
        case Reached.UNRESOLVED:
            what = f"It does not resolve ({it.name}): {contact.detail}."
            remedy = f"Check DNS ('getent hosts {it.host}', 'resolvectl status') and {it.setting}."
            return [Finding(Area.NAMES, it.host, Verdict.PROBLEM, what, remedy)]
        case Reached.TIMEOUT:
            what = f"{where} did not answer within {contact.within:g} s."
            remedy = f"Check the route and the firewall: outgoing TCP to port {it.port}."
        case Reached.REFUSED:
            what = f"{where} cannot be connected to: {contact.detail}."
            remedy = f"Check {it.setting}, the route and the firewall: outgoing TCP to port {it.port}."
        case Reached.UNTRUSTED:
            what = f"{where} shows a certificate that is not trusted: {contact.detail}."
            trusted = "[trust] bundle in gatewayd.toml" if has_bundle else "the package ca-certificates"
            remedy = f"Trust comes from {trusted}. Is something between that breaks TLS open? Is the clock right?"
        case Reached.NO_TLS:
            what = f"{where} does not speak TLS as gatewayd does: {contact.detail}."
            remedy = f"Check {it.setting}; is a proxy or a captive portal answering in its place?"
    return [name, Finding(it.area, it.name, Verdict.PROBLEM, what, remedy)]


# --- what ends -----------------------------------------------------------------------------------

SOON: Final = timedelta(days=90)
"""What it takes to bring a new root to everybody who trusts the old one."""


def own_certificate(not_before: datetime, not_after: datetime, now: datetime, last_error: str | None) -> Finding:
    left, life = not_after - now, not_after - not_before
    ends = f"The gateway's certificate ends {not_after:%Y-%m-%d %H:%M}Z"
    why = f" The latest attempt failed: {last_error}" if last_error else ""
    remedy = "'gatewayctl status' says what keeps the next one; 'gatewayctl renew' tries at once."
    if left <= timedelta(0):
        what, remedy = f"{ends}: it is over.{why}", "'gatewayctl bootstrap' gets another one."
        return Finding(Area.EXPIRY, "certificate", Verdict.PROBLEM, what, remedy)
    if left < life / 10:
        what = f"{ends}: less than a tenth of its life is left.{why}"
        return Finding(Area.EXPIRY, "certificate", Verdict.PROBLEM, what, remedy)
    if left < life / 4 or last_error:
        late = "its renewal is late" if left < life / 4 else "its renewal has not come yet"
        what = f"{ends}; {late}.{why}"
        return Finding(Area.EXPIRY, "certificate", Verdict.WARNING, what, remedy)
    return Finding(Area.EXPIRY, "certificate", Verdict.FINE, f"{ends}.")


def anchor(check: str, subject: str, not_after: datetime, now: datetime, remedy: str) -> Finding:
    ends = f"{subject} ends {not_after:%Y-%m-%d}"
    if not_after <= now:
        return Finding(Area.EXPIRY, check, Verdict.PROBLEM, f"{ends}: it is over.", remedy)
    if not_after - now < SOON:
        return Finding(Area.EXPIRY, check, Verdict.WARNING, f"{ends}, in {(not_after - now).days} days.", remedy)
    return Finding(Area.EXPIRY, check, Verdict.FINE, f"{ends}.")


def leaves(expired: int, last_tenth: int) -> Finding:
    if expired or last_tenth:
        what = f"Leaves' certificates in use: over {expired}, in the last tenth of their lives {last_tenth}."
        remedy = "'gatewayctl device list --sort expiry --limit 20' shows which; leaves renew by themselves."
        return Finding(Area.EXPIRY, "leaves", Verdict.WARNING, what, remedy)
    return Finding(Area.EXPIRY, "leaves", Verdict.FINE, "No leaf's certificate is over or about to be.")
