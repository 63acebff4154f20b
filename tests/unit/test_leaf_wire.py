"""EST's wire forms: what comes in is read or cleanly refused, what goes out is what three clients can read."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd import errors
from gatewayd.core.enrollment import DEVICE_ID, new_code
from gatewayd.errors import CodeRefused, CsrInvalid, GatewayError
from gatewayd.leaf import wire
from gatewayd.leaf.wire import Refused, Resource
from gatewayd.pki import csr

LABELS = ("plant",)
DEVICE_IDS = st.from_regex(DEVICE_ID, fullmatch=True)


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


class TestRoute:
    @pytest.mark.parametrize("resource", list(Resource))
    @pytest.mark.parametrize("prefix", ["/.well-known/est/", "/.well-known/est/plant/"])
    def test_each_resource_with_and_without_label(self, prefix: str, resource: Resource) -> None:
        assert wire.route(resource.method, prefix + resource, LABELS) is resource

    @given(st.sampled_from(["GET", "POST", "PUT", "x"]), st.text() | st.text().map("/.well-known/est/".__add__))
    def test_any_other_path_is_refused(self, method: str, path: str) -> None:
        try:
            outcome: Resource | wire.Answer = wire.route(method, path, LABELS)
        except Refused as refused:
            outcome = refused.answer
        if isinstance(outcome, Resource):
            assert path.endswith(outcome)
        else:
            assert outcome.status in (404, 405, 501)
            assert_one_sentence(outcome)


class TestCsr:
    @given(st.binary(max_size=300))
    def test_base64_with_and_without_line_breaks_is_the_same(self, der: bytes) -> None:
        forms = (base64.b64encode(der), base64.encodebytes(der), base64.encodebytes(der).replace(b"\n", b" \r\n"))
        if der:
            assert {wire.decode_csr(form) for form in forms} == {der}

    @given(st.binary() | st.text(alphabet="MIIABC+/= \n").map(str.encode) | st.binary().map(base64.b64encode))
    def test_any_body_is_a_csr_or_a_clean_refusal(self, body: bytes) -> None:
        try:
            csr.read(wire.decode_csr(body))
        except CsrInvalid as error:
            answer = wire.refusal(error)
            assert answer.status == 400
            assert_one_sentence(answer)

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (b"", "empty"),
            (b" \r\n", "empty"),
            (b"\x30\x82\x01\x00", "DER"),
            (b"-----BEGIN CERTIFICATE REQUEST-----", "PEM"),
            (b"MII", "not base64"),
            (b"MIIB=MIIB", "not base64"),
        ],
    )
    def test_the_refusal_says_what_was_sent(self, body: bytes, says: str) -> None:
        with pytest.raises(CsrInvalid, match=says):
            wire.decode_csr(body)


class TestCredentials:
    @given(DEVICE_IDS)
    def test_a_device_id_with_colons_and_all(self, device_id: str) -> None:
        code = new_code()
        assert wire.credentials(basic(f"{device_id}:{code}".encode())) == (device_id, code)

    @pytest.mark.parametrize("header", [None, "", "Bearer x", "Digest username=x"])
    def test_nothing_or_another_scheme_is_none(self, header: str | None) -> None:
        assert wire.credentials(header) is None

    @pytest.mark.parametrize("scheme", ["basic", "BASIC"])
    def test_the_scheme_s_case_does_not_matter(self, scheme: str) -> None:
        assert wire.credentials(f"{scheme}  {base64.b64encode(b'a:b').decode()}") == ("a", "b")

    @given(st.text().map("Basic ".__add__) | st.binary().map(basic))
    def test_any_other_header_is_refused(self, header: str) -> None:
        found = None
        with contextlib.suppress(CodeRefused):
            found = wire.credentials(header)
            assert found is not None
        assert found is None or "\0" not in found[0]


class TestHeaders:
    @pytest.mark.parametrize("content_type", ["application/pkcs10", "Application/PKCS10 ; charset=us-ascii"])
    def test_a_pkcs10_body_of_bearable_size(self, content_type: str) -> None:
        wire.check_headers(content_type, None, wire.MAX_BODY)
        wire.check_headers(content_type, "identity", None)

    @pytest.mark.parametrize(
        ("content_type", "encoding", "length", "status"),
        [
            (None, None, 5, 415),
            ("application/pkcs7-mime", None, 5, 415),
            ("application/pkcs10", "gzip", 5, 415),
            ("application/pkcs10", None, wire.MAX_BODY + 1, 413),
        ],
    )
    def test_any_other_is_refused(self, content_type: str, encoding: str | None, length: int, status: int) -> None:
        with pytest.raises(Refused) as caught:
            wire.check_headers(content_type, encoding, length)
        assert caught.value.answer.status == status


class TestAnswers:
    def test_one_line_for_most_and_lines_for_libest(self) -> None:
        message = bytes(range(200))
        one, lines = wire.certificates(message, "curl/8"), wire.certificates(message, "libest 3.2.0p")
        assert one.body == base64.b64encode(message) + b"\n"
        assert lines.body == base64.encodebytes(message)
        assert one.content_type == lines.content_type == "application/pkcs7-mime; smime-type=certs-only"

    @pytest.mark.parametrize(
        ("cls", "status"),
        [
            ("CsrInvalid", 400),
            ("CodeRefused", 401),
            ("EnrollmentDenied", 403),
            ("DeviceRevoked", 403),
            ("DeviceUnknown", 403),
            ("TooManyRequests", 429),
            ("NotBootstrapped", 503),
            ("StoreBroken", 503),
            ("TokenFault", 503),
            ("PinRefused", 503),
            ("IssuerUnreachable", 503),
            ("IssuerRejected", 503),
            ("Internal", 500),
        ],
    )
    def test_the_status_of_an_error(self, cls: str, status: int) -> None:
        assert wire.refusal(errors.all_errors()[cls]("What happened.")).status == status

    @pytest.mark.parametrize("cls", errors.all_errors().values(), ids=lambda cls: cls.name())
    def test_every_error_is_one_sentence_and_says_when_to_come_back(self, cls: type[GatewayError]) -> None:
        answer = wire.refusal(cls("What\r\nhappened.", retry_after=0.2))
        assert_one_sentence(answer)
        headers = dict(answer.headers)
        assert (headers.get("Retry-After") == "1") is (answer.status in (429, 503))
        assert ("WWW-Authenticate" in headers) is (answer.status == 401)

    @given(st.floats(min_value=0, max_value=1e6))
    def test_202_never_asks_to_come_back_too_early(self, seconds: float) -> None:
        answer = wire.pending(seconds)
        assert answer.status == 202
        assert int(dict(answer.headers)["Retry-After"]) >= max(1.0, seconds)


def assert_one_sentence(answer: wire.Answer) -> None:
    assert answer.content_type == "text/plain; charset=utf-8"
    text = answer.body.decode()
    assert text.count("\n") == 1
    assert text.endswith(".\n")
    assert text.isprintable() or text[:-1].isprintable()
