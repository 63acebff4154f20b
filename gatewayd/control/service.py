"""The daemon on the bus: keeps a connection, and on it the objects that show what the daemon holds."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from ..config import ControlSettings
from ..errors import DeviceUnknown, GatewayError, NotAuthorized
from ..messages import kind
from . import access
from .base import Caller, Data, Operations
from .bus import BusConnection, BusError
from .gateway import INTERFACE, GatewayObject
from .glib import GLibThread
from .jobs import Job, Jobs, Step
from .objects import DEVICE, JOB, DeviceObject, JobObject, device_path, job_path
from .tree import Tree
from .wrapper import Dispatcher

_log = logging.getLogger(__name__)

RETRY_FIRST = 0.5
RETRY_LAST = 30.0
"""Seconds between attempts to get onto the bus."""
START_WITHIN = 5.0
"""Seconds that ``start`` waits for the bus before it leaves the rest to the background."""
_BATCH = 20  # objects that are published in one go, so that the event loop is not held up
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
        self._device_objects: dict[str, DeviceObject] = {}
        self._tree: Tree | None = None
        self._glib = GLibThread()
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="bus")
        self._refreshing = asyncio.Lock()
        self._refresh_wanted = asyncio.Event()
        self._progressed: set[int] = set()
        self._stale: set[str] = set()
        self._all_stale = True
        self._connected = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when the name is owned, or after START_WITHIN seconds without: it is then tried on for ever."""
        self._glib.start()
        self._tasks = [
            asyncio.create_task(self._keep_connected(), name="bus"),
            asyncio.create_task(self._keep_refreshed(), name="bus devices"),
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

    def ring(self, device_id: str | None = None) -> None:
        """A device, or any of them, has come, gone or changed: show it soon."""
        if device_id is None:
            self._all_stale = True
        else:
            self._stale.add(device_id)
        self._refresh_wanted.set()

    async def refresh_devices(self) -> None:
        """Show the devices as they are now. Raises what Operations.device_list raises."""
        async with self._refreshing:
            tree = self._tree
            if tree is None:
                return
            devices: dict[str, Data] = {each["device_id"]: each for each in await self._operations.device_list()}
            for device_id in self._device_objects.keys() - devices.keys():
                del self._device_objects[device_id]
                tree.remove(device_path(device_id))
            for count, (device_id, device) in enumerate(devices.items(), start=1):
                if tree is not self._tree:
                    return
                self._show_device(tree, device_id, device)
                if count % _BATCH == 0:
                    await asyncio.sleep(0)

    async def _refresh_device(self, device_id: str) -> None:
        """One among thousands: the others are not read for it."""
        async with self._refreshing:
            try:
                device = (await self._operations.device_show(device_id))["device"]
            except DeviceUnknown:
                device = None
            tree = self._tree
            if tree is None:
                return
            if device is not None:
                self._show_device(tree, device_id, device)
            elif self._device_objects.pop(device_id, None):
                tree.remove(device_path(device_id))

    def _show_device(self, tree: Tree, device_id: str, device: Data) -> None:
        path = device_path(device_id)
        if shown := self._device_objects.get(device_id):
            if shown.update(device):
                tree.changed(path)
        else:
            self._device_objects[device_id] = DeviceObject(device)
            tree.add(path, self._device_objects[device_id], DEVICE)

    async def _keep_refreshed(self) -> None:
        while True:
            await self._refresh_wanted.wait()
            self._refresh_wanted.clear()
            (everything, self._all_stale), (stale, self._stale) = (self._all_stale, False), (self._stale, set())
            try:
                if everything:
                    await self.refresh_devices()
                else:
                    for device_id in stale:
                        await self._refresh_device(device_id)
            except GatewayError as error:
                _log.warning("the devices on the bus are not up to date: %s", error.message)
            except Exception:
                _log.exception("the devices on the bus are not up to date")
            await asyncio.sleep(_SETTLE)  # what changes together is shown together

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
        dispatcher = Dispatcher(lambda sender: self._authorize(connection, sender))
        gateway = GatewayObject(self._operations, self._device_id, self._jobs, self.ring)
        tree = Tree(connection.bus, dispatcher, gateway, INTERFACE)
        gateway.managed = tree.managed
        try:
            self._tree = tree
            for number, shown in self._job_objects.items():
                tree.add(job_path(number), shown, JOB)
            self.ring()
            await connection.own()
            self._connected.set()
            _log.info("on the bus as %s", INTERFACE, extra=kind("bus-back"))
            await lost.wait()
            _log.warning("the connection to the bus is lost", extra=kind("bus-lost"))
        finally:
            self._tree = None
            self._connected.clear()
            self._device_objects.clear()
            tree.clear()
            if not lost.is_set():  # otherwise calls under way go on, though nobody hears their answers
                await dispatcher.stop()
            await connection.close()

    async def _authorize(self, connection: BusConnection, sender: str) -> Caller:
        try:
            uid = await connection.unix_user(sender)
        except BusError as error:
            raise NotAuthorized(str(error)) from None
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, access.check, uid, self._settings.admin_group)
        return Caller(uid, sender)

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
            asyncio.get_running_loop().call_later(_SETTLE, self._name_steps, job.number)

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
