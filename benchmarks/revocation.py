"""From ``gatewayctl revoke``'s call on the bus to *verified disabled* in the hub, for 100 devices at once.

The CA, Entra and the hub are the stand-ins, processes on the same machine; the daemon and the responder are real.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from gatewayd.lab.demo.stage import Stage
from tests.support.fleet import Fleet

from .figures import figure

_DEVICES = 100
_TARGETS = {"registry": 1.0, "report": 2.0}
"""Seconds, at p99."""


def main() -> None:
    for way, target in _TARGETS.items():
        took = sorted(_measure(way))
        figure(f"revoke_{way}_p50", statistics.median(took), "s")
        figure(f"revoke_{way}_p99", took[round(0.99 * (len(took) - 1))], "s", at_most=target)


def _measure(way: str) -> list[float]:
    with (
        tempfile.TemporaryDirectory() as directory,
        Stage(Path(directory) / "stage", upstream=f'way = "{way}"') as stage,
    ):
        if way == "report":
            stage.create_gateway_identity()
            stage.start_responder()
        stage.init_token()
        stage.start_daemon()
        stage.upload_registrar_certificate()
        stage.bootstrap()
        stage.wait_for("the link", lambda: stage.ctl_json("status")["hub"]["state"] == "connected")
        fleet = Fleet(stage)
        devices = [f"leaf-{number}" for number in range(_DEVICES)]
        for device_id in devices:
            fleet.add(device_id)
        return list(fleet.revoke(devices).values())


if __name__ == "__main__":
    main()
