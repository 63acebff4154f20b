"""Times as the hub writes them: UTC with seven decimals, .NET's ticks."""

from __future__ import annotations

from datetime import UTC, datetime

NEVER = "0001-01-01T00:00:00Z"
"""What the hub puts where nothing has happened yet."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"
