"""The form of the responder's answers, which both sides share."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.upstream import answers
from gatewayd.upstream.answers import KEPT, Answer, Answers, Status


def answer(number: int = 1, status: Status = Status.DISABLED) -> Answer:
    return Answer("revocation", f"leaf.{number}", "1a2b", status, "etag", "", f"2031-05-01T00:00:{number:09.6f}+00:00")


def merged(present: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """As the hub merges a twin (RFC 7386), one level down from where answers lie."""
    found = present.get("gatewayd", {}).get("answers", {}) | patch["gatewayd"]["answers"]
    return {"gatewayd": {"answers": {key: value for key, value in found.items() if value is not None}}}


def test_what_is_written_is_read() -> None:
    desired = json.loads(json.dumps(answers.patch([], [answer(1), answer(2, Status.REFUSED)])))
    assert answers.of(desired) == [answer(1), answer(2, Status.REFUSED)]


@given(st.lists(st.lists(st.integers(0, 300), max_size=100), max_size=8))
def test_a_twin_holds_the_latest_answers_and_stays_within_its_bounds(batches: list[list[int]]) -> None:
    desired: dict[str, Any] = {}
    latest: dict[str, Answer] = {}
    moment = 0
    for batch in batches:
        new = []
        for number in dict.fromkeys(batch):
            moment += 1
            at = f"2031-05-01T00:00:00.{moment:06}+00:00"
            new.append(Answer("revocation", f"leaf-{number}", "1a" * 20, Status.DISABLED, "e" * 24, "", at))
        desired = merged(desired, answers.patch(answers.of(desired), new))
        for each in new:
            latest.pop(each.key, None)
            latest[each.key] = each
    kept = list(latest.values())[-KEPT:]
    assert sorted(answers.of(desired), key=lambda each: each.at) == kept
    assert len(json.dumps(desired)) < 32 * 1024


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_a_twin_may_hold_anything(what: Any) -> None:
    for desired in ({"gatewayd": what}, {"gatewayd": {"answers": what}}, {"gatewayd": {"answers": {"1": what}}}):
        assert answers.of(desired) == []


async def test_an_answer_is_told_once_and_waited_for() -> None:
    came: list[Answer] = []
    held = Answers()
    held.on_answer(came.append)
    waiting = asyncio.create_task(held.wait("revocation", "leaf.1", "1a2b", 5))
    await asyncio.sleep(0)
    held.take(answers.patch([], [answer()]))
    held.take(answers.patch([], [answer()]))
    assert await waiting == answer()
    assert came == [answer()]
    assert await held.wait("revocation", "leaf.9", "1a2b", 0.01) is None
