"""The one fake of control.base.Operations: keeps its devices in memory and does what a test has told it to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from gatewayd.control.base import Caller, Data, Progress, Work
from gatewayd.core.enrollment import new_code
from gatewayd.core.listing import Wanted
from gatewayd.errors import DeviceExists, DeviceUnknown, GatewayError, PinRefused

GATEWAY = "gw-1"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
MILESTONES = ("refused-here", "revoked-at-ca", "reported", "disabled", "verified")
NOW = "2031-05-01T12:00:00Z"


def device(device_id: str, kind: str = "leaf", state: str = "active", **more: Any) -> Data:
    """A device as docs/json.md has it."""
    known = {"device_id": device_id, "kind": kind, "state": state, "hub_state": "present", "sans": []}
    if state == "active":
        more = {"serial": "1a2b", "generation": 1, "not_after": "2031-06-01T12:00:00Z", **more}
    return {**known, "created_at": NOW, **more}


def revocation(device_id: str, done: int, last_error: str | None = None) -> Data:
    """A revocation of which the first ``done`` milestones are reached."""
    milestones: list[Data] = []
    for index, name in enumerate(MILESTONES):
        if index < done:
            milestones.append({"name": name, "attempts": 1, "done_at": NOW, "evidence": f"proof of {name}"})
        elif index == done and last_error:
            milestones.append(
                {"name": name, "attempts": 3, "next_attempt_at": "2031-05-01T12:05:00Z", "last_error": last_error}
            )
        else:
            milestones.append({"name": name, "attempts": 0})
    known = {"device_id": device_id, "serial": "1a2b", "reason": "keyCompromise", "origin": "uid:0", "known_at": NOW}
    return {**known, "open": done < len(MILESTONES), "milestones": milestones}


TOKEN = {"state": "ready", "label": "gatewayd", "model": "SoftHSM v2", "since": NOW, "algorithms": ["ec-p256"]}
TOKEN_OBJECT = {
    "token": "gatewayd",
    "kind": "private-key",
    "id": "0a0b",
    "label": "gatewayd gw-1 1",
    "algorithm": "ec-p256",
    "role": "live",
    "reason": "The key of generation 1, which serves.",
}


class FakeTokenOperations:
    """Its PIN is ``right``."""

    def __init__(self, all_: FakeOperations) -> None:
        self._calls = all_.calls

    async def objects(self) -> Data:
        return {"objects": [TOKEN_OBJECT], "missing": []}

    async def unlock(self, caller: Caller, token: str, pin: str, final_try: bool) -> Data:
        self._calls.append(("token_unlock", caller.uid, token, pin, final_try))
        if pin != "right":
            raise PinRefused("the token refused the PIN")
        return TOKEN

    async def attest(self, caller: Caller, nonce: bytes) -> Data:
        self._calls.append(("attest", caller.uid, nonce))
        return {"device_id": GATEWAY, "nonce": nonce.hex(), "files": {"ak.name": "AAs="}}

    async def activate(self, caller: Caller, challenge: bytes) -> Data:
        self._calls.append(("activate", caller.uid, challenge))
        return {"secret": "00"}

    async def initialize(self, caller: Caller, token: str, pin: str) -> Data:
        self._calls.append(("token_initialize", caller.uid, token, pin))
        return TOKEN


class FakeMaintenanceOperations:
    def __init__(self, all_: FakeOperations) -> None:
        self._all = all_

    async def reload(self, caller: Caller) -> Data:
        self._all.calls.append(("reload", caller.uid))
        if self._all.failure is not None:
            raise self._all.failure
        return {"applied": ["log.level"], "needs_restart": ["est.port", "hub.host"]}

    async def backup(self, caller: Caller, file: int) -> Data:
        self._all.calls.append(("backup", caller.uid))
        if self._all.failure is not None:
            os.close(file)
            raise self._all.failure
        with os.fdopen(file, "wb") as target:
            target.write(b"a backup")
        return {"devices": 2, "credentials": 5, "created_at": NOW, "sha256": "00" * 32}


class FakePageOperations:
    def __init__(self, all_: FakeOperations) -> None:
        self._calls = all_.calls

    async def open(self, caller: Caller, lifetime: int) -> Data:
        self._calls.append(("page_open", caller.uid, lifetime))
        return {"session": 1, "url": "https://gw-1.example:8444/open/secret", "expires_at": NOW}

    async def close(self, caller: Caller) -> Data:
        self._calls.append(("page_close", caller.uid))
        return {"ended": 1}


class FakeLeafOperations:
    def __init__(self, whole: FakeOperations) -> None:
        self._whole = whole

    async def bind(self, caller: Caller, device_id: str, manufacturer: str, serial: str) -> Data:
        self._whole.calls.append(("device_bind", caller.uid, device_id, manufacturer, serial))
        shown = await self._whole.device_show(device_id)
        bound = {"manufacturer": manufacturer or "acme", "serial": serial, "void": False}
        return {**shown, "hardware": bound} if serial else shown


class FakeOperations:
    """``calls`` is what was asked, and by whom. ``gate``, when set to an unset event, holds work after its first step;
    ``slow`` holds reads; ``failure`` is raised by work at its end; ``defect`` by ``status``."""

    def __init__(self) -> None:
        self.devices: dict[str, Data] = {GATEWAY: device(GATEWAY, "gateway", key_algorithm="ec-p256")}
        self.revocations: list[Data] = []
        self.waiting: list[Data] = []
        self.calls: list[tuple[Any, ...]] = []
        self.wanted = Wanted()
        self.findings: list[Data] = [{"area": "token", "check": "token", "verdict": "fine", "what": "It works."}]
        self.slow = 0.0
        self.file = "/etc/gatewayd/gatewayd.toml"
        self.gate: asyncio.Event | None = None
        self.failure: GatewayError | None = None
        self.defect: Exception | None = None

    @property
    def token(self) -> FakeTokenOperations:
        return FakeTokenOperations(self)

    @property
    def maintenance(self) -> FakeMaintenanceOperations:
        return FakeMaintenanceOperations(self)

    @property
    def leaves(self) -> FakeLeafOperations:
        return FakeLeafOperations(self)

    @property
    def page(self) -> FakePageOperations:
        return FakePageOperations(self)

    async def status(self) -> Data:
        await asyncio.sleep(self.slow)
        if self.defect:
            raise self.defect
        known = ("new", "enrolling", "active", "expired", "replacing", "revoked")
        states = [each["state"] for each in self.devices.values() if each["kind"] == "leaf"]
        return {
            "version": "0.1.0",
            "configuration": {"file": self.file, "loaded_at": NOW},
            "gateway": self.devices[GATEWAY],
            "token": TOKEN,
            "clock": {"sane": True, "state": "sane", "synchronised": True, "now": NOW, "system": NOW, "floor": NOW},
            "issuer": {"name": "ezca", "url": "https://ezca.example", "last_success_at": NOW},
            "hub": {"host": "hub.example", "state": "connected", "since": NOW, "registry": {"last_success_at": NOW}},
            "est": {"url": "https://gw-1.example:8443/.well-known/est", "listening": True},
            "hooks": [{"name": "mosquitto", "state": "done", "last_success_at": NOW}],
            "revocation_sources": [
                {
                    "kind": "crl",
                    "name": "http://pki.example/issuing.crl",
                    "state": "stale",
                    "last_success_at": "2031-04-30T10:00:00Z",
                    "last_error": "IssuerUnreachable: pki.example could not be asked: no connection.",
                    "last_error_at": "2031-05-01T11:59:00Z",
                    "next_update": "2031-05-01T10:00:00Z",
                }
            ],
            "devices": {state: states.count(state) for state in known},
            "revocations": self.revocations,
            "waiting": self.waiting,
        }

    async def export(self, caller: Caller) -> str:
        self.calls.append(("export", caller.uid))
        return "e30.e30.e30"

    async def adopt(self, caller: Caller, text: str, reason: str, max_age: int, token: str) -> Work:
        self.calls.append(("adopt", caller.uid, text, reason, max_age, token))
        return self._work(("adopted", "make-key", "request", "pinned"), lambda: self.devices[GATEWAY])

    async def diagnose(self) -> list[Data]:
        if self.failure is not None:
            raise self.failure
        return self.findings

    async def audit_verify(self, caller: Caller) -> Data:
        self.calls.append(("audit_verify", caller.uid))
        found = {"fault": "missing", "first": 7, "last": 9, "detail": "no longer there"}
        return {"intact": False, "records": 11, "signed_up_to": 10, "signed_at": NOW, "findings": [found]}

    async def device_list(self, wanted: Wanted, room: int | None = None) -> list[Data]:
        self.wanted = wanted
        known = list(self.devices.values())
        return [each for each in known if not wanted.states or each["state"] in wanted.states][: wanted.limit]

    async def device_row(self, device_id: str) -> Data:
        return self._known(device_id)

    async def device_show(self, device_id: str) -> Data:
        found = self._known(device_id)
        credential = {"generation": 1, "state": "current", "created_at": NOW, "updated_at": NOW, "serial": "1a2b"}
        history = [{"at": NOW, "who": "uid:0", "what": "added", "outcome": "ok", "detail": ""}]
        mine = [each for each in self.revocations if each["device_id"] == device_id]
        return {"device": found, "credentials": [credential], "revocations": mine, "history": history}

    async def device_add(
        self,
        caller: Caller,
        device_id: str,
        sans: list[str],
        code_lifetime: int,
        manufacturer: str = "",
        serial: str = "",
    ) -> Data:
        bound = (manufacturer, serial) if serial else ()
        self.calls.append(("device_add", caller.uid, device_id, sans, code_lifetime, *bound))
        if device_id in self.devices:
            raise DeviceExists(f"there is a device {device_id} already", device=device_id)
        self.devices[device_id] = device(device_id, state="new", hub_state="absent", sans=sans)
        return self._code(device_id)

    async def device_code(self, caller: Caller, device_id: str, code_lifetime: int) -> Data:
        self.calls.append(("device_code", caller.uid, device_id, code_lifetime))
        self._known(device_id)
        return self._code(device_id)

    async def device_replace(
        self,
        caller: Caller,
        device_id: str,
        reason: str,
        code_lifetime: int,
        manufacturer: str = "",
        serial: str = "",
    ) -> tuple[Data, Work]:
        bound = (manufacturer, serial) if serial else ()
        self.calls.append(("device_replace", caller.uid, device_id, reason, code_lifetime, *bound))
        self._known(device_id).update(state="replacing", hub_state="disabled")
        steps = ("old-certificate-out", "id-disabled", "code-out", "new-certificate-in", "pinned")
        return self._code(device_id), self._work(steps, lambda: self.devices[device_id])

    async def device_replace_cancel(self, caller: Caller, device_id: str) -> Data:
        self.calls.append(("device_replace_cancel", caller.uid, device_id))
        self._known(device_id).update(state="revoked")
        return await self.device_show(device_id)

    async def bootstrap(self, caller: Caller, token: str) -> Work:
        self.calls.append(("bootstrap", caller.uid, token))
        return self._work(("make-key", "request", "accept", "switch"), lambda: self.devices[GATEWAY])

    async def bootstrap_with_certificate(self, caller: Caller, pem: str) -> Work:
        self.calls.append(("bootstrap_with_certificate", caller.uid, pem))
        return self._work(("make-key", "request", "accept", "switch"), lambda: self.devices[GATEWAY])

    async def renew(self, caller: Caller, device_id: str, key_algorithm: str) -> Work:
        self.calls.append(("renew", caller.uid, device_id, key_algorithm))
        known = self._known(device_id)
        return self._work(("make-key", "request", "accept", "switch"), lambda: known)

    async def revoke(self, caller: Caller, device_id: str, reason: str) -> Work:
        self.calls.append(("revoke", caller.uid, device_id, reason))
        known = self._known(device_id)

        def revoked() -> Data:
            known.update(state="revoked", hub_state="disabled")
            return {"device": known, "revocations": [revocation(device_id, len(MILESTONES))]}

        return self._work(MILESTONES, revoked)

    async def clock_trust(self, caller: Caller) -> Data:
        self.calls.append(("clock_trust", caller.uid))
        return {"sane": True, "state": "sane", "synchronised": False, "now": NOW, "system": NOW, "floor": NOW}

    async def registrar_certificate(self, caller: Caller) -> str:
        self.calls.append(("registrar_certificate", caller.uid))
        return PEM

    def _known(self, device_id: str) -> Data:
        try:
            return self.devices[device_id]
        except KeyError:
            raise DeviceUnknown(f"there is no device {device_id}", device=device_id) from None

    def _code(self, device_id: str) -> Data:
        return {
            "device": self.devices[device_id],
            "code": new_code(),
            "expires_at": "2031-05-02T12:00:00Z",
            "est_url": "https://gw-1.example:8443/.well-known/est",
        }

    def _work(self, steps: tuple[str, ...], result: Callable[[], Data]) -> Work:
        async def work(progress: Progress) -> Data:
            for step in steps:
                progress(step, "started")
                await asyncio.sleep(0)
                progress(step, "done", f"proof of {step}")
                if self.gate:
                    await self.gate.wait()
            if self.failure:
                raise self.failure
            return result()

        return work
