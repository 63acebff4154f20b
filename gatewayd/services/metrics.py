"""The metrics at a moment: what status shows and what the store counts, in Prometheus' text format.

They do not grow with the fleet: leaves are counted, by how much of their certificates' lives is left and by their
state; only the gateway's own certificate is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from cryptography import x509
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ..core.measures import Fleet, Queue
from ..keys.base import TokenState
from ..store.base import Store, Tx
from ..upstream.base import LinkState
from .clock import Clock
from .meters import Meters

Data = dict[str, Any]


class Status(Protocol):
    async def status(self) -> Data: ...


@dataclass(frozen=True, slots=True)
class Counted:
    """From the store, in one transaction."""

    fleet: Fleet
    turns: int
    """Leaves' renewals that wait for their turn at the CA."""
    troubled: int
    outbox: Queue
    records: int
    signed: int
    signed_at: datetime | None


class Metrics:
    def __init__(
        self,
        meters: Meters,
        *,
        status: Status,
        store: Store,
        clock: Clock,
        anchors: Callable[[], Sequence[x509.Certificate]],
        waiting: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        """``waiting``: the queues in memory, by name, and how many wait in each."""
        self._meters = meters
        self._status = status
        self._store = store
        self._clock = clock
        self._anchors = anchors
        self._waiting = waiting

    async def exposition(self) -> bytes:
        """Raises what the store does."""
        now = self._clock.now()
        status = await self._status.status()
        counted = await self._store.read(lambda tx: _count(tx, now))
        moment = CollectorRegistry()
        moment.register(_Moment(self._families(status, counted)))
        return generate_latest(moment) + generate_latest(self._meters.registry)

    def _families(self, status: Data, counted: Counted) -> Iterator[Metric]:
        yield _labelled("gatewayd_build_info", "Which gatewayd this is.", {"version": status["version"]}, 1)
        yield from _certificates(status["gateway"], counted.fleet)
        yield _by("gatewayd_devices", "Leaves, by their state.", "state", status["devices"])
        yield _anchors(self._anchors())
        yield from _revocations(status["revocations"])
        yield from _tokens(status)
        yield from _clock(status["clock"])
        yield from _peers(status)
        yield from _sources(status["revocation_sources"])
        yield from _queues(counted, self._waiting())
        waiting: dict[str, int] = {}
        for item in status["waiting"]:
            waiting[item["error"]] = waiting.get(item["error"], 0) + 1
        yield _by("gatewayd_waiting_for_person", "What goes on only when a person has acted.", "error", waiting)
        yield _one("gatewayd_audit_records", "Records in the audit trail.", counted.records)
        yield _one("gatewayd_audit_signed_records", "Of these, up to which one the token has signed.", counted.signed)
        if counted.signed_at is not None:
            yield _at("gatewayd_audit_signed", "When the audit trail was last signed.", counted.signed_at)


class _Moment(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _count(tx: Tx, now: datetime) -> Counted:
    head = tx.journal.last_head()
    return Counted(
        fleet=tx.credentials.fleet(now),
        turns=tx.credentials.count_waiting(),
        troubled=tx.credentials.count_troubled(),
        outbox=tx.outbox.queue(),
        records=tx.journal.written(),
        signed=head.seq if head else 0,
        signed_at=head.at if head else None,
    )


def _certificates(gateway: Data, fleet: Fleet) -> Iterator[Metric]:
    name = {"device_id": gateway["device_id"]}
    for key, what in (
        ("not_before", "When the gateway's own certificate begins."),
        ("not_after", "When the gateway's own certificate ends."),
        ("renew_at", "When the gateway's own certificate is renewed."),
    ):
        if key in gateway:
            yield _labelled(f"gatewayd_certificate_{key}_timestamp_seconds", what, name, _seconds(gateway[key]))
    failures = "Attempts at the gateway's certificate that is on its way, in a row, that have failed."
    yield _one("gatewayd_certificate_failed_attempts", failures, gateway.get("attempts", 0))
    left = "Certificates in use, by how much of their life is left."
    yield _by("gatewayd_certificates", left, "left", {str(each): count for each, count in fleet.counts.items()})
    if fleet.earliest is not None:
        yield _at("gatewayd_certificates_earliest_not_after", "When the first of them ends.", fleet.earliest)


def _anchors(anchors: Sequence[x509.Certificate]) -> Metric:
    family = Gauge(
        "gatewayd_anchor_not_after_timestamp_seconds",
        "When a CA certificate that issued ones must chain to ends.",
        labels=["subject", "serial"],
    )
    for each in anchors:
        subject, serial = each.subject.rfc4514_string(), f"{each.serial_number:x}"
        family.add_metric([subject, serial], each.not_valid_after_utc.timestamp())
    return family


def _revocations(revocations: Sequence[Data]) -> Iterator[Metric]:
    """By the first milestone that is missing."""
    since: dict[str, list[float]] = {}
    for each in revocations:
        if each["open"]:
            missing = next((item["name"] for item in each["milestones"] if "done_at" not in item), "verified")
            since.setdefault(missing, []).append(_seconds(each["known_at"]))
    open_ = "Revocations that are not complete, by the first milestone that is missing."
    yield _by("gatewayd_revocations_open", open_, "missing", {name: len(all_) for name, all_ in since.items()})
    oldest = {name: min(all_) for name, all_ in since.items()}
    first = "When the oldest of these became known."
    yield _by("gatewayd_revocations_open_oldest_timestamp_seconds", first, "missing", oldest)


def _tokens(status: Data) -> Iterator[Metric]:
    family = Gauge("gatewayd_token_state", "1 for the state that a token is in.", labels=["token", "state"])
    for name, key in (("gateway", "token"), ("registrar", "registrar_token")):
        for state in TokenState if key in status else ():
            family.add_metric([name, str(state)], float(status[key]["state"] == state))
    yield family


def _clock(clock: Data) -> Iterator[Metric]:
    yield _one("gatewayd_clock_sane", "Whether dates are decided by the machine's clock.", clock["sane"])
    synchronised = "Whether the kernel says that something keeps its clock right."
    yield _one("gatewayd_clock_synchronised", synchronised, clock["synchronised"])


def _peers(status: Data) -> Iterator[Metric]:
    link = {str(state): float(status["hub"]["state"] == state) for state in LinkState}
    yield _by("gatewayd_link_state", "1 for the state that the link to the hub is in.", "state", link)
    peers = {"issuer": status["issuer"], "registry": status["hub"]["registry"]}
    last = {name: _seconds(peer["last_success_at"]) for name, peer in peers.items() if "last_success_at" in peer}
    yield _by("gatewayd_peer_last_success_timestamp_seconds", "The latest good exchange with a peer.", "peer", last)
    failing = {name: float("last_error" in peer) for name, peer in peers.items()}
    yield _by("gatewayd_peer_failing", "Whether the latest exchange with a peer failed.", "peer", failing)
    left_alone = float("left_alone_until" in status["issuer"])
    yield _one("gatewayd_issuer_left_alone", "Whether the CA is left alone because it does not serve.", left_alone)
    yield _one("gatewayd_est_listening", "Whether leaves can enroll.", status["est"]["listening"])


def _sources(sources: Sequence[Data]) -> Iterator[Metric]:
    family = Gauge("gatewayd_revocation_source_stale", "Whether what is known is out of date.", labels=["kind", "name"])
    for each in sources:
        family.add_metric([each["kind"], each["name"]], float(each["state"] == "stale"))
    yield family


def _queues(counted: Counted, waiting: Iterable[tuple[str, int]]) -> Iterator[Metric]:
    depths = {"outbox": counted.outbox.depth, "turns": counted.turns, **dict(waiting)}
    yield _by("gatewayd_queue_depth", "How many wait in a queue (docs/metrics.md).", "queue", depths)
    if counted.outbox.oldest is not None:
        yield _at("gatewayd_outbox_oldest", "Since when the oldest message waits for the hub.", counted.outbox.oldest)
    troubled = "Certificates on their way whose latest attempt failed."
    yield _one("gatewayd_credentials_troubled", troubled, counted.troubled)


def _one(name: str, what: str, value: float) -> Metric:
    return Gauge(name, what, value=float(value))


def _at(name: str, what: str, moment: datetime) -> Metric:
    return Gauge(f"{name}_timestamp_seconds", what, value=moment.timestamp())


def _by(name: str, what: str, label: str, values: dict[str, Any]) -> Metric:
    family = Gauge(name, what, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


def _labelled(name: str, what: str, labels: dict[str, str], value: float) -> Metric:
    family = Gauge(name, what, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
