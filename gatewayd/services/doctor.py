"""The doctor's look from inside the daemon: with its rights, its network, its trust and what only it knows."""

from __future__ import annotations

import asyncio
import os
import pwd
import ssl
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from cryptography import x509

from ..checkup import checks
from ..config import Settings
from ..core import doctor
from ..core.clock import Verdict as ClockVerdict
from ..core.doctor import Area, Finding, Verdict
from ..core.listing import Overview
from ..core.measures import Fleet, Left, left
from ..core.model import Credential, CredentialState
from ..errors import GatewayError
from ..store.base import Store
from . import views
from .clock import Clock

Data = dict[str, Any]

_LIMIT: Final = 20.0
"""Seconds for one check, whatever becomes of it."""
_CLOCK: Final = "ClockWrong"
_AREAS: Final = (
    ("Reload", Area.CONFIGURATION),
    ("Restart", Area.CONFIGURATION),
    ("Token", Area.TOKEN),
    ("Pin", Area.TOKEN),
    ("Key", Area.TOKEN),
    ("Algorithm", Area.TOKEN),
    ("Issuer", Area.CA),
    ("Registrar", Area.CA),
    ("Certificate", Area.EXPIRY),
    ("Hub", Area.HUB),
    ("Responder", Area.HUB),
)
"""Whose affair an error is, by the beginning of its name; else the daemon's own."""


class Status(Protocol):
    async def status(self) -> Data: ...


