"""The technician's page on real TLS, a fake technician's port behind it: who is let in, and what a form may do."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from gatewayd.config import PageSettings
from gatewayd.core import page
from gatewayd.core.page import PageSession
from gatewayd.errors import ClockWrong, DeviceUnknown, LinkRefused
from gatewayd.leaf.page.server import PageServer
from gatewayd.leaf.tls import ServerTls, page_context
from tests.integration.leaf.conftest import Est, run, unused_address
from tests.support.fake_operations import NOW, device
from tests.support.page_client import Browser, Seen

NASTY = "'(*)'"
STEPS = ("old-certificate-out", "id-disabled", "code-out", "new-certificate-in", "pinned", "pin-lifted")


class FakeTechnician:
    """Its links are ``good-1``, ``good-2`` …; ``calls`` is what was changed, and by whom."""

    def __init__(self) -> None:
        self.items = {name: device(name) for name in ("leaf-1", NASTY)}
        self.calls: list[tuple[str, ...]] = []
        self.last_error: str | None = None
        self.defect: Exception | None = None
        self.expires_at = NOW
        self._sessions: dict[str, PageSession] = {}
        self._used: set[str] = set()

    async def enter(self, link: str, remote: str) -> tuple[str, PageSession]:
        if not re.fullmatch(r"good-\d", link) or link in self._used:
            raise LinkRefused("This link is not valid, or has been used.")
        self._used.add(link)
        cookie = page.new_secret()
        self._sessions[cookie] = PageSession(int(link[5:]), page.digest(cookie), True, None)  # type: ignore[arg-type]
        return cookie, self._sessions[cookie]

    async def session(self, cookie: str) -> PageSession | None:
        return self._sessions.get(cookie)

    async def devices(self) -> list[dict[str, Any]]:
        if self.defect:
            raise self.defect
        return list(self.items.values())

    async def device(self, device_id: str) -> dict[str, Any]:
        if device_id not in self.items:
            raise DeviceUnknown(f"There is no device {device_id!r}.")
        shown: dict[str, Any] = {"device": self.items[device_id], "credentials": [], "revocations": []}
        if self.items[device_id]["state"] == "replacing":
            steps = [{"name": name, **({"done_at": NOW} if name == "code-out" else {})} for name in STEPS]
            failure = {"last_error": self.last_error} if self.last_error else {}
            shown |= {
                "code_expires_at": self.expires_at,
                "replacement": {"state": "closing", "steps": steps, **failure},
            }
        return shown

    async def replace(self, session: PageSession, device_id: str, reason: str) -> dict[str, Any]:
        if self.defect:
            raise self.defect
        self.calls.append(("replace", session.who, device_id, reason))
        self.items[device_id]["state"] = "replacing"
        url = "https://gw-1:8443"
        enroll_url = f"https://{device_id}:AAAA-BBBB@gw-1:8443"
        return {"code": "AAAA-BBBB", "expires_at": self.expires_at, "est_url": url, "enroll_url": enroll_url}

    async def cancel(self, session: PageSession, device_id: str) -> None:
        self.calls.append(("cancel", session.who, device_id))
        self.items[device_id]["state"] = "revoked"


@pytest.fixture
def technician() -> FakeTechnician:
    return FakeTechnician()


@pytest.fixture
async def browser(est: Est, technician: FakeTechnician) -> AsyncIterator[Browser]:
    """Not let in yet."""
    address = est.address = unused_address()
    est.make_context()  # writes a certificate for the address

    def context() -> ssl.SSLContext:
        made = page_context()
        made.load_cert_chain(est.directory / "server.pem")
        return made

    server = PageServer(technician, PageSettings(address=address, port=0), ServerTls(context), "gw-1")
    await server.start()
    yield Browser(server.url, est.trust)
    await server.stop(drain=1.0)


async def get(browser: Browser, path: str) -> Seen:
    return await asyncio.to_thread(browser.get, path)


async def post(browser: Browser, path: str, body: str | bytes, **headers: str) -> Seen:
    return await asyncio.to_thread(browser.request, "POST", path, body, **headers)


async def enter(browser: Browser, link: str = "good-1") -> Seen:
    return await asyncio.to_thread(browser.open, f"/open/{link}")


async def test_without_a_session_there_is_nothing_but_how_to_get_one(
    browser: Browser, technician: FakeTechnician
) -> None:
    for path in ("/", "/device?id=leaf-1", "/replace?id=leaf-1", "/nothing"):
        seen = await get(browser, path)
        assert seen.status == 401
        assert "gatewayctl page open" in seen.text
        assert "leaf-1" not in seen.body
    assert (await post(browser, "/replace", "id=leaf-1&reason=superseded&token=")).status == 401
    browser.cookie = "__Host-page=made-up"
    assert (await get(browser, "/")).status == 401
    assert technician.calls == []


async def test_looking_at_a_link_does_not_use_it_up_and_using_it_does(browser: Browser) -> None:
    for _ in range(3):
        assert (await get(browser, "/open/good-1")).status == 200
    assert "leaf-1" in (await enter(browser)).text
    browser.cookie = ""
    seen = await enter(browser)
    assert seen.status == 403
    assert "gatewayctl page open" in seen.text


async def test_the_cookie_is_for_this_host_and_tls_alone_and_out_of_scripts_reach(browser: Browser) -> None:
    await enter(browser)
    name, *attributes = (each.strip() for each in browser.set_cookie.split(";"))
    assert name.startswith("__Host-page=")
    assert {each.lower() for each in attributes} == {"secure", "httponly", "path=/", "samesite=strict"}


async def test_every_answer_says_how_browsers_are_to_treat_it(browser: Browser, technician: FakeTechnician) -> None:
    answers = [await get(browser, "/"), await get(browser, "/open/x"), await enter(browser), await get(browser, "/no")]
    technician.defect = RuntimeError("leaf-1's secret")
    answers.append(await get(browser, "/"))
    assert [each.status for each in answers] == [401, 200, 200, 404, 500]
    assert "secret" not in answers[-1].body
    nonces = set()
    for each in answers:
        policy = each.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
        assert set(re.findall(r'<(?:style|script) nonce="([^"]+)"', each.body)) == {nonce}
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", each.body)
        nonces.add(nonce)
    assert len(nonces) == len(answers)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'&amp;$id${id}"])
async def test_what_comes_from_outside_is_text(browser: Browser, technician: FakeTechnician, text: str) -> None:
    await enter(browser)
    technician.items["leaf-1"]["state"] = "replacing"
    technician.last_error = f"HubRefused: {text}"
    for path in (f"/?search={quote(text)}", f"/open/{quote(text)}", "/device?id=leaf-1", f"/device?id={quote(text)}"):
        seen = await get(browser, path)
        assert text not in seen.body
        assert "<img" not in seen.body


async def test_ids_with_every_character_of_the_hub_find_their_device(
    browser: Browser, technician: FakeTechnician
) -> None:
    devices = await enter(browser)
    ask = await get(browser, (await get(browser, devices.links[NASTY])).links["Replace its hardware"])
    scan = await asyncio.to_thread(browser.submit, ask.forms["/replace"], reason="keyCompromise")
    assert technician.calls == [("replace", "page:1", NASTY, "keyCompromise")]
    assert scan.codes == ["https://gw-1:8443", NASTY, "AAAA-BBBB"]


async def test_the_code_is_shown_to_who_made_it_alone(browser: Browser, technician: FakeTechnician, est: Est) -> None:
    devices = await enter(browser)
    ask = await get(browser, (await get(browser, devices.links["leaf-1"])).links["Replace its hardware"])
    assert "AAAA-BBBB" in (await asyncio.to_thread(browser.submit, ask.forms["/replace"])).body
    assert "AAAA-BBBB" in (await get(browser, "/device?id=leaf-1")).body
    technician.expires_at = "2031-05-01T13:00:00Z"
    assert "AAAA-BBBB" not in (await get(browser, "/device?id=leaf-1")).body  # void: there is a later one
    technician.expires_at = NOW
    await enter(browser, "good-2")
    assert "AAAA-BBBB" not in (await get(browser, "/device?id=leaf-1")).body


async def test_a_form_of_another_site_or_session_changes_nothing(browser: Browser, technician: FakeTechnician) -> None:
    await enter(browser)
    ask = await get(browser, "/replace?id=leaf-1")
    fields = ask.forms["/replace"].fields
    good = f"token={fields['token']}&id=leaf-1&reason=superseded"
    for body, headers in (
        ("id=leaf-1&reason=superseded", {}),
        ("token=&id=leaf-1&reason=superseded", {}),
        (good.replace("token=", "token=0"), {}),
        (good, {"Origin": "https://elsewhere.example"}),
        (good, {"Origin": "null"}),
        (good, {"Sec_Fetch_Site": "cross-site"}),
    ):
        assert (await post(browser, "/replace", body, **headers)).status == 403
    await enter(browser, "good-2")
    assert (await post(browser, "/replace", good)).status == 403
    assert technician.calls == []
    assert (await get(browser, "/replace?id=leaf-1")).status == 200  # asking is not doing
    assert technician.calls == []


async def test_nonsense_is_refused_in_words(browser: Browser, technician: FakeTechnician) -> None:
    await enter(browser)
    token = (await get(browser, "/replace?id=leaf-1")).forms["/replace"].fields["token"]
    for body, status in (
        (f"token={token}&id=leaf-1&reason=cACompromise", 400),
        (f"token={token}&id=leaf-99", 404),
        (f"token={token}&id=%00<", 400),
        (f"token={token}&id=" + "x" * 5000, 413),
        ("&".join(f"a{number}=1" for number in range(100)), 400),
        (b"\xff\xfe=", 400),
    ):
        seen = await post(browser, "/replace", body)
        assert seen.status == status
        assert "Traceback" not in seen.body
    assert (await asyncio.to_thread(browser.request, "DELETE", "/")).status == 405
    technician.defect = ClockWrong("The machine's clock cannot be right: gatewayd waits for the time.")
    seen = await post(browser, "/replace", f"token={token}&id=leaf-1&reason=superseded")
    assert seen.status == 503
    assert "clock cannot be right" in seen.text
    assert ClockWrong.remedy in seen.text
    assert technician.calls == []


async def test_who_guesses_links_has_to_wait_and_who_is_in_goes_on(browser: Browser) -> None:
    await enter(browser)
    for _ in range(10):
        assert (await post(browser, "/open", "link=guess")).status == 403
    assert (await post(browser, "/open", "link=good-2")).status == 429
    assert (await get(browser, "/")).status == 200


async def test_no_client_certificate_is_asked_for(browser: Browser, est: Est) -> None:
    """A browser would bother its user for one."""
    client = await run("openssl", "s_client", "-connect", browser.address, "-CAfile", est.trust)
    assert b"Verify return code: 0 (ok)" in client.out
    assert b"No client certificate CA names sent" in client.out
    assert b"Requested Signature Algorithms" not in client.out
