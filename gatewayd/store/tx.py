"""What a work is given: the repositories on one connection, inside one transaction."""

from __future__ import annotations

import sqlite3

from .codes import CodeRows
from .credentials import CredentialRows
from .devices import DeviceRows
from .journal import JournalRows
from .outbox import OutboxRows
from .replacements import ReplacementRows
from .revocations import RevocationRows
from .settings import SettingRows


class SqliteTx:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.devices = DeviceRows(connection)
        self.credentials = CredentialRows(connection)
        self.codes = CodeRows(connection)
        self.revocations = RevocationRows(connection)
        self.replacements = ReplacementRows(connection)
        self.outbox = OutboxRows(connection)
        self.journal = JournalRows(connection)
        self.settings = SettingRows(connection)
