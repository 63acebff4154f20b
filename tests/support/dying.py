"""The real daemon, with a heart attack: ``python -m tests.support.dying N before|after <gatewayd's arguments>``.

It kills itself with SIGKILL right before or right after the N-th commit of its database: at every durable step, as N is
counted up. Nothing else differs from the daemon that is shipped, save that it does not wait for minutes until it tries
again what has failed, or lifts a pin.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from datetime import timedelta
from typing import Any

from gatewayd import __main__ as gatewayd
from gatewayd.core import renewal, replacement
from gatewayd.store.database import SqliteStore


def main(number: int, before: bool, arguments: list[str]) -> int:
    commit = SqliteStore._commit
    count = 0

    def dying(store: SqliteStore, connection: sqlite3.Connection, batch: list[Any]) -> None:
        nonlocal count
        count += 1
        if count == number and before:
            os.kill(os.getpid(), signal.SIGKILL)
        commit(store, connection, batch)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    SqliteStore._commit = dying  # type: ignore[method-assign, assignment]
    renewal.RETRY_FIRST = timedelta(seconds=1)
    replacement.CLOCK_SKEW = timedelta(seconds=1)  # type: ignore[misc]
    sys.argv[0] = "gatewayd"
    return gatewayd.main(arguments)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2] == "before", sys.argv[3:]))
