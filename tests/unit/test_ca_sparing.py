"""The breaker around an issuer and the limit on its requests, with a fake CA behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from gatewayd.ca.base import CertificateRequest
from gatewayd.ca.sparing import LONGEST_WAIT, RateLimit, SparedIssuer
from gatewayd.core.sparing import OPENS_AFTER
from gatewayd.errors import (
    GatewayError,
    IssuerRejected,
    IssuerSpared,
    IssuerUnconfigured,
    IssuerUnreachable,
    RegistrarRefused,
    TokenBusy,
)

REQUEST = cast(CertificateRequest, None)


class Ca:
    """Answers as it is told; keeps count."""

    can_find = True

    def __init__(self) -> None:
        self.asked = 0
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*_: Any) -> Any:
            self.asked += 1
            if self.error is not None:
                raise self.error
            return ()

        return ask


class Wall:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def ca() -> Ca:
    return Ca()


@pytest.fixture
def issuer(ca: Ca, wall: Wall) -> SparedIssuer:
    return SparedIssuer(cast(Any, ca), wall, lambda: 0.5)


async def fail(issuer: SparedIssuer, error: type[BaseException], times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(error):
            await issuer.issue(REQUEST)


@pytest.mark.parametrize("error", [IssuerUnreachable, IssuerUnconfigured, RegistrarRefused])
async def test_a_ca_that_serves_nobody_is_left_alone_whoever_asks(
    ca: Ca, issuer: SparedIssuer, error: type[GatewayError]
) -> None:
    ca.error = error("away")
    await fail(issuer, error, OPENS_AFTER)
    for ask in (issuer.find(REQUEST), issuer.issue(REQUEST), issuer.anchors()):
        with pytest.raises(IssuerSpared) as spared:
            await ask
        assert spared.value.retry_after == issuer.pause() > 0
    assert ca.asked == OPENS_AFTER
    shown = issuer.spared()
    assert shown is not None
    assert shown.failures == OPENS_AFTER


async def test_one_probe_at_a_time_and_the_first_success_lets_all_through(
    ca: Ca, issuer: SparedIssuer, wall: Wall
) -> None:
    ca.error = IssuerUnreachable("away")
    await fail(issuer, IssuerUnreachable, OPENS_AFTER)
    wall.now += issuer.pause()
    await fail(issuer, IssuerUnreachable)
    await fail(issuer, IssuerSpared)
    wall.now += issuer.pause()
    ca.error = None
    await issuer.issue(REQUEST)
    assert issuer.spared() is None
    await issuer.issue(REQUEST)


async def test_a_no_is_an_answer(ca: Ca, issuer: SparedIssuer) -> None:
    for _ in range(3):
        ca.error = IssuerUnreachable("away")
        await fail(issuer, IssuerUnreachable, OPENS_AFTER - 1)
        ca.error = IssuerRejected("no")
        await fail(issuer, IssuerRejected)
    assert issuer.spared() is None


@pytest.mark.parametrize("error", [TokenBusy("the token"), asyncio.CancelledError()])
async def test_what_says_nothing_about_the_ca_leaves_the_next_one_to_try(
    ca: Ca, issuer: SparedIssuer, wall: Wall, error: BaseException
) -> None:
    ca.error = IssuerUnreachable("away")
    await fail(issuer, IssuerUnreachable, OPENS_AFTER)
    wall.now += issuer.pause()
    ca.error = error
    await fail(issuer, type(error))
    assert issuer.pause() == 0
    assert issuer.on_trial()


async def test_what_the_ca_asks_for_is_kept_and_a_person_gets_through(ca: Ca, issuer: SparedIssuer) -> None:
    ca.error = IssuerUnreachable("too many", retry_after=600)
    await fail(issuer, IssuerUnreachable)
    assert issuer.pause() == 600
    ca.error = None
    issuer.try_now()
    await issuer.issue(REQUEST)


async def test_requests_keep_their_distance_and_the_line_is_bounded(
    wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    limit = RateLimit(10, wall)
    for _ in range(4):
        await limit.turn()
    assert waits == pytest.approx([0.1, 0.2, 0.3])
    for _ in range(int(LONGEST_WAIT * 10) - 3):
        await limit.turn()
    with pytest.raises(IssuerSpared) as spared:
        await limit.turn()
    assert max(waits) <= LONGEST_WAIT < (spared.value.retry_after or 0)
    wall.now += LONGEST_WAIT
    await limit.turn()
