"""The words and the markup of the technician's page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.replacement import Step
from gatewayd.errors import HubRefused, all_errors
from gatewayd.leaf.page.markup import Html, fill
from gatewayd.leaf.page.steps import WORDS, Mark, Phase, explained, phase, steps

NOW = "2031-05-01T12:00:00Z"


class Read(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.data = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.data += data


@given(st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"])))
def test_a_value_stays_what_it_is_and_makes_no_markup(value: str) -> None:
    read = Read(fill('<p title="$value">$value</p>', value=value))
    assert read.tags == [("p", [("title", value)])]
    assert read.data == value


def test_markup_of_ours_goes_in_as_it_is_and_what_is_missing_is_an_error() -> None:
    assert fill("<p>$inner</p>", inner=Html("<b>x</b>")) == "<p><b>x</b></p>"
    with pytest.raises(KeyError):
        fill("<p>$other</p>", inner="")


def shown(state: str, *done: Step, **more: Any) -> dict[str, Any]:
    listed = [{"name": step, **({"done_at": NOW} if step in done else {})} for step in Step]
    return {"device": {"state": "replacing"}, "replacement": {"state": state, "steps": listed}, **more}


def milestone(name: str, last_error: str) -> dict[str, Any]:
    return {"milestones": [{"name": name, "attempts": 1, "last_error": last_error}]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"device": {}}, None),
        (shown("closing", Step.CODE_OUT), Phase.SCAN),
        (shown("awaiting", Step.CODE_OUT), Phase.SCAN),
        (shown("closing", Step.CODE_OUT, credentials=[{"state": "revoked", "created_at": NOW}]), Phase.SCAN),
        (shown("closing", Step.CODE_OUT, credentials=[{"state": "pending", "created_at": NOW}]), Phase.WAIT),
        (shown("closing", Step.CODE_OUT, credentials=[{"state": "pending", "created_at": "2031-04"}]), Phase.SCAN),
        (shown("closing", Step.CODE_OUT, Step.NEW_CERTIFICATE_IN), Phase.WAIT),
        (shown("pinning", Step.CODE_OUT, Step.NEW_CERTIFICATE_IN), Phase.WAIT),
        (shown("pinned"), Phase.FINISHED),
        (shown("lifting"), Phase.FINISHED),
        (shown("cancelled"), Phase.GIVEN_UP),
        (shown("overtaken"), None),
        (shown("lifted"), None),
    ],
)
def test_what_the_technician_has_to_do(data: dict[str, Any], expected: Phase | None) -> None:
    assert phase(data) is expected


def test_each_error_stands_with_the_step_that_it_holds_up() -> None:
    silent = "HubUnreachable: no connection."
    for data, step in (
        (shown("closing", revocations=[milestone("revoked-at-ca", silent)]), Step.OLD_CERTIFICATE_OUT),
        (shown("closing", revocations=[milestone("disabled", silent)]), Step.ID_DISABLED),
        (shown("awaiting", credentials=[{"state": "blocked", "last_error": silent}]), Step.NEW_CERTIFICATE_IN),
        (
            shown("pinning", Step.NEW_CERTIFICATE_IN, credentials=[{"state": "accepting", "last_error": silent}]),
            Step.PINNED,
        ),
    ):
        troubled = [each for each in steps(data) if each.mark is Mark.TROUBLE]
        assert [each.words for each in troubled] == [WORDS[step]]
        assert troubled[0].trouble == "The cloud cannot be reached. The gateway keeps trying. Check its network."


def test_an_error_of_the_old_hardware_is_not_the_new_ones() -> None:
    data = shown("awaiting", credentials=[{"state": "revoked", "last_error": "HubRefused: long ago."}])
    assert Mark.TROUBLE not in [each.mark for each in steps(data)]


def test_every_error_is_explained() -> None:
    for name in all_errors():
        assert explained(f"{name}: Something happened.")
    assert explained("HubRefused: The hub said no.") == (f"The hub said no. For the administrator: {HubRefused.remedy}")
    assert "made up" in explained("made up")
