"""All there is to learn revocations from, put together as the configuration says, and how it fares."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from ssl import SSLContext
from typing import Any

from cryptography import x509

from ..ca.base import CertificateList
from ..config import RevocationSettings
from ..core.model import JournalEntry, Milestone
from ..store.base import Store
from . import views
from .clock import Clock
from .crl_source import CrlSource, Shared
from .events import Events
from .export import Export
from .health import Health
from .learning import Learner
from .list_source import ListSource
from .ocsp_source import OcspSource
from .own import OwnCertificates
from .watch import Source, Watch, Watched


class Sources:
    def __init__(
        self,
        settings: RevocationSettings,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        health: Health,
        tls: SSLContext,
        anchors: Callable[[], tuple[x509.Certificate, ...]],
        ca_name: str,
        ca_list: CertificateList | None,
        directory: Path,
        gateway_id: str,
    ) -> None:
        """``ca_list``: the CA's own list, where it has one; ``directory``: where copies of CRLs are kept."""
        self._clock = clock
        self._gateway_id = gateway_id
        self._directory = directory
        own = OwnCertificates(store, clock, anchors)
        learner = Learner(store=store, clock=clock, events=events)
        shared = Shared(settings, directory, store, clock, own, learner, tls)
        interval = timedelta(seconds=settings.interval)
        fixed: list[Source] = []
        if settings.ca_list and ca_list is not None:
            fixed.append(ListSource(ca_name, ca_list, own, learner, health))
        if settings.ocsp:
            fixed.append(OcspSource(store, clock, own, learner, tls, lambda: self._watch.interval))
        self._watch = Watch(
            clock=clock,
            interval=interval,
            own=own,
            fixed=fixed,
            crl=lambda url: CrlSource(url, shared),
            crl_urls=settings.crl_urls,
            follow=settings.distribution_points,
            looked=self._ring_export,
        )
        self._export = None
        if settings.export_directory is not None:
            self._export = Export(
                store=store,
                clock=clock,
                events=events,
                directory=settings.export_directory,
                mode=int(settings.export_mode, 8),
                crls=self._copies,
            )

    def take_up(self, settings: RevocationSettings) -> None:
        """What is live of them holds from now on (config.changes.LIVE)."""
        interval = timedelta(seconds=settings.interval)
        self._watch.take_up(interval, settings.crl_urls, follow=settings.distribution_points)

    def heard(self) -> bool:
        """Whether every source has been looked at since the start, or since ``hear_anew``, with success, and what it
        said is acted on."""
        return self._watch.heard()

    def hear_anew(self) -> None:
        self._watch.hear_anew()

    def loops(self) -> Iterable[Coroutine[Any, Any, None]]:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        return [self._watch.run()] if self._export is None else [self._watch.run(), self._export.run()]

    def happened(self, entry: JournalEntry) -> None:
        """An event of this process. The gateway's new certificate may name a new CRL; those that leaves' name are found
        within a minute, because a thousand of them may come at once. What is refused from now on is exported."""
        if entry.what == "switch" and entry.device_id == self._gateway_id:
            self._watch.ring()
        if entry.what in ("revocation", Milestone.REFUSED_HERE):
            self._ring_export()

    def shown(self) -> list[dict[str, Any]]:
        """For status."""
        now = self._clock.now()
        return [self._shown(each, now) for each in self._watch.watched.values()]

    def _shown(self, it: Watched, now: datetime) -> dict[str, Any]:
        latest = it.latest
        return views.present(
            {
                "kind": it.source.kind,
                "name": it.source.name,
                "state": str(it.freshness(self._watch.interval, now)),
                **views.peer(it.proven),
                "next_update": views.when(latest.next_update) if latest else None,
                "next_look_at": views.when(it.next_look_at),
                "detail": latest.detail or None if latest else None,
                "on_hold": sorted(set(latest.held)) or None if latest else None,
            }
        )

    def _copies(self) -> list[Path]:
        sources = (each.source for each in self._watch.watched.values())
        return sorted(each.path for each in sources if isinstance(each, CrlSource))

    def _ring_export(self) -> None:
        if self._export is not None:
            self._export.ring()
