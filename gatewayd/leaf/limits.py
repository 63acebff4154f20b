"""How often somebody may be wrong."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable


class FailureLimit:
    """A token bucket for each key: ``allowed`` failures at once, given back evenly over ``period`` seconds.

    Only failures count, so that a plant behind one address may enroll as fast as it can. Memory is bounded: beyond
    ``max_keys`` the key that has failed least recently is forgotten.
    """

    def __init__(self, allowed: int, period: float, clock: Callable[[], float], max_keys: int = 4096) -> None:
        self._allowed = allowed
        self._rate = allowed / period
        self._clock = clock
        self._max_keys = max_keys
        self._spent: dict[str, tuple[float, float]] = {}  # key → (tokens spent, when that was true), oldest first

    def wait(self, key: str) -> float:
        """Seconds until ``key`` may try again; 0 when it may now."""
        return max(0.0, (self._now_spent(key) + 1 - self._allowed) / self._rate)

    def failed(self, key: str) -> None:
        spent = min(self._now_spent(key) + 1, float(self._allowed))
        self._spent.pop(key, None)
        self._spent[key] = (spent, self._clock())
        if len(self._spent) > self._max_keys:
            del self._spent[next(iter(self._spent))]

    def __len__(self) -> int:
        return len(self._spent)

    def _now_spent(self, key: str) -> float:
        if key not in self._spent:
            return 0.0
        spent, at = self._spent[key]
        left = spent - (self._clock() - at) * self._rate
        if left > 0:
            return left
        del self._spent[key]
        return 0.0


class CodeGuard:
    """Who has tried too many wrong codes: by address, and by the device that they were for.

    A code has 80 random bits, so this is against load and noise in the log more than against guessing. A device may
    fail three times as often as an address, so that one host alone cannot shut a device out.
    """

    ADDRESS_FAILURES = 10
    DEVICE_FAILURES = 30
    PERIOD = 600.0
    """Seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._addresses = FailureLimit(self.ADDRESS_FAILURES, self.PERIOD, clock)
        self._devices = FailureLimit(self.DEVICE_FAILURES, self.PERIOD, clock)

    def wait(self, remote: str, device_id: str | None) -> float:
        """Seconds until this address may try a code for this device; 0 when it may now."""
        return max(self._addresses.wait(network(remote)), self._devices.wait(device_id) if device_id else 0.0)

    def failed(self, remote: str, device_id: str | None) -> None:
        self._addresses.failed(network(remote))
        if device_id:
            self._devices.failed(device_id)


def network(remote: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 within which an IPv6 host takes any that it likes."""
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    if isinstance(address, ipaddress.IPv4Address):
        return remote
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
