"""The object /org/gatewayd/Gateway1: the methods of org.gatewayd.Gateway1, from the bus to the Operations port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gi.repository import GLib
from pydbus.generic import signal

from .. import __version__, memory
from . import arguments
from .arguments import Options
from .base import Caller, Data, Operations, Work
from .jobs import Jobs
from .objects import job_path, variants
from .variants import from_mapping, from_mappings, text
from .wrapper import MAX_LIST, takes_file

Given = dict[str, Any]

_MANY = 1000
"""Devices in a list, beyond which what it took is given back."""
_SENT_WITHIN = 10.0
"""Seconds, for such a list."""


class GatewayObject:
    """Its methods are the handlers that wrapper.py calls, each in the event loop."""

    InterfacesAdded = signal()
    InterfacesRemoved = signal()
    DeviceChanged = signal()

    def __init__(self, operations: Operations, device_id: str, jobs: Jobs, changed: Callable[[str], None]) -> None:
        """``changed`` is called with the id of a device that may have come or changed."""
        self.Version = __version__
        self.DeviceId = device_id
        self.managed: Callable[[], GLib.Variant] = lambda: GLib.Variant("a{oa{sa{sv}}}", {})
        """What GetManagedObjects answers."""
        self._operations = operations
        self._jobs = jobs
        self._changed = changed

    def GetManagedObjects(self) -> GLib.Variant:
        return self.managed()

    async def GetStatus(self) -> GLib.Variant:
        status = await self._operations.status()
        return await asyncio.to_thread(from_mapping, status)  # with every open revocation in it

    async def ListDevices(self, given: Given) -> GLib.Variant:
        options = Options(given)
        wanted = options.wanted()
        options.end()
        found = await self._operations.device_list(wanted, MAX_LIST)
        answer = await asyncio.to_thread(from_mappings, found)  # thousands would hold up the loop
        if len(found) > _MANY:
            loop = asyncio.get_running_loop()
            loop.call_later(_SENT_WITHIN, lambda: loop.run_in_executor(None, memory.give_back))
        return answer

    async def GetDevice(self, device_id: str) -> GLib.Variant:
        return from_mapping(await self._operations.device_show(arguments.device_id(device_id)))

    async def AddDevice(self, device_id: str, given: Given, *, caller: Caller) -> GLib.Variant:
        options = Options(given)
        sans, code_lifetime, hardware = options.sans(), options.code_lifetime(), options.hardware()
        options.end()
        device_id = arguments.device_id(device_id)
        return self._added(await self._operations.device_add(caller, device_id, sans, code_lifetime, *hardware))

    async def NewCode(self, device_id: str, given: Given, *, caller: Caller) -> GLib.Variant:
        options = Options(given)
        code_lifetime = options.code_lifetime()
        options.end()
        device_id = arguments.device_id(device_id)
        return self._added(await self._operations.device_code(caller, device_id, code_lifetime))

    async def ReplaceDevice(self, device_id: str, given: Given, *, caller: Caller) -> GLib.Variant:
        options = Options(given)
        reason, code_lifetime, hardware = options.reason(), options.code_lifetime(), options.hardware()
        options.end()
        device_id = arguments.device_id(device_id)
        data, work = await self._operations.device_replace(caller, device_id, reason, code_lifetime, *hardware)
        job = self._jobs.start("replace", device_id, work)
        return self._added({**data, "job": job_path(job.number)})

    async def BindDevice(self, device_id: str, given: Given, *, caller: Caller) -> GLib.Variant:
        options = Options(given)
        hardware = options.hardware()
        options.end()
        device_id = arguments.device_id(device_id)
        return from_mapping(await self._operations.leaves.bind(caller, device_id, *hardware))

    async def CancelReplacement(self, device_id: str, *, caller: Caller) -> GLib.Variant:
        return self._added(await self._operations.device_replace_cancel(caller, arguments.device_id(device_id)))

    async def Bootstrap(self, token: str, *, caller: Caller) -> str:
        return await self._job("bootstrap", self.DeviceId, self._operations.bootstrap(caller, arguments.token(token)))

    async def BootstrapWithCertificate(self, pem: str, *, caller: Caller) -> str:
        pem = arguments.certificate(pem)
        return await self._job("bootstrap", self.DeviceId, self._operations.bootstrap_with_certificate(caller, pem))

    async def Export(self, *, caller: Caller) -> str:
        return await self._operations.export(caller)

    async def Adopt(self, export: str, given: Given, *, caller: Caller) -> str:
        options = Options(given)
        reason, max_age, token = options.reason(), options.max_age(), options.secret_token()
        options.end()
        export = arguments.export(export)
        return await self._job("adopt", self.DeviceId, self._operations.adopt(caller, export, reason, max_age, token))

    async def Renew(self, device_id: str, given: Given, *, caller: Caller) -> str:
        """ "" is the gateway itself."""
        options = Options(given)
        key_algorithm = options.key_algorithm()
        options.end()
        device_id = arguments.device_id(device_id or self.DeviceId)
        return await self._job("renew", device_id, self._operations.renew(caller, device_id, key_algorithm))

    async def Revoke(self, device_id: str, reason: str, given: Given, *, caller: Caller) -> str:
        Options(given).end()
        device_id, reason = arguments.device_id(device_id), arguments.reason(reason)
        return await self._job("revoke", device_id, self._operations.revoke(caller, device_id, reason))

    async def Diagnose(self) -> GLib.Variant:
        return from_mappings(await self._operations.diagnose())

    async def VerifyAudit(self, *, caller: Caller) -> GLib.Variant:
        return from_mapping(await self._operations.audit_verify(caller))

    async def TrustClock(self, *, caller: Caller) -> GLib.Variant:
        return from_mapping(await self._operations.clock_trust(caller))

    async def GetRegistrarCertificate(self, *, caller: Caller) -> str:
        return text(await self._operations.registrar_certificate(caller))

    async def ListTokenObjects(self, *, caller: Caller) -> GLib.Variant:
        return from_mapping(await self._operations.token.objects())

    async def UnlockToken(self, pin: str, given: Given, *, caller: Caller) -> GLib.Variant:
        options = Options(given)
        token, final_try = options.token(), options.final_try()
        options.end()
        return from_mapping(await self._operations.token.unlock(caller, token, arguments.pin(pin), final_try))

    async def InitializeToken(self, pin: str, given: Given, *, caller: Caller) -> GLib.Variant:
        options = Options(given)
        token = options.token()
        options.end()
        return from_mapping(await self._operations.token.initialize(caller, token, arguments.pin(pin)))

    async def Attest(self, nonce: str, *, caller: Caller) -> GLib.Variant:
        return from_mapping(await self._operations.token.attest(caller, arguments.nonce(nonce)))

    async def ActivateCredential(self, challenge: str, *, caller: Caller) -> GLib.Variant:
        return from_mapping(await self._operations.token.activate(caller, arguments.challenge(challenge)))

    async def Reload(self, *, caller: Caller) -> GLib.Variant:
        return from_mapping(await self._operations.maintenance.reload(caller))

    @takes_file
    async def Backup(self, file: int, *, caller: Caller) -> GLib.Variant:
        return from_mapping(await self._operations.maintenance.backup(caller, file))

    async def OpenPage(self, given: Given, *, caller: Caller) -> GLib.Variant:
        options = Options(given)
        lifetime = options.page_lifetime()
        options.end()
        return from_mapping(await self._operations.page.open(caller, lifetime))

    async def ClosePage(self, *, caller: Caller) -> GLib.Variant:
        return from_mapping(await self._operations.page.close(caller))

    def device_changed(self, device: Data) -> None:
        """``device`` is an item of Operations.device_list."""
        self.DeviceChanged(text(device["device_id"]), variants(device))

    def _added(self, data: Data) -> GLib.Variant:
        self._changed(data["device"]["device_id"])
        return from_mapping(data)

    async def _job(self, kind: str, device_id: str, ordered: Awaitable[Work]) -> str:
        """The intent is written down when ``ordered`` is done; only then is there a job."""
        job = self._jobs.start(kind, device_id, await ordered)
        self._changed(device_id)
        return job_path(job.number)
