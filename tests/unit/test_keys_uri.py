"""PKCS#11 URIs: what RFC 7512 allows, and what it must not carry."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import ConfigInvalid
from gatewayd.keys.uri import Pkcs11Uri, parse

texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
uris = st.builds(
    Pkcs11Uri,
    token=texts,
    manufacturer=texts,
    serial=texts,
    model=texts,
    library_manufacturer=texts,
    library_description=texts,
    library_version=st.sampled_from((None, "2", "2.40")),
    slot_id=st.none() | st.integers(0, 2**64 - 1),
    slot_description=texts,
    slot_manufacturer=texts,
    object=texts,
    type=st.sampled_from((None, "private", "public", "cert", "secret-key", "data")),
    id=st.none() | st.binary(max_size=20),
    module_name=texts,
    module_path=texts,
)


@given(uris)
def test_a_formatted_uri_parses_to_the_same_values(uri: Pkcs11Uri) -> None:
    assert parse(str(uri)) == uri


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, "pkcs11:" + text):
        with contextlib.suppress(ConfigInvalid):
            assert parse(str(parse(candidate))) == parse(candidate)


def test_the_examples_of_the_rfc() -> None:
    assert parse("pkcs11:") == Pkcs11Uri()
    assert parse("pkcs11:object=my-pubkey;type=public") == Pkcs11Uri(object="my-pubkey", type="public")
    uri = parse(
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;"
        "object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial="
    )
    assert uri.token == "The Software PKCS#11 Softtoken"
    assert uri.manufacturer == "Snake Oil, Inc."
    assert uri.id == bytes.fromhex("69953E5CF4BDEC91")
    assert uri.serial == ""
    assert parse("pkcs11:slot-id=327?module-path=/usr/lib/p11.so").module_path == "/usr/lib/p11.so"


def test_an_unknown_path_attribute_is_refused_and_an_unknown_query_attribute_ignored() -> None:
    with pytest.raises(ConfigInvalid, match="'tokn'"):
        parse("pkcs11:tokn=gatewayd")
    assert parse("pkcs11:token=a?x-vendor=1&module-path=/m") == Pkcs11Uri(token="a", module_path="/m")


@pytest.mark.parametrize(
    "text",
    [
        "token=a",
        "http://token=a",
        "pkcs11:token",
        "pkcs11:token=a;",
        "pkcs11:token=a;;serial=1",
        "pkcs11:token=a;token=b",
        "pkcs11:token=a b",
        "pkcs11:token=a/b",
        "pkcs11:token=%4",
        "pkcs11:token=%ff",
        "pkcs11:slot-id=one",
        "pkcs11:type=private-key",
        "pkcs11:library-version=2.x",
        "pkcs11:token=a?module-path=/a&module-path=/b",
    ],
)
def test_what_the_grammar_does_not_allow_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:token=a?pin-value=4711secret",
        "pkcs11:token=a?pin-source=file:/4711secret",
        "pkcs11:token=a;pin-value=4711secret",
        "pkcs11:token=a pin-value=4711secret",
        "pkcs11:token=a?pin-value=4711secret%",
        "pkcs11:4711secret",
        "4711secret",
    ],
)
def test_a_pin_is_refused_and_never_quoted(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert "4711secret" not in caught.value.message
