"""How much the real daemon grows with the devices behind its gateway.

It runs on the demo's stage, connected to the hub and on the bus, with leaves on record whose certificates are real and
name a CRL and an OCSP responder, as a CA's do. Its private memory is read when it was asked for its status, and once
more when it was asked for the list of all devices. Beside what is meant to be there for each device (the index of
certificates that a CRL is compared with) that holds whatever a list or a look leaves behind. SQLite's caches are
bounded, and full in either size.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from gatewayd.core.model import Credential, CredentialState, Device, DeviceKind
from gatewayd.lab.demo.stage import Stage
from gatewayd.pki import certificates
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore
from tests.support.authority import CLIENT, Authority

from .figures import figure

SMALL, LARGE = 1_000, 21_000
_BATCH = 500
_ASKED, _LISTED = 5, 2
"""Times, for the status and for the list of all devices."""
_QUIET = 20.0
"""Seconds without growth after which the daemon has read what it reads."""
_CRL = "http://127.0.0.1:9/crl/issuing.crl"
_OCSP = "http://127.0.0.1:9/ocsp"


def measure() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as directory, Stage(Path(directory) / "stage") as stage:
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        small = _with_leaves(stage, 0, SMALL)
        large = _with_leaves(stage, SMALL, LARGE)
    for name, less, more, most in zip(("daemon", "daemon_after_lists"), small, large, (1024, None), strict=True):
        figure(f"{name}_with_{SMALL}_devices", less / 1e6, "MB")
        figure(f"{name}_with_{LARGE}_devices", more / 1e6, "MB")
        figure(f"{name}_memory_a_device", (more - less) / (LARGE - SMALL), "bytes", at_most=most)


def _with_leaves(stage: Stage, first: int, end: int) -> tuple[int, int]:
    """Bytes at work, and after the devices were listed."""
    stage.stop_daemon()
    asyncio.run(_fill(stage.state / "gatewayd.db", first, end))
    stage.start_daemon()
    stage.wait_for("the link", lambda: stage.ctl_json("status")["hub"]["state"] == "connected" or None)
    for _ in range(_ASKED):
        assert stage.ctl_json("status")["devices"]["active"] == end
    at_work = _settled(stage.daemon_pid())
    for _ in range(_LISTED):
        assert len(stage.ctl_json("device", "list")) == end + 1
    return at_work, _settled(stage.daemon_pid())


async def _fill(database: Path, first: int, end: int) -> None:
    authority, key = Authority(), ec.generate_private_key(ec.SECP256R1()).public_key()
    now = datetime.now(UTC)
    store = SqliteStore(database)
    await store.open()
    for begin in range(first, end, _BATCH):

        def batch(tx: Tx, begin: int = begin) -> None:
            for number in range(begin, min(begin + _BATCH, end)):
                device = Device(f"leaf-{number:06}", DeviceKind.LEAF, now, in_hub=True)
                tx.devices.add(device)
                tx.credentials.add(_credential(authority, key, device.device_id, now))
                tx.devices.put(Device(device.device_id, DeviceKind.LEAF, now, current=1, in_hub=True))

        await store.write(batch)
    await store.close()


def _credential(authority: Authority, key: ec.EllipticCurvePublicKey, device_id: str, now: datetime) -> Credential:
    extra: list[tuple[x509.ExtensionType, bool]] = [(_points(), False), (_responder(), False)]
    certificate = authority.leaf(key, device_id, purposes=[CLIENT], lasts=timedelta(days=90), extra=extra)
    return Credential(
        device_id,
        1,
        CredentialState.CURRENT,
        now,
        now,
        csr=bytes(250),
        public_key_sha256=certificates.public_key_sha256_of(certificate),
        certificate=certificate.public_bytes(Encoding.DER),
        chain=tuple(each.public_bytes(Encoding.DER) for each in authority.chain),
        serial=certificates.serial_hex(certificate),
        thumbprint=certificates.thumbprint(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _points() -> x509.CRLDistributionPoints:
    name = x509.UniformResourceIdentifier(_CRL)
    return x509.CRLDistributionPoints([x509.DistributionPoint([name], None, None, None)])


def _responder() -> x509.AuthorityInformationAccess:
    name = x509.UniformResourceIdentifier(_OCSP)
    return x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, name)])


def _settled(pid: int) -> int:
    """Bytes of the process that are its own and resident, once they have stopped to grow."""
    most, since = 0, time.monotonic()
    while time.monotonic() < since + _QUIET:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        found = sum(int(fields[name].split()[0]) for name in ("Private_Dirty", "Private_Clean")) * 1024
        if found > most * 1.002:
            most, since = found, time.monotonic()
        time.sleep(0.5)
    return found
