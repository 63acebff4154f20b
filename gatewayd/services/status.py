"""Gathers what status, device list and device show tell; services.views gives it its shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from .. import __version__
from ..ca.sparing import Spared
from ..core import lifecycle, listing
from ..core import revocation as table
from ..core.listing import Wanted
from ..core.model import Credential, DeviceKind, KeyAlgorithm, ReplacementState, Revocation
from ..errors import AlgorithmUnsupported, AnswerTooLarge, ClockWrong, DeviceUnknown, NotBootstrapped, RegistrarRefused
from ..keys.base import TokenStatus
from ..store.base import Store, Tx
from ..upstream.base import Link
from . import registrar, views
from .clock import Clock
from .health import Health
from .learning import still_admitted
from .token_keeper import algorithm_refusal

Data = dict[str, Any]
T = TypeVar("T")

_HISTORY = 50


class Token(Protocol):
    def status(self) -> TokenStatus: ...


class StatusReader:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        tokens: Mapping[str, Token],
        algorithm: KeyAlgorithm,
        link: Link,
        health: Health,
        spared: Callable[[], Spared | None],
        gateway_id: str,
        issuer_name: str,
        issuer_url: str,
        hub_host: str,
        est_url: Callable[[], str | None],
        sources: Callable[[], list[Data]],
        hooks: Callable[[Tx], list[Data]],
        configuration: Callable[[], tuple[Data, list[Data]]],
        restored: Callable[[], list[Data]],
    ) -> None:
        """``tokens``: ``gateway``, and ``registrar`` where that one's key has a token of its own; ``algorithm`` is
        that of the gateway's keys to come. ``spared`` tells of the breaker before the CA. ``est_url`` is None while the
        EST server does not listen; ``sources``: what revocations are learned from. ``configuration``: how it stands,
        and what of it waits for a person; ``restored``: what waits since a restore."""
        self._store = store
        self._clock = clock
        self._tokens = tokens
        self._algorithm = algorithm
        self._link = link
        self._health = health
        self._spared = spared
        self._gateway_id = gateway_id
        self._issuer = {"name": issuer_name, "url": issuer_url}
        self._hub_host = hub_host
        self._est_url = est_url
        self._sources = sources
        self._hooks = hooks
        self._configuration = configuration
        self._restored = restored

    async def status(self) -> Data:
        now = self._clock.now()
        overview, own, census, expired, open_ones, closed, in_trouble, others, hooks, known_as = await self._store.read(
            lambda tx: (
                tx.devices.overview(self._gateway_id),
                tx.credentials.all(self._gateway_id, lifecycle.UNFINISHED),
                tx.devices.census(now),
                tx.devices.expired(now, views.EXPIRED_SHOWN),
                tx.revocations.open(),
                tx.revocations.closed(views.CLOSED_SHOWN),
                tx.credentials.in_trouble(),
                [*_hardware_awaited(tx, now), *_swaps_in_trouble(tx), *still_admitted(tx, now)],
                self._hooks(tx),
                registrar.shown(tx),
            )
        )
        assert overview is not None
        gateway = views.device(overview, now)
        if own:
            gateway |= views.progress_of(own[-1])
        counts = views.counts(census)
        est_url = self._est_url()
        configuration, configuration_waits = self._configuration()
        return {
            "version": __version__,
            "configuration": configuration,
            "gateway": gateway,
            "token": views.token(self._tokens["gateway"].status()),
            **{f"{name}_token": views.token(keys.status()) for name, keys in self._tokens.items() if name != "gateway"},
            "clock": views.clock(self._clock.status()),
            "issuer": self._issuer | views.peer(self._health.issuer) | views.spared(self._spared(), now),
            **({"registrar": known_as} if known_as else {}),
            "hub": {
                "host": self._hub_host,
                **views.link(self._link.status()),
                "registry": views.peer(self._health.registry),
            },
            "est": views.present({"url": est_url, "listening": est_url is not None}),
            "revocation_sources": self._sources(),
            "hooks": hooks,
            "devices": counts,
            "revocations": [views.revocation(each) for each in [*open_ones, *closed]],
            "waiting": [
                *self._waiting(gateway, bool(own), in_trouble, open_ones),
                *others,
                *views.expired_waiting(gateway, expired, counts["expired"]),
                *views.hooks_waiting(hooks),
                *views.registrar_waiting(known_as),
                *configuration_waits,
                *self._restored(),
                *views.store_waiting(self._store.trouble),
            ],
        }

    def _waiting(
        self, gateway: Data, under_way: bool, in_trouble: list[Credential], revocations: list[Revocation]
    ) -> list[Data]:
        """What goes on only when a person has done something."""
        found: list[Data] = []
        for keys in self._tokens.values():
            if item := views.token_waiting(keys.status()):
                found.append(item)
        if refusal := algorithm_refusal(self._tokens["gateway"].status(), self._algorithm):
            found.append(views.waiting(refusal.message, AlgorithmUnsupported))
        if not self._clock.sane():
            says = views.when(self._clock.status().system)
            found.append(views.waiting(f"The machine's clock says {says}, which cannot be.", ClockWrong))
        if not found and gateway["state"] == "new" and not under_way:
            found.append(views.waiting("The gateway has no certificate.", NotBootstrapped, self._gateway_id))
        told = {each["error"] for each in found}
        for credential in in_trouble:
            item = views.waiting_for_person(credential.last_error, credential.device_id)
            if item and item["error"] not in told:  # an action that failed for want of the token
                found.append(item)
        for revocation in revocations:
            for milestone, progress in revocation.progress.items():
                if table.is_done(revocation, milestone):
                    continue
                if item := views.waiting_for_person(progress.last_error, revocation.device_id):
                    found.append(item)
        for proven in (self._health.issuer, self._health.registry):
            refused = proven.last_error is not None and proven.last_error.startswith(RegistrarRefused.name())
            if refused and not any(each["error"] == RegistrarRefused.name() for each in found):
                sentence = (proven.last_error or "").partition(": ")[2]
                found.append(views.waiting(sentence, RegistrarRefused))
        return found

    async def device_list(self, wanted: Wanted, room: int | None = None) -> list[Data]:
        """Raises AnswerTooLarge as soon as it is sure to take more than ``room`` bytes on the bus: all of a huge list
        would take the memory that there is."""
        now = self._clock.now()

        def work(tx: Tx) -> list[Data]:
            rows: list[Data] = []
            size = 0
            for each in listing.choose(tx.devices.overviews(wanted, now), wanted, now):
                rows.append(views.device(each, now))
                size += views.least_size(rows[-1])
                if room is not None and size > room:
                    raise AnswerTooLarge(f"The list has {len(rows)} devices at least, more than the bus takes.")
            return rows

        return await self._store.read(work)

    async def device_row(self, device_id: str) -> Data:
        overview = await self._store.read(lambda tx: tx.devices.overview(device_id))
        return views.device(_known(overview, device_id), self._clock.now())

    async def device_show(self, device_id: str) -> Data:
        now = self._clock.now()

        def work(tx: Tx) -> Data | None:
            overview = tx.devices.overview(device_id)
            if overview is None:
                return None
            revocations = tx.revocations.all(device_id)
            swaps = tx.replacements.all(device_id)
            newest_first = sorted(revocations, key=lambda each: each.known_at, reverse=True)
            return views.present(
                {
                    "device": views.device(overview, now),
                    "hardware": views.binding(overview.device.binding),
                    "code_expires_at": views.when(tx.codes.open_until(device_id, now)),
                    "replacement": views.replacement(swaps[-1], revocations) if swaps else None,
                    "credentials": [views.credential(each) for each in reversed(tx.credentials.all(device_id))],
                    "revocations": [views.revocation(each) for each in newest_first],
                    "history": views.history(tx.journal.recent(device_id, _HISTORY)),
                }
            )

        return _known(await self._store.read(work), device_id)

    async def with_code(self, device_id: str, code: str, expires_at: datetime) -> Data:
        shown = await self.device_show(device_id)
        est_url = self._est_url()
        return views.present(
            {
                "device": shown["device"],
                "code": code,
                "expires_at": views.when(expires_at),
                "est_url": est_url,
                "enroll_url": views.enroll_url(est_url, device_id, code) if est_url else None,
            }
        )


def _known(found: T | None, device_id: str) -> T:
    if found is None:
        raise DeviceUnknown(f"There is no device {device_id!r}.", device=device_id)
    return found


def _swaps_in_trouble(tx: Tx) -> list[Data]:
    found = (views.waiting_for_person(each.last_error, each.device_id) for each in tx.replacements.open())
    return [each for each in found if each is not None]


def _hardware_awaited(tx: Tx, now: datetime) -> list[Data]:
    return [
        views.waiting_for_hardware(each.device_id, tx.codes.open_until(each.device_id, now))
        for each in tx.replacements.open()
        if each.state is ReplacementState.AWAITING and each.certificate_at is None
        if (device := tx.devices.get(each.device_id)) is not None and device.kind is DeviceKind.LEAF
    ]
