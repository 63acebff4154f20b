"""One-time codes, as they are made: the code goes to whoever asked, once; its hash stays."""

from __future__ import annotations

from datetime import datetime, timedelta

from ..core import enrollment as rules
from ..core.model import EnrollmentCode
from ..store.base import Tx


def make(tx: Tx, device_id: str, now: datetime, lifetime: int) -> tuple[str, EnrollmentCode]:
    """A new code, good for ``lifetime`` seconds; earlier unused ones stop working."""
    tx.codes.withdraw_unused(device_id)
    code = rules.new_code()
    expires = now + timedelta(seconds=lifetime)
    kept = EnrollmentCode(rules.code_hash(device_id, code), device_id, created_at=now, expires_at=expires)
    tx.codes.add(kept)
    return code, kept
