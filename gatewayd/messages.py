"""What can be searched the system's journal for: one MESSAGE_ID for each kind of event, of failure, and of what becomes
of the daemon itself, and what journalctl -x says to it (systemd.journal-fields(7), journald's message catalog).

A MESSAGE_ID is made of the kind's name, so that there is no list of numbers to keep; scripts/journal-catalog writes
them all into packaging/gatewayd.catalog. A name that has been released is never given another meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from uuid import UUID, uuid5

from .core.model import JournalEntry
from .errors import GatewayError, all_errors

NAMESPACE: Final = UUID("5d8a1a0e-3f0b-4c53-9c5e-6b1f1f6c0b7d")


@dataclass(frozen=True, slots=True)
class Message:
    name: str
    subject: str
    text: str

    @property
    def id(self) -> UUID:
        return uuid5(NAMESPACE, self.name)


_NOTHING: Final = "Nothing is to be done."
_LOOK: Final = "What is known of the device now: 'gatewayctl device show @DEVICE_ID@'."

EVENTS: Final = MappingProxyType(
    {
        "make-key": ("A key was made in the token", _NOTHING),
        "request": ("A certificate was asked for at the CA", _LOOK),
        "accept": ("The hub was asked to accept a new certificate", _LOOK),
        "switch": (
            "A new certificate serves from now on",
            "The one before stays usable until this one has proved itself. Nothing is to be done.",
        ),
        "wind-up": (
            "A certificate that was on its way is given up",
            "The device was revoked meanwhile: what the CA had issued is revoked, too. Nothing is to be done.",
        ),
        "simpleenroll": ("A device has enrolled with a code", _LOOK),
        "simplereenroll": ("A device renews its certificate", _NOTHING),
        "bootstrap": ("The gateway's first certificate was ordered", "It goes on by itself: 'gatewayctl status'."),
        "renewal": ("The gateway's renewal was ordered by hand", "It goes on by itself: 'gatewayctl status'."),
        "revocation": (
            "A device is revoked",
            "It is refused here from now on, for good. 'gatewayctl status' shows each milestone until the hub is seen "
            "to have shut it out. For new hardware under its id: 'gatewayctl device replace @DEVICE_ID@'.",
        ),
        "configuration": (
            "A new configuration was read",
            "What could not be taken up, or why it was refused: 'gatewayctl status'.",
        ),
        "hardware bound": ("A device is bound to a piece of hardware by its manufacturer's certificate", _LOOK),
        "backup": ("The database was backed up", _NOTHING),
        "restored": (
            "The database was restored from a backup",
            "Leaves get no certificates until it is known what was revoked since: 'gatewayctl status'.",
        ),
        "key found": (
            "The token holds a newer key of the gateway's than the restored database knows",
            "It is taken up by itself. Nothing is to be done.",
        ),
        "restore proven": ("It is known again what was revoked since the backup, or the export", _NOTHING),
        "refused-here": ("A certificate is refused here from now on", _NOTHING),
        "revoked-at-ca": ("A certificate is revoked at the CA", _NOTHING),
        "reported": ("A revocation was reported to the hub", _NOTHING),
        "disabled": ("A device was disabled in the hub", _NOTHING),
        "verified": ("A device was seen to be disabled in the hub", "The revocation is complete."),
        "replacement": ("New hardware for a device", "'gatewayctl device show @DEVICE_ID@' shows how far it is."),
        "code-out": ("A code for new hardware was made", "Give it to the new hardware before it expires."),
        "shut-out": ("The old certificates of a device are shut out", "The new hardware may enroll now."),
        "pinned": ("The hub lets in the new certificate of a device and no other", _NOTHING),
        "pin": (
            "The pin that keeps a device's old certificates out of the hub was looked at",
            "If it failed, somebody has changed the identity in the hub: 'gatewayctl device show @DEVICE_ID@'.",
        ),
        "pin-lifted": ("The hub lets in any certificate of its CA for a device again", _NOTHING),
        "exported": ("The gateway was exported", "Keep the file elsewhere: 'gatewayctl adopt' takes it."),
        "adopted": ("This hardware takes the place of another", "It goes on by itself: 'gatewayctl status'."),
        "device added": ("A device was recorded", "It enrolls with its code."),
        "code made": ("A new enrollment code was made", "Earlier unused ones of this device have stopped working."),
        "clock trusted": ("The machine's time was declared to be right", _NOTHING),
        "key lost": (
            "The token does not hold the key of the gateway's certificate",
            "Another key and a certificate for it are got by themselves. If that fails, 'gatewayctl status' says what "
            "to do. Find out what has removed the key.",
        ),
        "revocations exported": ("Lists of revoked certificates were written for other services", _NOTHING),
        "hook": ("A hook of gatewayd.toml was run", "A hook that failed is tried again: 'gatewayctl status'."),
        "token unlocked": ("The token was given its PIN", "Correct the PIN where gatewayd reads it at its start, too."),
        "token initialised": ("A token was made", "Put its PIN where gatewayd reads it at its start."),
        "key attested": ("The TPM was asked to attest the gateway's key", _NOTHING),
        "credential challenge answered": ("The TPM was asked to answer a credential challenge", _NOTHING),
        "page opened": ("A link to the technician's page was made", "'gatewayctl page close' makes it void."),
        "page entered": ("A technician's phone has opened the page", "'gatewayctl page close' ends its session."),
        "page closed": ("The technician's page was closed", _NOTHING),
        "audit": (
            "The audit trail was looked at",
            "If it failed, somebody has changed, removed or moved what was written down: keep a copy of the state "
            "directory, run 'gatewayctl audit verify', and find out who could write to it.",
        ),
    }
)
"""What happened (JournalEntry.what) → what it is called, and what there is to do."""

LIFE: Final = MappingProxyType(
    {
        "ready": ("gatewayd serves", _NOTHING),
        "stopping": ("gatewayd stops", "What is under way is written down and goes on at the next start."),
        "defect": (
            "gatewayd met something unexpected",
            "It goes on or is started again by itself. Report it with the journal of the minute it happened in.",
        ),
        "stuck": (
            "A part of gatewayd stands still",
            "systemd's watchdog is not fed any more and will start it again. If it comes back, look at the disk and "
            "the token, and report it.",
        ),
        "token-ready": ("The token is ready", _NOTHING),
        "token-reloaded": (
            "The token's module was started afresh",
            "After a fault that this may cure. If it comes back, look at the token and its driver.",
        ),
        "link": ("The link to the hub has changed", "'gatewayctl status' says whether anything is to be done."),
        "door": ("A server listens", _NOTHING),
        "clock-stepped": ("The clock was set, or the machine has slept", "All that goes by time is worked out anew."),
        "clock-right": ("The machine's clock is right again", "What has waited for the time goes on."),
        "ca-spared": (
            "The CA is left alone for a while",
            "It has failed too often in a row. It is asked again by itself; 'gatewayctl doctor' looks at it now.",
        ),
        "ca-back": ("The CA serves again", _NOTHING),
        "ca-certificate": (
            "The CA has a new certificate of its own",
            "It is trusted on the word of the one before. Who trusts the CA's leaves elsewhere may need it: leaves get "
            "it from /cacerts.",
        ),
        "source-stale": (
            "What is known of revocations is out of date",
            "It stays in force and is fetched again by itself. If it stays, look at the CA's CRL and OCSP responder.",
        ),
        "fell-silent": (
            "The gateway itself has been revoked",
            "It uses its key no more. New hardware takes its place with 'gatewayctl adopt', or it starts anew with an "
            "empty state directory and 'gatewayctl bootstrap'.",
        ),
        "bus-lost": ("The D-Bus daemon is gone", "gatewayd goes on, and comes back with it by itself."),
        "bus-back": ("gatewayd is on D-Bus", _NOTHING),
    }
)
"""What becomes of the daemon itself, named by the log line: ``log.info(..., extra=kind("ready"))``."""


def kind(name: str) -> dict[str, str]:
    """The ``extra`` of a log line that is of this kind of LIFE."""
    assert name in LIFE
    return {"kind": name}


def of_event(what: str) -> Message | None:
    name = "hook" if what.startswith("hook ") else what.partition(" from ")[0]
    return Message(f"event:{name}", *EVENTS[name]) if name in EVENTS else None


def of_life(name: str) -> Message:
    return Message(f"life:{name}", *LIFE[name])


def of_error(error: type[GatewayError]) -> Message:
    """Its class says what it is, and what to do; the line itself says to whom and how it happened."""
    name = error.name()
    subject = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()
    meaning = " ".join((error.__doc__ or "").split())
    return Message(f"error:{name}", subject, f"{meaning}\n\n{error.remedy}".strip())


def of_entry(entry: JournalEntry) -> Message | None:
    """Of a failure what has failed it, where that is known: it says what to do."""
    if entry.outcome == "failed" and (error := error_in(entry.detail)):
        return of_error(error)
    return of_event(entry.what)


def error_in(detail: str) -> type[GatewayError] | None:
    """``Name: sentence``, perhaps with whose it is before, as failures are written down."""
    known = all_errors()
    return next((known[each] for each in detail.split(": ", 2)[:2] if each in known), None)


def everything() -> list[Message]:
    errors = [error for name, error in sorted(all_errors().items()) if not name.startswith("_")]
    events = [found for each in EVENTS if (found := of_event(each))]
    return [*events, *map(of_error, errors), *map(of_life, LIFE)]