class Doctor:
    def __init__(
        self,
        settings: Settings,
        *,
        status: Status,
        store: Store,
        clock: Clock,
        tls: ssl.SSLContext,
        anchors: Callable[[], Sequence[x509.Certificate]],
        gateway_id: str,
    ) -> None:
        """``tls``: as the daemon trusts its peers."""
        self._settings = settings
        self._status = status
        self._store = store
        self._clock = clock
        self._tls = tls
        self._anchors = anchors
        self._gateway_id = gateway_id
        self._looking: asyncio.Task[list[Data]] | None = None

    async def diagnose(self) -> list[Data]:
        """In the order of Area. Who asks while somebody else's look is under way gets that one."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> list[Data]:
        found = await asyncio.gather(
            self._limited(Area.DISK, asyncio.to_thread(checks.disk, self._settings)),
            self._limited(Area.PERMISSIONS, asyncio.to_thread(self._permissions)),
            self._limited(Area.CA, checks.network(self._settings, self._tls)),
            self._limited(Area.DAEMON, self._known()),
            self._limited(Area.EXPIRY, self._ends()),
        )
        order = list(Area)
        once = dict.fromkeys(each for group in found for each in group)
        findings = sorted(once, key=lambda each: order.index(each.area))
        return [views.finding(each) for each in findings]

    async def _limited(self, area: Area, work: Any) -> list[Finding]:
        try:
            async with asyncio.timeout(_LIMIT):
                found: list[Finding] = await work
                return found
        except TimeoutError:
            why = f"A check did not come to an end within {_LIMIT:g} s."
            return [doctor.unknown(area, "time limit", why, "Look at the machine's disk, load and network.")]
        except GatewayError as error:  # a database that cannot be read, say: on such a day all else is wanted the more
            return [Finding(Area.DAEMON, error.name(), Verdict.PROBLEM, error.message, error.remedy)]

    def _permissions(self) -> list[Finding]:
        uid = os.geteuid()
        try:
            owner = pwd.getpwuid(uid).pw_name
        except KeyError:
            owner = str(uid)
        return checks.permissions(self._settings, uid=uid, owner=owner) + checks.metrics(self._settings)

    async def _known(self) -> list[Finding]:
        """What status knows, and what waits for a person."""
        status = await self._status.status()
        clock = self._clock.status()
        waiting = [_waiting(each) for each in status["waiting"] if each["error"] != _CLOCK]
        return [
            Finding(Area.DAEMON, "daemon", Verdict.FINE, f"gatewayd {status['version']} serves."),
            doctor.time_of_day(clock.verdict, clock.synchronised, clock.system),
            *_tokens(status, {each.area for each in waiting}),
            *_peers(status),
            *_sources(status["revocation_sources"]),
            *waiting,
        ]

    async def _ends(self) -> list[Finding]:
        now = self._clock.now()
        if self._clock.status().verdict is not ClockVerdict.SANE:
            why = "What has expired cannot be told while the clock is wrong."
            return [doctor.unknown(Area.EXPIRY, "certificates", why, "Set the clock first.")]
        own, current, under_way, fleet = await self._store.read(
            lambda tx: (
                tx.devices.overview(self._gateway_id),
                tx.credentials.current(self._gateway_id),
                tx.credentials.all(self._gateway_id)[-1:],
                tx.credentials.fleet(now),
            )
        )
        last_error = under_way[0].last_error if under_way else None
        known = checks.anchors("CA", self._anchors(), now, "Ask the CA for its successor; it is taken up by itself.")
        bundles = await asyncio.to_thread(checks.trusted, self._settings, now)
        return [*_own(own, last_error, now), *_leaves(fleet, current, now), *known, *bundles]


def _own(own: Overview | None, last_error: str | None, now: datetime) -> Iterable[Finding]:
    if own and own.live and own.live.not_before and own.live.not_after:
        yield doctor.own_certificate(own.live.not_before, own.live.not_after, now, last_error)


def _leaves(fleet: Fleet, own: Credential | None, now: datetime) -> Iterable[Finding]:
    """Of the fleet without the gateway, which has a finding of its own; a revoked one is not in use."""
    counts = dict(fleet.counts)
    if own and own.state is CredentialState.CURRENT and own.not_before and own.not_after:
        counts[left(own.not_before, own.not_after, now)] -= 1
    if any(counts.values()):
        yield doctor.leaves(counts[Left.EXPIRED], counts[Left.TENTH])


def _waiting(item: Data) -> Finding:
    area = next((area for begins, area in _AREAS if item["error"].startswith(begins)), Area.DAEMON)
    whose = f"{item['device_id']}: " if "device_id" in item else ""
    return Finding(area, item["error"], Verdict.PROBLEM, f"{whose}{item['what']}", item["remedy"])


def _tokens(status: Data, told: set[Area]) -> Iterable[Finding]:
    """What waits for a person has its own finding."""
    for name in ("token", "registrar_token"):
        if name not in status:
            continue
        token, check = status[name], name.replace("_", " ")
        if token["state"] == "ready":
            yield Finding(Area.TOKEN, check, Verdict.FINE, f"{token.get('label', 'The token')} works.")
        elif Area.TOKEN not in told:
            what = token.get("detail", f"The {check} is {token['state']}.")
            remedy = "It is tried again by itself; if this stays, check the device, its driver and [token] module."
            yield Finding(Area.TOKEN, check, Verdict.PROBLEM, what, remedy)


def _peers(status: Data) -> Iterable[Finding]:
    """How the latest exchanges went, which only the daemon has the rights for."""
    for area, check, peer in ((Area.CA, "CA", status["issuer"]), (Area.HUB, "registry", status["hub"]["registry"])):
        if "last_error" in peer:
            remedy = "It is tried again by itself; 'gatewayctl status' says since when."
            yield Finding(area, check, Verdict.WARNING, f"The latest exchange failed: {peer['last_error']}", remedy)
        elif "last_success_at" in peer:
            yield Finding(area, check, Verdict.FINE, f"The latest exchange went well ({peer['last_success_at']}).")
    hub = status["hub"]
    if hub["state"] == "connected":
        yield Finding(Area.HUB, "link", Verdict.FINE, "The link to the hub is up.")
    elif hub["state"] == "off":
        yield doctor.unknown(Area.HUB, "link", "The link to the hub is off.", "It needs the gateway's certificate.")
    else:
        what = f"The link to the hub is {hub['state']}: {hub.get('detail', 'no answer yet')}"
        remedy = "Does the device exist in the hub, is it enabled, and is the CA registered there?"
        yield Finding(Area.HUB, "link", Verdict.PROBLEM, what, remedy)


def _sources(sources: Iterable[Data]) -> Iterable[Finding]:
    for each in sources:
        if each["state"] == "stale":
            what = f"What {each['name']} says of revocations is out of date: {each.get('last_error', 'no answer')}"
            remedy = "It stays in force and is fetched again by itself; can the address be reached?"
            yield Finding(Area.CA, each["kind"], Verdict.WARNING, what, remedy)
