"""The hub stand-in's topics, usernames and twins: pure parts of the device's side."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.lab.hub import topics
from gatewayd.lab.hub.admission import parse_username
from gatewayd.lab.hub.twins import merge

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(TEXTS.filter(lambda key: not key.startswith("$.")), TEXTS))
def test_a_property_bag_survives_its_encoding(properties: dict[str, str]) -> None:
    text = topics.bag({"$.mid": "m/1 +"}, properties)
    assert text.startswith("%24.mid=")
    parsed = topics.parse("leaf", f"devices/leaf/messages/events/{text}")
    assert parsed == topics.Telemetry({"message-id": "m/1 +"}, properties)


@pytest.mark.parametrize(
    ("topic", "request_"),
    [
        ("devices/leaf/messages/events", topics.Telemetry({}, {})),
        ("devices/leaf/messages/events/a=1+1&b", topics.Telemetry({}, {"a": "1+1", "b": ""})),
        ("$iothub/twin/GET/?$rid=7", topics.TwinGet("7")),
        ("$iothub/twin/PATCH/properties/reported/?$rid=8", topics.TwinReport("8")),
        ("$iothub/methods/res/-1/?$rid=9", topics.MethodResult("9", -1)),
        ("$iothub/methods/res/abc/?$rid=9", None),
        ("$iothub/twin/GET/?", None),
        ("devices/leaf-2/messages/events/", None),
        ("devices/leaf/messages/eventsmore", None),
        ("", None),
    ],
)
def test_what_a_topic_asks_for(topic: str, request_: topics.Request | None) -> None:
    assert topics.parse("leaf", topic) == request_


@pytest.mark.parametrize(
    ("username", "parsed"),
    [
        ("Hub.net/leaf/?api-version=2019-10-01&DeviceClientType=x", ("hub.net", "leaf")),
        ("127.0.0.1:8883/leaf/?api-version=1", ("127.0.0.1", "leaf")),
        ("hub.net/leaf/module/?api-version=1", None),
        ("hub.net/leaf/?DeviceClientType=x", None),
        ("hub.net/leaf", None),
        ("", None),
        (None, None),
    ],
)
def test_usernames(username: str | None, parsed: tuple[str, str] | None) -> None:
    assert parse_username(username) == parsed


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": "text"}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
    ],
)
def test_merge_patch(target: dict[str, Any], patch: dict[str, Any], merged: dict[str, Any]) -> None:
    """Examples of RFC 7386, appendix A."""
    assert merge(target, patch) == merged
