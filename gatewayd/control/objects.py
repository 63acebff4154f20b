"""The small objects below /org/gatewayd/Gateway1: a device, a job. Each is the values of its D-Bus properties."""

from __future__ import annotations

from typing import Any

from gi.repository import GLib
from pydbus.generic import signal

from .base import Data
from .jobs import Job, Step, describe, timestamp
from .variants import from_data, text

ROOT = "/org/gatewayd/Gateway1"
DEVICE = "org.gatewayd.Device1"
JOB = "org.gatewayd.Job1"


def device_path(device_id: str) -> str:
    """Letters and digits stand for themselves, everything else is ``_`` and two hex digits a byte."""
    escaped = "".join(
        chr(each) if each < 128 and chr(each).isalnum() else f"_{each:02x}" for each in device_id.encode()
    )
    return f"{ROOT}/devices/{escaped}"


def job_path(number: int) -> str:
    return f"{ROOT}/jobs/{number}"


class DeviceObject:
    PropertiesChanged = signal()

    def __init__(self, device: Data) -> None:
        """``device`` is an item of Operations.device_list."""
        self._take(device)

    def update(self, device: Data) -> bool:
        """Take over new values and tell listeners what has changed; whether anything has."""
        before = dict(vars(self))
        self._take(device)
        changed = {name: value for name, value in vars(self).items() if value != before[name]}
        if changed:
            self.PropertiesChanged(DEVICE, changed, [])
        return bool(changed)

    def _take(self, device: Data) -> None:
        self.DeviceId = text(device["device_id"])
        self.Kind = text(device["kind"])
        self.State = text(device["state"])
        self.HubState = text(device["hub_state"])
        self.Serial = text(device.get("serial") or "")
        self.NotAfter = text(device.get("not_after") or "")


class JobObject:
    PropertiesChanged = signal()
    Progress = signal()
    Finished = signal()

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def Kind(self) -> str:
        return self._job.kind

    @property
    def DeviceId(self) -> str:
        return self._job.device_id

    @property
    def State(self) -> str:
        return self._job.state.value

    @property
    def StartedAt(self) -> str:
        return timestamp(self._job.started_at)

    @property
    def FinishedAt(self) -> str:
        return timestamp(self._job.finished_at) if self._job.finished_at else ""

    @property
    def Steps(self) -> list[dict[str, GLib.Variant]]:
        return [_variants(step.data()) for step in self._job.steps.values()]

    @property
    def Result(self) -> dict[str, GLib.Variant]:
        return _variants(self._job.result or {})

    @property
    def Error(self) -> dict[str, GLib.Variant]:
        return _variants(describe(self._job.error)) if self._job.error else {}

    def progressed(self, step: Step) -> None:
        self.Progress(text(step.step), step.state, text(step.detail))

    def steps_changed(self) -> None:
        """Named, not told: whoever wants all steps asks for them, and telling costs seconds with a hundred jobs."""
        self.PropertiesChanged(JOB, {}, ["Steps"])

    def finished(self) -> None:
        changed = {name: getattr(self, name) for name in ("State", "FinishedAt")}
        self.PropertiesChanged(JOB, changed, ["Steps", "Result", "Error"])
        self.Finished(self.State)


def _variants(data: dict[str, Any]) -> dict[str, GLib.Variant]:
    return {text(key): from_data(value) for key, value in data.items() if value is not None}
