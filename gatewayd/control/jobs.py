"""Long operations: each a job with steps, a result or an error. Knows nothing of the bus.

A job is only a window on work whose intent is already written down: when the daemon stops, jobs vanish and the work
is done all the same. So the registry lives in memory, is bounded, and forgets a finished job after a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from ..errors import GatewayError, Internal
from .base import Data, Work

_log = logging.getLogger(__name__)

MAX_JOBS = 1000
KEPT = 600.0
"""Seconds that a finished job stays."""
MAX_STEPS = 100
"""Different steps of one job; further ones are not recorded."""


class JobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    step: str
    state: str
    at: datetime
    detail: str = ""

    def data(self) -> Data:
        data = {"step": self.step, "state": self.state, "at": timestamp(self.at)}
        return {**data, "detail": self.detail} if self.detail else data


@dataclass(slots=True)
class Job:
    number: int
    kind: str
    device_id: str
    started_at: datetime
    state: JobState = JobState.RUNNING
    steps: dict[str, Step] = field(default_factory=dict)
    """The latest word on each, in the order of their first mention."""
    result: Data | None = None
    error: GatewayError | None = None
    finished_at: datetime | None = None


class Watcher(Protocol):
    """Told of every change, in the event loop's thread."""

    def job_added(self, job: Job) -> None: ...
    def job_progressed(self, job: Job, step: Step) -> None: ...
    def job_finished(self, job: Job) -> None: ...
    def job_removed(self, job: Job) -> None: ...


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(error: GatewayError) -> Data:
    """A failure as docs/json.md has it."""
    return {"error": error.name(), "message": error.message, "remedy": error.remedy}


class Jobs:
    """To be used from one event loop; only the ``Progress`` that a job's work is given may be called from anywhere."""

    def __init__(
        self,
        watcher: Watcher,
        *,
        limit: int = MAX_JOBS,
        kept: float = KEPT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._watcher = watcher
        self._limit = limit
        self._kept = kept
        self._now = now
        self._jobs: dict[int, Job] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._expiries: dict[int, asyncio.TimerHandle] = {}
        self._last = 0

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def start(self, kind: str, device_id: str, work: Work) -> Job:
        """Run ``work`` as a job.

        When the registry is full, the job that was finished first makes room, or else the one that has been running
        longest: never is a revocation refused because others still wait for a hub that is away.
        """
        if len(self._jobs) >= self._limit:
            self._remove(
                min(self._jobs.values(), key=lambda job: (job.finished_at is None, job.finished_at or job.started_at))
            )
        self._last += 1
        job = Job(self._last, kind, device_id, self._now())
        self._jobs[job.number] = job
        self._watcher.job_added(job)
        self._tasks[job.number] = asyncio.create_task(self._run(job, work), name=f"job {job.number} {kind} {device_id}")
        return job

    async def stop(self) -> None:
        """Let go of all of them; the work they were a window on goes on, or is taken up again at the next start."""
        tasks = list(self._tasks.values())
        for job in list(self._jobs.values()):
            self._remove(job)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job, work: Work) -> None:
        loop = asyncio.get_running_loop()

        def progress(step: str, state: str, detail: str = "") -> None:
            loop.call_soon_threadsafe(self._progress, job, Step(step, state, self._now(), detail))

        try:
            job.result = await work(progress)
        except GatewayError as error:
            job.error = error
        except Exception:
            _log.exception("job %d (%s %s) met an unexpected error", job.number, job.kind, job.device_id)
            job.error = Internal(
                f"{job.kind} of {job.device_id} met an unexpected error; gatewayd's log has the details"
            )
        await asyncio.sleep(0)  # let the steps reported last come before the end
        if self._tasks.pop(job.number, None) is None:
            return  # it had to make room
        job.state = JobState.FAILED if job.error else JobState.DONE
        job.finished_at = self._now()
        self._expiries[job.number] = loop.call_later(self._kept, self._remove, job)
        self._watcher.job_finished(job)

    def _progress(self, job: Job, step: Step) -> None:
        if job.number in self._tasks and (step.step in job.steps or len(job.steps) < MAX_STEPS):
            job.steps[step.step] = step
            self._watcher.job_progressed(job, step)

    def _remove(self, job: Job) -> None:
        del self._jobs[job.number]
        if task := self._tasks.pop(job.number, None):
            task.cancel()
        if expiry := self._expiries.pop(job.number, None):
            expiry.cancel()
        self._watcher.job_removed(job)
