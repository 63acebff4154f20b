"""What a device's PUBLISH does: telemetry, twin get and report, the answer to a direct method."""

from __future__ import annotations

import base64
import json

from . import topics, wire
from .clock import text, utc_now
from .connection import Connection
from .faults import Faults, Mode
from .methods import Methods
from .registry import Registry
from .state import State
from .twins import Twins


class Functions:
    def __init__(self, state: State, registry: Registry, twins: Twins, methods: Methods, faults: Faults) -> None:
        self._state = state
        self._registry = registry
        self._twins = twins
        self._methods = methods
        self._faults = faults

    def take(self, connection: Connection, topic: str, payload: bytes) -> bool:
        """Carry out one PUBLISH; returns whether to acknowledge it. Raises wire.Broken to end the connection."""
        request = topics.parse(connection.peer.device_id, topic)
        if request is None:
            raise wire.Broken(f"a topic that is not this device's: {topic!r}")
        fault = self._faults.take("mqtt", f"PUBLISH {topic}")
        if fault in (None, Mode.UNAVAILABLE_AFTER):
            self._carry_out(connection, request, payload)
        if fault not in (None, Mode.TIMEOUT):
            raise wire.Broken("a fault was injected")
        return fault is None

    def _carry_out(self, connection: Connection, request: topics.Request, payload: bytes) -> None:
        device_id = connection.peer.device_id
        match request:
            case topics.Telemetry():
                self._store(connection, request, payload)
            case topics.TwinGet(rid):
                sections = json.dumps(self._twins.sections(device_id)).encode()
                connection.send(topics.TWIN_RESULTS, f"$iothub/twin/res/200/?$rid={rid}", sections)
            case topics.TwinReport(rid):
                connection.send(topics.TWIN_RESULTS, self._report(device_id, rid, payload), b"")
            case topics.MethodResult(rid, status):
                self._methods.answered(device_id, rid, status, payload)

    def _report(self, device_id: str, rid: str, payload: bytes) -> str:
        """Merge reported properties; returns the topic of the answer."""
        try:
            patch = json.loads(payload)
        except (ValueError, RecursionError):
            patch = None
        if not isinstance(patch, dict):
            return f"$iothub/twin/res/400/?$rid={rid}"
        return f"$iothub/twin/res/204/?$rid={rid}&$version={self._twins.report(device_id, patch)}"

    def _store(self, connection: Connection, telemetry: topics.Telemetry, payload: bytes) -> None:
        # The stamp comes last: what a device writes into its bag never passes for what the hub says about it.
        system = (
            telemetry.system
            | connection.peer.stamp
            | {"iothub-enqueuedtime": text(utc_now()), "iothub-message-source": "Telemetry"}
        )
        body = _routed_body(telemetry.system, payload)
        entry = {"systemProperties": system, "properties": telemetry.properties, "body": body}
        self._state.append("message", entry)
        self._registry.note_activity(connection.peer.device_id)


def _routed_body(system: dict[str, str], payload: bytes) -> object:
    """As message routing hands it on: JSON if it is declared so in UTF-8, base64 otherwise."""
    declared = (system.get("content-type", "").lower(), system.get("content-encoding", "").lower())
    if declared == ("application/json", "utf-8"):
        try:
            return json.loads(payload)
        except (ValueError, RecursionError):
            pass
    return base64.b64encode(payload).decode()
