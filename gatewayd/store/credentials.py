# ruff: noqa: S608 - the statements are put together from constants of this module alone
"""Credentials, and the chains that they share."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from ..core.measures import Fleet, Left
from ..core.model import Credential, CredentialState, KeyAlgorithm, KeyRef
from ..errors import Internal
from .base import Alive
from .rows import Column, Table, moment, stamp

_TABLE = Table(
    "credentials",
    key=("device_id", "generation"),
    others=(
        "state",
        "created_at",
        "updated_at",
        "key_id",
        "key_algorithm",
        "csr",
        "public_key_sha256",
        "certificate",
        "chain",
        "serial",
        "thumbprint",
        "not_before",
        "not_after",
        "renew_at",
        "deadline",
        "attempts",
        "next_attempt_at",
        "last_error",
    ),
)

_CHAIN = "LEFT JOIN chains ON chains.sha256 = credentials.chain"
_SELECT = f"SELECT credentials.*, chains.certificates FROM credentials {_CHAIN}"

# Word for word as in the schema, or SQLite could not use its partial indexes. INDEXED BY turns that into an error: the
# planner, left alone, would take the index on state and walk all current credentials.
UNFINISHED_STATES = ("wanted", "keying", "keyed", "requesting", "pending", "blocked", "issued", "accepting")
IS_UNFINISHED = f"state IN ({', '.join(map(repr, UNFINISHED_STATES))})"
_IS_WAITING = "deadline IS NOT NULL AND state IN ('keyed', 'requesting', 'pending', 'blocked')"
_IS_DUE = "state = 'current' AND renew_at IS NOT NULL"

DUE = f"""
    SELECT credentials.*, chains.certificates FROM credentials INDEXED BY credentials_due {_CHAIN}
    WHERE {_IS_DUE} AND renew_at <= ? ORDER BY renew_at LIMIT ?
"""
UNFINISHED = f"""
    SELECT credentials.*, chains.certificates FROM credentials INDEXED BY credentials_unfinished {_CHAIN}
    WHERE {IS_UNFINISHED} AND ifnull(next_attempt_at, 0) <= ? AND NOT ({_IS_WAITING})
    ORDER BY ifnull(next_attempt_at, 0), credentials.rowid LIMIT ?
"""
IN_TROUBLE = f"""
    SELECT credentials.*, chains.certificates FROM credentials INDEXED BY credentials_unfinished {_CHAIN}
    WHERE {IS_UNFINISHED} AND last_error IS NOT NULL LIMIT ?
"""
WAITING = f"""
    SELECT credentials.*, chains.certificates FROM credentials INDEXED BY credentials_waiting {_CHAIN}
    WHERE {_IS_WAITING} AND ifnull(next_attempt_at, 0) <= ? ORDER BY deadline LIMIT ?
"""
DEADLINES = f"""
    SELECT deadline FROM credentials INDEXED BY credentials_waiting WHERE {_IS_WAITING} ORDER BY deadline LIMIT ?
"""
ALIVE = """
    SELECT not_after, device_id, generation, thumbprint FROM credentials INDEXED BY credentials_alive
    WHERE certificate IS NOT NULL AND (not_after, device_id, generation) > (?, ?, ?)
    ORDER BY not_after, device_id, generation LIMIT ?
"""
REFUSED = """
    SELECT device_id, serial, thumbprint, not_after FROM credentials INDEXED BY credentials_by_state
    WHERE state = 'revoked' AND certificate IS NOT NULL AND not_after > ? ORDER BY device_id, generation
"""
NEXT_RENEWAL = f"""
    SELECT renew_at FROM credentials INDEXED BY credentials_due
    WHERE {_IS_DUE} AND renew_at > ? ORDER BY renew_at LIMIT 1
"""
NEXT_ATTEMPT = f"""
    SELECT next_attempt_at FROM credentials INDEXED BY credentials_unfinished
    WHERE {IS_UNFINISHED} AND ifnull(next_attempt_at, 0) > ? ORDER BY ifnull(next_attempt_at, 0) LIMIT 1
"""
PUT_OFF = f"""
    SELECT credentials.*, chains.certificates FROM credentials INDEXED BY credentials_unfinished {_CHAIN}
    WHERE {IS_UNFINISHED} AND ifnull(next_attempt_at, 0) > ? LIMIT ?
