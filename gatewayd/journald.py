"""Logging, for systemd's journal where that listens and for people's eyes elsewhere.

What the journal gets beside the text (systemd.journal-fields(7)): MESSAGE_ID, as messages.py has it; DEVICE_ID and
CERT_SERIAL, the device and the certificate concerned; GATEWAYD_EVENT and GATEWAYD_OUTCOME of what was written down;
GATEWAYD_ERROR, the class of errors.py. They come from what a line is about, not from its words: an entry of the
journal that is its ``extra``, or a GatewayError among its arguments.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from . import messages
from .core.model import JournalEntry
from .errors import GatewayError, Internal

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
"""Of syslog(3)."""


def set_up(level: str) -> None:
    """Called once, at start."""
    if goes_to_journal(sys.stderr):
        logging.basicConfig(level=level.upper(), handlers=[JournalHandler()], format="%(message)s")
    else:
        logging.basicConfig(level=level.upper(), format="%(levelname).1s %(name)s: %(message)s")


def goes_to_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether it is what JOURNAL_STREAM names (systemd.exec(5)), and not redirected since."""
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"


class JournalHandler(logging.Handler):
    """Not python3-systemd's own handler, which sends the arguments of each line and all that hangs on its record."""

    def emit(self, record: logging.LogRecord) -> None:
        from systemd import journal

        try:
            journal.send(
                self.format(record),
                CODE_FILE=record.pathname,
                CODE_LINE=record.lineno,
                CODE_FUNC=record.funcName,
                PRIORITY=str(next(number for level, number in _PRIORITIES if record.levelno >= level)),
                SYSLOG_IDENTIFIER="gatewayd",
                LOGGER=record.name,
                **fields(record),
            )
        except Exception:
            self.handleError(record)


def fields(record: logging.LogRecord) -> dict[str, str]:
    """What a line is about."""
    entry = getattr(record, "entry", None)
    found = _of_entry(entry) if isinstance(entry, JournalEntry) else _of_error(record)
    if name := getattr(record, "kind", None):
        found["MESSAGE_ID"] = messages.of_life(name)
    shown = {key: value.id.hex if isinstance(value, messages.Message) else value for key, value in found.items()}
    return {key: value for key, value in shown.items() if value}


def _of_entry(entry: JournalEntry) -> dict[str, str | messages.Message | None]:
    error = messages.error_in(entry.detail) if entry.outcome == "failed" else None
    return {
        "MESSAGE_ID": messages.of_entry(entry),
        "DEVICE_ID": entry.device_id,
        "CERT_SERIAL": entry.serial,
        "GATEWAYD_EVENT": entry.what,
        "GATEWAYD_OUTCOME": entry.outcome,
        "GATEWAYD_ERROR": error.name() if error else None,
    }


def _of_error(record: logging.LogRecord) -> dict[str, str | messages.Message | None]:
    raised = record.exc_info[1] if record.exc_info else None
    arguments = record.args if isinstance(record.args, tuple) else ()
    error = next((each for each in (*arguments, raised) if isinstance(each, GatewayError)), None)
    if error is not None and not isinstance(error, Internal):
        about = messages.of_error(type(error))
        return {"MESSAGE_ID": about, "GATEWAYD_ERROR": error.name(), "DEVICE_ID": error.device}
    return {"MESSAGE_ID": messages.of_life("defect")} if raised is not None or error is not None else {}
