"""POST /devices/query: eventually consistent, as measured on live hubs.

A new device is listed after 1.4 s and a deleted one for another 25 minutes: whoever takes the query for proof of
anything is caught here.
"""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from typing import Any, Final

from .clock import utc_now
from .errors import Code, HubError
from .identity import Identity
from .registry import Registry
from .twins import Twins

APPEARS_AFTER: Final = timedelta(seconds=1.4)
GONE_AFTER: Final = timedelta(minutes=25)
PAGE: Final = 1000
_STATEMENT: Final = re.compile(r"\s*SELECT\s+\*\s+FROM\s+devices\s*;?\s*", re.IGNORECASE)


class Index:
    """What the query sees. Kept in memory: after a restart every known device is simply listed."""

    def __init__(self, registry: Registry, twins: Twins) -> None:
        self._registry = registry
        self._twins = twins
        self._known = {identity["deviceId"]: identity for identity in registry.all()}
        self._appeared = dict.fromkeys(self._known, utc_now() - APPEARS_AFTER)
        self._deleted: dict[str, tuple[float, dict[str, Any]]] = {}
        registry.listen(self._written)

    def page(self, statement: object, limit: int, continuation: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """One page of twins and the token for the next page. Raises HubError (ArgumentInvalid)."""
        if not isinstance(statement, str) or not _STATEMENT.fullmatch(statement):
            raise HubError(Code.ARGUMENT_INVALID, "this hub only knows SELECT * FROM devices")
        start = base64.b64decode(continuation).decode() if continuation else ""
        rows = [row for row in self._rows() if row["deviceId"] > start]
        shown = rows[: min(limit, PAGE)]
        more = len(rows) > len(shown)
        return shown, base64.b64encode(shown[-1]["deviceId"].encode()).decode() if more else None

    def _rows(self) -> list[dict[str, Any]]:
        now = utc_now()
        rows = [
            self._twins.render(identity)
            for device_id, identity in self._known.items()
            if self._appeared[device_id] + APPEARS_AFTER <= now
        ]
        rows += [row for at, row in self._deleted.values() if at + GONE_AFTER.total_seconds() > now.timestamp()]
        return sorted(rows, key=lambda row: str(row["deviceId"]))

    def _written(self, device_id: str, identity: Identity | None) -> None:
        if identity is not None:
            self._known[device_id] = identity
            self._appeared.setdefault(device_id, utc_now())
            self._deleted.pop(device_id, None)
        elif (last := self._known.pop(device_id, None)) is not None:
            self._appeared.pop(device_id, None)
            self._deleted[device_id] = (utc_now().timestamp(), self._twins.render(last))