"""
POSTPONED = f"""
    SELECT credentials.*, chains.certificates FROM credentials INDEXED BY credentials_due {_CHAIN}
    WHERE {_IS_DUE} AND renew_at > ? AND renew_at > not_after - (not_after - not_before) / 10
"""
LOAD = """
    SELECT total(1e6 / (not_after - not_before)) FROM credentials INDEXED BY credentials_by_state
    WHERE state = 'current' AND not_after > ?
"""
FLEET = """
    SELECT CASE
        WHEN not_after <= :now THEN 'expired'
        WHEN (not_after - :now) * 10 < not_after - not_before THEN 'under-a-tenth'
        WHEN (not_after - :now) * 3 < not_after - not_before THEN 'under-a-third'
        ELSE 'more' END, count(*), min(not_after)
    FROM credentials INDEXED BY credentials_left WHERE state = 'current' AND not_after IS NOT NULL GROUP BY 1
"""
COUNT_WAITING = f"SELECT count(*) FROM credentials INDEXED BY credentials_waiting WHERE {_IS_WAITING}"
COUNT_TROUBLED = f"""
    SELECT count(*) FROM credentials INDEXED BY credentials_unfinished WHERE {IS_UNFINISHED} AND last_error IS NOT NULL
"""


class CredentialRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, device_id: str, generation: int) -> Credential | None:
        return self._one(f"{_SELECT} WHERE device_id = ? AND generation = ?", device_id, generation)

    def all(self, device_id: str, states: Iterable[CredentialState] | None = None) -> list[Credential]:
        if states is None:
            return self._many(f"{_SELECT} WHERE device_id = ? ORDER BY generation", device_id)
        among = "state IN (SELECT value FROM json_each(?))"
        return self._many(
            f"{_SELECT} WHERE device_id = ? AND {among} ORDER BY generation", device_id, json.dumps(sorted(states))
        )

    def current(self, device_id: str) -> Credential | None:
        return self._one(
            f"{_SELECT} JOIN devices USING (device_id) WHERE device_id = ? AND generation = devices.current", device_id
        )

    def next_generation(self, device_id: str) -> int:
        query = "SELECT ifnull(max(generation), 0) + 1 FROM credentials WHERE device_id = ?"
        generation: int = self._connection.execute(query, (device_id,)).fetchone()[0]
        return generation

    def by_thumbprint(self, sha256: str) -> Credential | None:
        return self._one(f"{_SELECT} WHERE thumbprint = ? ORDER BY credentials.rowid DESC LIMIT 1", sha256)

    def by_public_key(self, device_id: str, public_key_sha256: str) -> Credential | None:
        return self._one(
            f"{_SELECT} WHERE device_id = ? AND public_key_sha256 = ? ORDER BY generation DESC LIMIT 1",
            device_id,
            public_key_sha256,
        )

    def by_key(self, key_id: bytes) -> Credential | None:
        return self._one(f"{_SELECT} WHERE key_id = ?", key_id)

    def in_states(self, states: Iterable[CredentialState]) -> list[Credential]:
        """Oldest first."""
        return self._many(
            f"{_SELECT} WHERE state IN (SELECT value FROM json_each(?)) ORDER BY created_at, credentials.rowid",
            json.dumps(sorted(states)),
        )

    def alive(self, after: Alive, limit: int) -> list[Alive]:
        place = stamp(after.not_after), after.device_id, after.generation, limit
        return [Alive(moment(row[0]), *row[1:]) for row in self._connection.execute(ALIVE, place)]

    def refused(self, now: datetime) -> list[tuple[str, str, str, datetime]]:
        return [(*row[:3], moment(row[3])) for row in self._connection.execute(REFUSED, (stamp(now),))]

    def in_trouble(self, limit: int = 100) -> list[Credential]:
        return self._many(IN_TROUBLE, limit)

    def unfinished(self, now: datetime, limit: int = 100) -> list[Credential]:
        return self._many(UNFINISHED, stamp(now), limit)

    def waiting(self, now: datetime, limit: int = 100) -> list[Credential]:
        return self._many(WAITING, stamp(now), limit)

    def deadlines(self, limit: int = 1000) -> list[datetime]:
        return [moment(row[0]) for row in self._connection.execute(DEADLINES, (limit,))]

    def load(self, now: datetime) -> float:
        total: float = self._connection.execute(LOAD, (stamp(now),)).fetchone()[0]
        return total

    def fleet(self, now: datetime) -> Fleet:
        rows = self._connection.execute(FLEET, {"now": stamp(now)}).fetchall()
        counts = dict.fromkeys(Left, 0) | {Left(row[0]): row[1] for row in rows}
        return Fleet(counts, moment(min((row[2] for row in rows), default=None)))

    def count_waiting(self) -> int:
        return int(self._connection.execute(COUNT_WAITING).fetchone()[0])

    def count_troubled(self) -> int:
        return int(self._connection.execute(COUNT_TROUBLED).fetchone()[0])

    def due(self, now: datetime, limit: int = 100) -> list[Credential]:
        """Longest due first."""
        return self._many(DUE, stamp(now), limit)

    def put_off(self, after: datetime, limit: int = 1000) -> list[Credential]:
        return self._many(PUT_OFF, stamp(after), limit)

    def postponed(self, after: datetime) -> list[Credential]:
        return self._many(POSTPONED, stamp(after))

    def next_moment(self, after: datetime) -> datetime | None:
        rows = (self._connection.execute(query, (stamp(after),)).fetchone() for query in (NEXT_RENEWAL, NEXT_ATTEMPT))
        return moment(min((row[0] for row in rows if row is not None), default=None))

    def add(self, credential: Credential) -> None:
        if not _TABLE.add(self._connection, self._columns(credential)):
            raise Internal(
                f"Generation {credential.generation} of {credential.device_id} exists: it is never overwritten.",
                device=credential.device_id,
            )

    def put(self, credential: Credential) -> None:
        _TABLE.put(self._connection, self._columns(credential))

    def _one(self, query: str, *values: Column) -> Credential | None:
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else _credential(row)

    def _many(self, query: str, *values: Column) -> list[Credential]:
        return [_credential(row) for row in self._connection.execute(query, values)]

    def _columns(self, credential: Credential) -> dict[str, Column]:
        key = credential.key
        return {
            "device_id": credential.device_id,
            "generation": credential.generation,
            "state": credential.state,
            "created_at": stamp(credential.created_at),
            "updated_at": stamp(credential.updated_at),
            "key_id": None if key is None else key.id,
            "key_algorithm": None if key is None else key.algorithm,
            "csr": credential.csr,
            "public_key_sha256": credential.public_key_sha256,
            "certificate": credential.certificate,
            "chain": self._keep_chain(credential.chain),
            "serial": credential.serial,
            "thumbprint": credential.thumbprint,
            "not_before": stamp(credential.not_before),
            "not_after": stamp(credential.not_after),
            "renew_at": stamp(credential.renew_at),
            "deadline": stamp(credential.deadline),
            "attempts": credential.attempts,
            "next_attempt_at": stamp(credential.next_attempt_at),
            "last_error": credential.last_error,
        }

    def _keep_chain(self, chain: tuple[bytes, ...]) -> str | None:
        if not chain:
            return None
        sha256, text = _encoded(chain)
        self._connection.execute("INSERT INTO chains VALUES (?, ?) ON CONFLICT DO NOTHING", (sha256, text))
        return sha256


def _credential(row: sqlite3.Row) -> Credential:
    key = None if row["key_id"] is None else KeyRef(row["key_id"], KeyAlgorithm(row["key_algorithm"]))
    return Credential(
        device_id=row["device_id"],
        generation=row["generation"],
        state=CredentialState(row["state"]),
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        key=key,
        csr=row["csr"],
        public_key_sha256=row["public_key_sha256"],
        certificate=row["certificate"],
        chain=() if row["certificates"] is None else _decoded(row["certificates"]),
        serial=row["serial"],
        thumbprint=row["thumbprint"],
        not_before=moment(row["not_before"]),
        not_after=moment(row["not_after"]),
        renew_at=moment(row["renew_at"]),
        deadline=moment(row["deadline"]),
        attempts=row["attempts"],
        next_attempt_at=moment(row["next_attempt_at"]),
        last_error=row["last_error"],
    )


@lru_cache(maxsize=16)
def _encoded(chain: tuple[bytes, ...]) -> tuple[str, str]:
    text = json.dumps([base64.b64encode(der).decode("ascii") for der in chain])
    return hashlib.sha256(text.encode("ascii")).hexdigest(), text


@lru_cache(maxsize=16)
def _decoded(text: str) -> tuple[bytes, ...]:
    return tuple(base64.b64decode(each) for each in json.loads(text))
