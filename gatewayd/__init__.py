"""gatewayd: device keys in a PKCS#11 token; certificates that renew by themselves and, once revoked, stay dead."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__version__ = "0.1.0"

RELEASED: Final = datetime(2026, 7, 1, tzinfo=UTC)
"""Goes forward with the version: a clock that says an earlier time is wrong."""
