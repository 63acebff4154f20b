"""A CRL of 1,000,000 entries against 10,000 serial numbers of ours, in a process like the daemon's: everything that the
daemon loads is loaded, and an event loop runs beside, whose longest delay is measured as well.

CPU time is the whole process's from reading the file to the verified result, its memory the peak of the resident set
above what it was before. The serial numbers that are listed lie spread over the list. Beside it, for comparison:
``cryptography``'s own way to do the same.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.pki import crl
from tests.support import large_crl
from tests.support.authority import Authority

from .figures import figure

ENTRIES = 1_000_000
OWN = 10_000
LISTED = 500
_TICK = 0.001


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        authority = Authority()
        own = [int.from_bytes(os.urandom(16), "big") >> 1 for _ in range(OWN)]
        file = place / "large.crl"
        large_crl.write(file, authority.issuing, authority.issuing_key, ENTRIES, own[:LISTED])
        (place / "issuer.pem").write_bytes(authority.issuing.public_bytes(serialization.Encoding.PEM))
        (place / "own.json").write_text(json.dumps(own))
        ours, theirs = (_in_a_process(way, place) for way in ("gatewayd", "cryptography"))
        size = file.stat().st_size / 1e6
    assert ours["listed"] == theirs["listed"] == LISTED
    figure("crl_size", size, "MB")
    figure("crl_cpu", ours["cpu"], "s", at_most=3)
    figure("crl_memory_above_idle", ours["memory"], "MB", at_most=150)
    figure("crl_longest_loop_delay", 1000 * ours["delay"], "ms")
    figure("crl_wall", ours["wall"], "s")
    figure("crl_cpu_of_cryptography", theirs["cpu"], "s")
    figure("crl_memory_of_cryptography", theirs["memory"], "MB")
    figure("crl_longest_loop_delay_of_cryptography", 1000 * theirs["delay"], "ms")


def _in_a_process(way: str, place: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.crl", way, str(place)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


async def _measure(way: str, place: Path) -> dict[str, float]:
    import gatewayd.daemon  # noqa: F401 - for its memory

    issuer = x509.load_pem_x509_certificate((place / "issuer.pem").read_bytes())
    own = frozenset(json.loads((place / "own.json").read_text()))
    read = _gatewayd if way == "gatewayd" else _cryptography
    idle = _idle()
    ticking = asyncio.create_task(_longest_delay())
    await asyncio.sleep(0.1)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    listed = await asyncio.to_thread(read, place / "large.crl", issuer, own)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    ticking.cancel()
    delay = (await asyncio.gather(ticking, return_exceptions=True))[0]
    return {
        "listed": listed,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": _memory("VmHWM") - idle,
        "wall": wall,
        "delay": delay if isinstance(delay, float) else float("nan"),
    }


def _gatewayd(path: Path, issuer: x509.Certificate, own: frozenset[int]) -> int:
    return len(crl.read(path, [issuer], {issuer.subject: own}).listed)


def _cryptography(path: Path, issuer: x509.Certificate, own: frozenset[int]) -> int:
    loaded = x509.load_der_x509_crl(path.read_bytes())
    key = issuer.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert loaded.is_signature_valid(key)
    return sum(each.serial_number in own for each in loaded)


async def _longest_delay() -> float:
    """Until it is cancelled: the longest time that a tick came late."""
    longest = 0.0
    try:
        while True:
            due = time.monotonic() + _TICK
            await asyncio.sleep(_TICK)
            longest = max(longest, time.monotonic() - due)
    except asyncio.CancelledError:
        return longest


def _idle() -> float:
    """MB; the peak counts from here."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> float:
    """MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(asyncio.run(_measure(sys.argv[1], Path(sys.argv[2])))))
    else:
        main()
