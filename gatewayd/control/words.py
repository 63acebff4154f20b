"""How times, steps and texts read to a person. Pure; ``now`` and the time zone are the caller's."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timedelta, tzinfo

from ..errors import InvalidArgument

STEPS = {
    "refused-here": "refused here",
    "revoked-at-ca": "revoked at the CA",
    "reported": "reported upstream",
    "disabled": "disabled in the hub",
    "verified": "verified as disabled",
    "register-domain": "domain registered at the CA",
    "make-key": "key made in the token",
    "request": "certificate issued",
    "accept": "certificate accepted by the hub",
    "switch": "switched to the new certificate",
    "old-certificate-out": "old certificates revoked at the CA",
    "id-disabled": "id disabled in the hub, and verified",
    "code-out": "code for the new hardware made",
    "shut-out": "old certificates shut out: the id is free for the new hardware",
    "new-certificate-in": "new hardware has its certificate",
    "pinned": "id enabled in the hub, for the new certificate alone",
    "adopted": "leaves, pins and revocations taken over",
    "pin-lifted": "pin lifted: any certificate of the CA for this id again",
}

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s?)?")


def clean(text: str) -> str:
    """Safe on a terminal: what a peer said must not move the cursor. Line breaks become spaces."""
    if text.isprintable():  # nearly always, and many times faster to tell
        return text
    return "".join(
        " "
        if each in "\n\t"
        else "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(each) in ("Cc", "Cf", "Cs")
        else each
        for each in text
    )


def step(name: str) -> str:
    return STEPS.get(name, clean(name).replace("-", " "))


def moment(text: str) -> datetime:
    """RFC 3339 → aware datetime. Raises ValueError."""
    return datetime.fromisoformat(text)


def local(text: str, zone: tzinfo | None = None) -> str:
    """``2031-05-01 14:00:00 +0200``; ``zone`` is None for the machine's."""
    try:
        return moment(text).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %z")
    except OverflowError:  # 99991231235959Z, which stands for no end (RFC 5280, 4.1.2.5), has no time east of it
        return moment(text).strftime("%Y-%m-%d %H:%M:%S %z")


def clock(text: str, zone: tzinfo | None = None) -> str:
    """``14:00:00``: for the lines of something that is going on now."""
    return moment(text).astimezone(zone).strftime("%H:%M:%S")


def distance(text: str, now: datetime) -> str:
    """``in 20 days``, ``3 min ago``."""
    away = moment(text) - now
    size = abs(away)
    for unit, name in ((timedelta(days=1), "days"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "min")):
        if size >= 2 * unit:
            amount = f"{size // unit} {name}"
            break
    else:
        amount = f"{size // timedelta(seconds=1)} s"
    return f"in {amount}" if away > timedelta(0) else f"{amount} ago"


def length(seconds: int) -> str:
    """``60s``, ``90d``: as ``duration`` reads it."""
    return f"{seconds // 86400}d" if seconds and seconds % 86400 == 0 else f"{seconds}s"


def duration(text: str) -> int:
    """``90s``, ``30m``, ``2h``, ``1d12h`` → seconds. Raises InvalidArgument."""
    found = _DURATION.fullmatch(text.strip())
    if not text.strip() or found is None:
        raise InvalidArgument(f"{text!r} is not a length of time such as 30m, 2h or 1d12h")
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
