"""The daemon on the bus: keeps a connection, and on it the objects that show what the daemon holds."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from ..config import ControlSettings
from ..errors import GatewayError
from ..messages import kind
from .access import GATEWAY, JOB
from .base import Operations
from .bus import NAME, BusConnection, BusError
from .door import Door
from .gateway import GatewayObject
from .glib import GLibThread
from .jobs import Job, Jobs, Step
from .objects import JobObject, job_path
from .tree import Tree
from .wrapper import Dispatcher

_log = logging.getLogger(__name__)

RETRY_FIRST = 0.5
RETRY_LAST = 30.0
"""Seconds between attempts to get onto the bus."""
START_WITHIN = 5.0
"""Seconds that ``start`` waits for the bus before it leaves the rest to the background."""
_STEPS_SETTLE = 1.0
"""Seconds until it is said that the property Steps has changed: Progress has told of each step at once."""
_SETTLE = 0.2
"""Seconds within which what changes together is told together."""


class ControlService:
    """org.gatewayd.Gateway1, for as long as there is a bus.

    Control is not what the daemon is for: when the bus is away, or comes back, or gives the name to somebody else,
    certificates go on being renewed, and the service goes on trying.
    """

    def __init__(self, operations: Operations, settings: ControlSettings, device_id: str) -> None:
        self._operations = operations
        self._settings = settings
        self._device_id = device_id
        self._jobs = Jobs(self)
        self._job_objects: dict[int, JobObject] = {}
        self._tree: Tree | None = None
        self._gateway: GatewayObject | None = None
        self._glib = GLibThread()
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="bus")
        self._changed: set[str] = set()
        self._told = asyncio.Event()
        self._progressed: set[int] = set()
        self._connected = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when the name is owned, or after START_WITHIN seconds without: it is then tried on for ever."""
        self._glib.start()
        self._tasks = [
            asyncio.create_task(self._keep_connected(), name="bus"),
            asyncio.create_task(self._keep_telling(), name="bus devices"),
        ]
        try:
            await asyncio.wait_for(self._connected.wait(), START_WITHIN)
        except TimeoutError:
            _log.warning("going on without the bus; gatewayctl will work once it is there")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._jobs.stop()
        self._glib.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ring(self, device_id: str) -> None:
        """A device has come, or may have changed: tell of it soon."""
        self._changed.add(device_id)
        self._told.set()

    async def _keep_telling(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            changed, self._changed = self._changed, set()
            for device_id in changed:
                try:
                    await self._tell(device_id)
                except GatewayError as error:
                    _log.warning("the bus was not told of %s: %s", device_id, error.message)
                except Exception:
                    _log.exception("the bus was not told of %s", device_id)
            await asyncio.sleep(_SETTLE)  # what changes together is told together

    async def _tell(self, device_id: str) -> None:
        if self._gateway is None:
            return
        device = await self._operations.device_row(device_id)
        if self._gateway is not None:
            self._gateway.device_changed(device)

    async def _keep_connected(self) -> None:
        wait = RETRY_FIRST
        while True:
            try:
                await self._serve()
                wait = RETRY_FIRST
            except BusError as error:
                _log.warning("%s; trying again in %.1f s", error, wait)
            except Exception:
                _log.exception("serving on the bus failed; trying again in %.1f s", wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, RETRY_LAST)

    async def _serve(self) -> None:
        """One connection, from its beginning to its loss. Raises BusError when it cannot be had."""
        lost = asyncio.Event()
        connection = await BusConnection.open(self._settings.bus, self._pool, lost.set)
        dispatcher = Dispatcher(Door(connection).admit)
        gateway = GatewayObject(self._operations, self._device_id, self._jobs, self.ring)
        tree = Tree(connection.bus, dispatcher, gateway, GATEWAY)
        gateway.managed = tree.managed
        try:
            self._tree, self._gateway = tree, gateway
            for number, shown in self._job_objects.items():
                tree.add(job_path(number), shown, JOB)
            await connection.own()
            dispatcher.heard = True
            self._connected.set()
            _log.info("on the bus as %s", NAME, extra=kind("bus-back"))
            await lost.wait()
            _log.warning("the connection to the bus is lost", extra=kind("bus-lost"))
        finally:
            self._tree = self._gateway = None
            self._connected.clear()
            tree.clear()
            if not lost.is_set():  # otherwise calls under way go on, though nobody hears their answers
                await dispatcher.stop()
            await connection.close()

    # What Jobs tells (jobs.Watcher).

    def job_added(self, job: Job) -> None:
        shown = self._job_objects[job.number] = JobObject(job)
        if self._tree:
            self._tree.add(job_path(job.number), shown, JOB)

    def job_progressed(self, job: Job, step: Step) -> None:
        if self._tree:
            self._tree.changed(job_path(job.number))
        self._job_objects[job.number].progressed(step)
        if job.number not in self._progressed:
            self._progressed.add(job.number)
            asyncio.get_running_loop().call_later(_STEPS_SETTLE, self._name_steps, job.number)

    def _name_steps(self, number: int) -> None:
        """The steps of a moment at once, unless the job's end has told of them."""
        if number in self._progressed:
            self._progressed.discard(number)
            self._job_objects[number].steps_changed()

    def job_finished(self, job: Job) -> None:
        self._progressed.discard(job.number)
        if self._tree:
            self._tree.changed(job_path(job.number))
        self._job_objects[job.number].finished()
        self.ring(job.device_id)

    def job_removed(self, job: Job) -> None:
        self._progressed.discard(job.number)
        del self._job_objects[job.number]
        if self._tree:
            self._tree.remove(job_path(job.number))
