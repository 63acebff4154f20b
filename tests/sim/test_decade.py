"""The simulation of ``make sim-decade``, shorter and smaller, with other dice each time it is named here."""

from __future__ import annotations

import pytest

from benchmarks.decade import DAY, HOUR, Decade
from gatewayd.core.sparing import LEAST_BURST, LEAST_PACE


@pytest.mark.parametrize(("days", "seed"), [(90, 1), (90, 2), (30, 3), (2, 4)])
def test_nothing_expires_whose_gateway_and_ca_were_there(days: float, seed: int) -> None:
    decade = Decade(years=1 if days > 2 else 0.2, leaves=500, lifetime=days * DAY, seed=seed)
    decade.run()
    assert decade.count.renewed > 500 * decade.horizon / (days * DAY)
    assert decade.count.expired == 0
    assert decade.count.second == 0
    assert decade.count.closest >= 0.0999


def test_the_busiest_hour_of_a_fleet_that_was_enrolled_in_one_hour_is_no_crowd() -> None:
    decade = Decade(years=0.5, leaves=5_000, lifetime=90 * DAY, seed=5)
    decade.run()
    assert decade.count.expired == 0
    mean = len(decade.leaves) / (52.5 * DAY) * HOUR
    assert max(decade.count.by_hour.values()) <= max(3 * mean, 1.5 * LEAST_PACE * HOUR + 3 * LEAST_BURST)
