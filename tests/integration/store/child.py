"""The part of the tests that must be a process of its own: it is killed, or runs out of disk.

``python -m tests.integration.store.child write PATH``: ten writers without end; each acknowledged id is a line.
``… fill PATH DIRECTORY``: on a tmpfs of 2 MiB that is mounted on DIRECTORY.
``… limit PATH``: with a limit on the size of a file.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gatewayd.errors import StoreBroken
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore

from .values import entry, message


def record(number: int, payload: str = "") -> Callable[[Tx], None]:
    """A step as the daemon writes it: something to tell the hub, and its line of history."""

    def work(tx: Tx) -> None:
        tx.outbox.add(message(f"{number}"))
        tx.settings.set(f"payload-{number}", payload)
        tx.journal.append(entry(f"{number}"))

    return work


async def write(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    numbers = itertools.count(len(await store.read(lambda tx: tx.journal.recent(limit=1_000_000))))

    async def writer() -> None:
        for number in numbers:
            await store.write(record(number))
            os.write(sys.stdout.fileno(), f"{number}\n".encode())

    await asyncio.gather(*(writer() for _ in range(10)))


async def until_full(store: SqliteStore, numbers: itertools.count[int]) -> tuple[list[int], str]:
    acknowledged: list[int] = []
    for number in numbers:
        try:
            await store.write(record(number, "x" * 8000))
        except StoreBroken as error:
            return acknowledged, error.message
        acknowledged.append(number)
    raise AssertionError


def fill(path: Path, directory: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", directory], check=True)
    ballast = directory / "ballast"
    ballast.write_bytes(b"\0" * 1024 * 1024)
    asyncio.run(through_a_full_disk(path, ballast.unlink))


def limit(path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def raise_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
    asyncio.run(through_a_full_disk(path, raise_limit))


async def through_a_full_disk(path: Path, make_room: Callable[[], None]) -> None:
    store = SqliteStore(path)
    await store.open()
    numbers = itertools.count()
    acknowledged, sentence = await until_full(store, numbers)
    group = await asyncio.gather(
        *(store.write(record(next(numbers), "x" * 8000)) for _ in range(5)), return_exceptions=True
    )
    readable = await store.read(lambda tx: len(tx.journal.recent(limit=1_000_000)))
    make_room()
    after = [next(numbers) for _ in range(5)]
    await asyncio.gather(*(store.write(record(number, "x" * 8000)) for number in after))
    await store.close()
    await store.open()
    present = await store.read(lambda tx: [int(each.what) for each in reversed(tx.journal.recent(limit=1_000_000))])
    await store.close()
    report = {
        "acknowledged": acknowledged,
        "sentence": sentence,
        "group": [type(each).__name__ for each in group],
        "readable": readable,
        "after": after,
        "present": present,
    }
    print(json.dumps(report))


COMMANDS: dict[str, Callable[..., None]] = {
    "write": lambda path: asyncio.run(write(path)),
    "fill": fill,
    "limit": limit,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*map(Path, sys.argv[2:]))
