"""control.jobs: what a watcher hears, what is kept, what makes room."""

import asyncio
import threading
from typing import Any

import pytest

from gatewayd.control.base import Data, Progress
from gatewayd.control.jobs import MAX_STEPS, Job, Jobs, JobState, Step
from gatewayd.errors import HubUnreachable


class Watcher:
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def job_added(self, job: Job) -> None:
        self.heard.append(("added", job.number))

    def job_progressed(self, job: Job, step: Step) -> None:
        self.heard.append((step.step, step.state))

    def job_finished(self, job: Job) -> None:
        self.heard.append(("finished", job.number, job.state.value))

    def job_removed(self, job: Job) -> None:
        self.heard.append(("removed", job.number))


async def for_ever(progress: Progress) -> Data:
    await asyncio.Event().wait()
    raise AssertionError


async def at_once(progress: Progress) -> Data:
    progress("only", "done")
    return {"all": "well"}


async def settle(*jobs: Job) -> None:
    async with asyncio.timeout(5):
        while any(job.state is JobState.RUNNING for job in jobs):  # noqa: ASYNC110 - the watcher is what is tested
            await asyncio.sleep(0.001)


async def test_steps_are_heard_before_the_end_and_the_result_is_kept() -> None:
    watcher = Watcher()
    job = Jobs(watcher).start("renew", "gw-1", at_once)
    await settle(job)
    assert watcher.heard == [("added", 1), ("only", "done"), ("finished", 1, "done")]
    assert job.result == {"all": "well"}
    assert job.finished_at is not None


async def test_progress_from_another_thread_counts() -> None:
    async def work(progress: Progress) -> Data:
        thread = threading.Thread(target=progress, args=("from afar", "done", "evidence"))
        thread.start()
        await asyncio.to_thread(thread.join)
        return {}

    job = Jobs(Watcher()).start("renew", "gw-1", work)
    await settle(job)
    assert job.steps["from afar"].detail == "evidence"


async def test_our_error_is_the_jobs_error() -> None:
    async def work(progress: Progress) -> Data:
        raise HubUnreachable("the hub is away")

    job = Jobs(Watcher()).start("revoke", "leaf-1", work)
    await settle(job)
    assert job.state is JobState.FAILED
    assert isinstance(job.error, HubUnreachable)


async def test_an_unexpected_error_does_not_leak(caplog: pytest.LogCaptureFixture) -> None:
    async def work(progress: Progress) -> Data:
        raise RuntimeError("secret")

    job = Jobs(Watcher()).start("revoke", "leaf-1", work)
    await settle(job)
    assert job.error is not None
    assert job.error.name() == "Internal"
    assert "secret" not in job.error.message
    assert "secret" in caplog.text


async def test_a_step_is_kept_once_with_the_latest_word_and_their_number_is_bounded() -> None:
    async def work(progress: Progress) -> Data:
        progress("step 0", "waiting")
        for number in range(MAX_STEPS + 50):
            progress(f"step {number}", "done")
        return {}

    job = Jobs(Watcher()).start("revoke", "leaf-1", work)
    await settle(job)
    assert len(job.steps) == MAX_STEPS
    assert job.steps["step 0"].state == "done"


async def test_a_finished_job_is_forgotten_after_a_while() -> None:
    watcher = Watcher()
    jobs = Jobs(watcher, kept=0.01)
    await settle(jobs.start("renew", "gw-1", at_once))
    await asyncio.sleep(0.05)
    assert jobs.all() == []
    assert watcher.heard[-1] == ("removed", 1)


async def test_when_full_finished_jobs_make_room_first_then_the_oldest_running() -> None:
    watcher = Watcher()
    jobs = Jobs(watcher, limit=2)
    jobs.start("revoke", "leaf-1", for_ever)
    await settle(jobs.start("renew", "gw-1", at_once))
    jobs.start("revoke", "leaf-2", for_ever)
    assert [job.number for job in jobs.all()] == [1, 3]
    jobs.start("revoke", "leaf-3", for_ever)
    assert [job.number for job in jobs.all()] == [3, 4]
    await jobs.stop()
    assert jobs.all() == []


async def test_a_job_that_made_room_is_not_heard_of_again() -> None:
    reports: list[Progress] = []

    async def stubborn(progress: Progress) -> Data:
        reports.append(progress)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            progress("late", "done")
        return {}

    watcher = Watcher()
    jobs = Jobs(watcher, limit=1)
    jobs.start("revoke", "leaf-1", stubborn)
    await asyncio.sleep(0)
    await settle(jobs.start("renew", "gw-1", at_once))
    reports[0]("later", "done")
    await asyncio.sleep(0.01)
    assert watcher.heard == [("added", 1), ("removed", 1), ("added", 2), ("only", "done"), ("finished", 2, "done")]
