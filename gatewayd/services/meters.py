"""What is counted and timed while it happens: token calls, event loop, what comes of renewals.

prometheus_client is imported here and in services.metrics alone, and only where [metrics] is on.
"""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

from ..core.lifecycle import Action
from ..core.model import JournalEntry

LOOP_LAG_EVERY: Final = 1.0
"""Seconds."""

_TOKEN_BUCKETS: Final = (0.0005, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_STEPS: Final = frozenset(map(str, (Action.MAKE_KEY, Action.REQUEST, Action.ACCEPT)))


class Meters:
    def __init__(self, gateway_id: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._gateway_id = gateway_id
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._certificates = Counter(
            "gatewayd_renewals",
            "Certificates that came into use (done), and attempts at a step towards one that failed or had to wait.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        for kind in ("gateway", "leaf"):
            for outcome in ("done", "failed", "waiting"):
                self._certificates.labels(kind, outcome)  # there from the start: a rate needs a zero before the first
        self._tampered = Counter(
            "gatewayd_audit_faults", "Looks at the audit trail that found it tampered with.", registry=self.registry
        )
        self._token = Histogram(
            "gatewayd_token_call_seconds",
            "How long a call into the token took, without the wait for its turn.",
            ["token", "call"],
            buckets=_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self._token_failures = Counter(
            "gatewayd_token_call_failures",
            "Calls into the token that failed.",
            ["token", "call"],
            registry=self.registry,
        )
        self._lag = Histogram(
            "gatewayd_event_loop_lag_seconds",
            "By how much the event loop was late, looked at once a second.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )

    def happened(self, entry: JournalEntry) -> None:
        kind = "gateway" if entry.device_id == self._gateway_id else "leaf"
        if entry.what == Action.SWITCH or (entry.what in _STEPS and entry.outcome != "done"):
            self._certificates.labels(kind, entry.outcome).inc()
        if entry.what == "audit" and entry.outcome == "failed":
            self._tampered.inc()

    def token_called(self, token: str, call: str, seconds: float, failed: bool) -> None:
        """From any thread."""
        self._token.labels(token, call).observe(seconds)
        if failed:
            self._token_failures.labels(token, call).inc()

    async def watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOP_LAG_EVERY
            await asyncio.sleep(LOOP_LAG_EVERY)
            self._lag.observe(max(loop.time() - due, 0.0))
