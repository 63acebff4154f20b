"""control.arguments and control.variants: what comes in, what goes out."""

from typing import Any

import pytest
from gi.repository import GLib
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.control import arguments, variants
from gatewayd.control.arguments import Options
from gatewayd.errors import InvalidArgument

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = st.booleans() | texts | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
plain = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=10)


@given(plain)
def test_plain_data_comes_back_from_the_bus_as_it_was(data: Any) -> None:
    back = variants.from_data(data).unpack()
    assert back == data
    assert type(back) is type(data)


def test_what_is_not_known_is_left_out() -> None:
    assert variants.from_mapping({"a": None, "b": {"c": None}}).unpack() == {"b": {}}
    assert variants.from_mappings([{"a": None}, {}]).get_type_string() == "aa{sv}"


@pytest.mark.parametrize("hostile", ["a\0b", "\ud800", "ok"])
def test_any_text_of_a_peer_can_be_sent(hostile: str) -> None:
    assert GLib.Variant.new_string(variants.text(hostile)).get_string()


def test_what_is_no_plain_data_is_a_defect() -> None:
    with pytest.raises(TypeError):
        variants.from_data({"key": b"bytes"})


@pytest.mark.parametrize("wrong", ["", "x" * 65, "a b", "é", "../etc", "a\n"])
def test_device_ids_are_the_hubs(wrong: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        arguments.device_id(wrong)
    assert len(refused.value.message) < 250
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"sans": "dns:x"}, "list of text"),
        ({"sans": [1]}, "list of text"),
        ({"sans": ["x"]}, "kind:value"),
        ({"sans": ["dns:x"] * 51}, "more than 50"),
        ({"sans": ["dns:" + "x" * 1021]}, "1024"),
        ({"code_lifetime": "2h"}, "whole number"),
        ({"code_lifetime": True}, "whole number"),
        ({"code_lifetime": 59}, "from 60"),
        ({"code_lifetime": 10**12}, "from 60"),
        ({"code_lifetim": 60}, "'code_lifetim' is not an option"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], word: str) -> None:
    def take() -> None:
        given = Options(options)
        given.sans()
        given.code_lifetime()
        given.end()

    with pytest.raises(InvalidArgument, match=word):
        take()


@pytest.mark.parametrize("wrong", ["", " \n", "a b", "a\nb", "é", "x" * 16385])
def test_a_token_is_one_line_and_never_in_the_error(wrong: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        arguments.token(wrong)
    assert len(wrong) < 3 or wrong not in refused.value.message
    assert arguments.token(" eyJ.x.y\n") == "eyJ.x.y"


def test_a_private_key_is_not_taken_for_a_certificate() -> None:
    with pytest.raises(InvalidArgument, match="private key"):
        arguments.certificate("-----BEGIN EC PRIVATE KEY-----\n")


def test_reasons_are_those_of_rfc_5280() -> None:
    assert arguments.reason("keyCompromise") == "keyCompromise"
    with pytest.raises(InvalidArgument, match="keyCompromise"):
        arguments.reason("KEY_COMPROMISE")
