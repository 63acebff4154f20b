"""The small objects below /org/gatewayd/Gateway1, the jobs: each is the values of its D-Bus properties."""

from __future__ import annotations

from typing import Any

from gi.repository import GLib
from pydbus.generic import signal

from .access import JOB
from .jobs import Job, Step, describe, timestamp
from .variants import from_data, text

ROOT = "/org/gatewayd/Gateway1"


def job_path(number: int) -> str:
    return f"{ROOT}/jobs/{number}"


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
        return [variants(step.data()) for step in self._job.steps.values()]

    @property
    def Result(self) -> dict[str, GLib.Variant]:
        return variants(self._job.result or {})

    @property
    def Error(self) -> dict[str, GLib.Variant]:
        return variants(describe(self._job.error)) if self._job.error else {}

    def progressed(self, step: Step) -> None:
        self.Progress(text(step.step), step.state, text(step.detail))

    def steps_changed(self) -> None:
        """Named, not told: whoever wants all steps asks for them, and telling costs seconds with a hundred jobs."""
        self.PropertiesChanged(JOB, {}, ["Steps"])

    def finished(self) -> None:
        changed = {name: getattr(self, name) for name in ("State", "FinishedAt")}
        self.PropertiesChanged(JOB, changed, ["Steps", "Result", "Error"])
        self.Finished(self.State)


def variants(data: dict[str, Any]) -> dict[str, GLib.Variant]:
    return {text(key): from_data(value) for key, value in data.items() if value is not None}
