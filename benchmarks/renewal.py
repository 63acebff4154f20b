"""What deciding costs with 100 devices and with 100,000, and what memory the daemon holds for each device.

The renewal loop, its waiting line, status and the twin's report run on the real store, each size in a process of its
own. A decision is one look of the loop: what is due, what is unfinished, whose turn it is, and when to look again; in
either size one renewal is due and under way, and ten leaves wait; the fastest tenth counts, for the others were held
up by something else. SQLite gives its cache back before the memory is read.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from gatewayd.core.model import Credential, CredentialState, Device, DeviceKind, KeyAlgorithm, KeyRef
from gatewayd.core.renewal import RenewalPolicies
from gatewayd.services.credentials import CredentialEngine
from gatewayd.services.events import Events
from gatewayd.services.health import Health
from gatewayd.services.renewals import Renewals
from gatewayd.services.status import StatusReader
from gatewayd.services.turns import Turns
from gatewayd.services.twin import TwinReporter
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore
from tests.support.fake_hub import FakeLink, FakeRegistry
from tests.support.fakes import FakeClock, FakeKeyStore
from tests.support.plant import OpenGate

from . import memory
from .figures import figure

NOW = datetime(2030, 6, 1, tzinfo=UTC)
SMALL, LARGE = 100, 100_000
_WAITING = 10
_DECISIONS = 400
_BATCH = 2_000
_CERTIFICATE = bytes(600)


def _leaf(number: int) -> tuple[Device, Credential]:
    device = Device(f"leaf-{number:06}", DeviceKind.LEAF, NOW, current=None, in_hub=True)
    start = NOW - timedelta(days=45) + timedelta(seconds=number)
    return device, Credential(
        device.device_id,
        1,
        CredentialState.CURRENT,
        start,
        start,
        csr=_CERTIFICATE,
        public_key_sha256=f"{number:064x}",
        certificate=_CERTIFICATE + number.to_bytes(8, "big"),
        serial=f"{number + 1:x}",
        thumbprint=f"{number:064x}",
        not_before=start,
        not_after=start + timedelta(days=90),
    )


async def _fill(store: SqliteStore, count: int) -> None:
    gateway = Device("gw", DeviceKind.GATEWAY, NOW)
    own = replace(
        _leaf(count + 1)[1],
        device_id="gw",
        key=KeyRef(b"key", KeyAlgorithm.EC_P256),
        renew_at=NOW,
    )
    under_way = Credential("gw", 2, CredentialState.WANTED, NOW, NOW, next_attempt_at=NOW + timedelta(hours=1))

    def begin(tx: Tx) -> None:
        tx.devices.add(gateway)
        tx.credentials.add(own)
        tx.credentials.add(under_way)
        tx.devices.put(replace(gateway, current=1))

    await store.write(begin)
    for first in range(0, count, _BATCH):

        def batch(tx: Tx, first: int = first) -> None:
            for number in range(first, min(first + _BATCH, count)):
                device, current = _leaf(number)
                tx.devices.add(device)
                tx.credentials.add(current)
                tx.devices.put(replace(device, current=1))
                if number < _WAITING:
                    later = NOW + timedelta(minutes=number + 1)
                    tx.credentials.add(
                        Credential(
                            device.device_id,
                            2,
                            CredentialState.KEYED,
                            NOW,
                            NOW,
                            csr=_CERTIFICATE,
                            deadline=current.not_after,
                            next_attempt_at=later,
                        )
                    )

        await store.write(batch)


def _memory() -> int:
    """Bytes of the process that are its own and resident."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return (int(fields["Private_Dirty"].split()[0]) + int(fields["Private_Clean"].split()[0])) * 1024


async def _measure(database: Path) -> dict[str, float]:
    store = SqliteStore(database)
    await store.open()
    clock = FakeClock(NOW)
    policies = RenewalPolicies()
    engine = CredentialEngine(store=store, clock=clock, events=Events(), policies=policies, steps={})
    turns = Turns(store=store, policy=policies.default, gate=OpenGate(), most=10)
    renewals = Renewals(store=store, clock=clock, engine=engine, turns=turns, algorithm=KeyAlgorithm.EC_P256)
    link = FakeLink(FakeRegistry(), "gw", clock)
    twin = TwinReporter(store=store, link=link, gateway_id="gw")
    reader = StatusReader(
        store=store,
        clock=clock,
        tokens={"gateway": FakeKeyStore(clock)},
        algorithm=KeyAlgorithm.EC_P256,
        link=link,
        health=Health(clock),
        spared=lambda: None,
        gateway_id="gw",
        issuer_name="ezca",
        issuer_url="",
        hub_host="",
        est_url=lambda: None,
        sources=list,
        hooks=lambda _: [],
        configuration=lambda: ({}, []),
        restored=list,
    )
    took = []
    for _ in range(_DECISIONS):
        began = time.perf_counter()
        await renewals.round()
        took.append(time.perf_counter() - began)
    for _ in range(3):
        await store.read(twin._state)
        await reader.status()
    # SQLite's own cache goes back before the memory is read.
    await store.read(lambda tx: cast(Any, tx).devices._connection.execute("PRAGMA shrink_memory"))
    memory = _memory()
    await store.close()
    return {"decision": statistics.quantiles(took, n=10)[0], "memory": memory}


def _run(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory) / "state" / "gatewayd.db"

        async def fill() -> None:
            store = SqliteStore(database)
            await store.open()
            await _fill(store, count)
            await store.close()

        asyncio.run(fill())
        command = [sys.executable, "-m", "benchmarks.renewal", "--measure", str(database)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.measure:
        print(json.dumps(asyncio.run(_measure(chosen.measure))))
        return
    small, large = _run(SMALL), _run(LARGE)
    figure("decision_with_100_devices", small["decision"] * 1e6, "µs")
    figure("decision_with_100000_devices", large["decision"] * 1e6, "µs")
    figure("decision_ratio", large["decision"] / small["decision"], at_most=1.5)
    figure("memory_with_100_devices", small["memory"] / 1e6, "MB")
    figure("memory_with_100000_devices", large["memory"] / 1e6, "MB")
    figure("memory_a_device", (large["memory"] - small["memory"]) / (LARGE - SMALL), "bytes", at_most=1024)
    memory.measure()


if __name__ == "__main__":
    main()
