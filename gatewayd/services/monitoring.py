"""[metrics]: nothing at all where it is off, not even prometheus_client in memory."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from cryptography import x509

from ..config import MetricsSettings
from ..core.model import JournalEntry
from ..store.base import Store
from .clock import Clock

if TYPE_CHECKING:
    from .meters import Meters
    from .metrics import Status


class Queue(Protocol):
    def waiting(self) -> int: ...


class Monitoring:
    def __init__(self, settings: MetricsSettings, gateway_id: str) -> None:
        self._settings = settings
        self._meters: Meters | None = None
        if settings.listen:
            from .meters import Meters

            self._meters = Meters(gateway_id)

    def happened(self, entry: JournalEntry) -> None:
        if self._meters is not None:
            self._meters.happened(entry)

    def token_calls(self, token: str) -> Callable[[str, float, bool], None]:
        """To be told of each call into this token."""
        return (lambda *_: None) if self._meters is None else partial(self._meters.token_called, token)

    def loops(
        self,
        *,
        status: Status,
        store: Store,
        clock: Clock,
        anchors: Callable[[], Sequence[x509.Certificate]],
        queues: Mapping[str, Queue],
    ) -> Iterable[Coroutine[Any, Any, None]]:
        if self._meters is None:
            return []
        from .metrics import Metrics
        from .metrics_server import MetricsServer

        def waiting() -> Iterable[tuple[str, int]]:
            return [(name, queue.waiting()) for name, queue in queues.items()]

        made = Metrics(self._meters, status=status, store=store, clock=clock, anchors=anchors, waiting=waiting)
        return [MetricsServer(made.exposition, self._settings).run(), self._meters.watch_loop()]
