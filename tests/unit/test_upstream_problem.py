from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.upstream import problem

REGISTRY = {
    "Message": "ErrorCode:PreconditionFailed;Device version did not match.",
    "ExceptionMessage": "Tracking ID:x",
}
FLAT = {"errorCode": 404103, "message": "Timed out.", "trackingId": "x", "timestampUtc": "2026-01-01", "info": {}}
NESTED = {"Message": json.dumps(FLAT), "ExceptionMessage": ""}


@pytest.mark.parametrize(
    ("header", "body", "code", "text"),
    [
        (None, REGISTRY, "PreconditionFailed", "Device version did not match."),
        ("DeviceNotFound", REGISTRY, "DeviceNotFound", "Device version did not match."),
        (None, FLAT, "404103", "Timed out."),
        (None, {**FLAT, "errorCode": 404001}, "DeviceNotFound", "Timed out."),
        (None, NESTED, "404103", "Timed out."),
        ("DeviceNotOnline", NESTED, "DeviceNotOnline", "Timed out."),
        ("not a name;", FLAT, "404103", "Timed out."),
        (None, {"Message": "Just words"}, "", "Just words"),
        (None, ["odd"], "", ""),
    ],
)
def test_both_bodies_are_understood(header: str | None, body: object, code: str, text: str) -> None:
    assert problem.read(header, json.dumps(body).encode()) == problem.Problem(code, text)


def test_words_are_bounded_and_on_one_line() -> None:
    said = problem.read(None, json.dumps({"message": "a\r\nb\x1b[31m " + "c" * 5000}).encode())
    assert said.text.startswith("a b [31m ccc")
    assert len(said.text) == problem.TEXT_LIMIT


@given(st.none() | st.text(), st.binary() | st.text().map(lambda text: json.dumps({"Message": text}).encode()))
def test_nothing_makes_it_raise(header: str | None, body: bytes) -> None:
    said = problem.read(header, body)
    assert str(said)
    assert "\n" not in str(said)


def test_deep_nesting_is_no_document() -> None:
    assert problem.read(None, b"[" * 100_000) == problem.Problem("", "")
