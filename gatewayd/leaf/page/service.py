"""The technician's page over HTTP: who asks, and which screen answers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from aiohttp import hdrs, web

from ...config import PageSettings
from ...core.enrollment import DEVICE_ID
from ...core.page import PageSession
from ...errors import GatewayError, InvalidArgument, LinkRefused, TooManyRequests
from ..http import HttpServer
from ..limits import FailureLimit, network
from ..listener import Listener
from ..tls import ServerTls
from . import screens
from .base import Data, Technician
from .markup import Html
from .screens import Frame

COOKIE: Final = "__Host-page"
"""The prefix has browsers take it from this host alone, over TLS, for every path (RFC 6265bis, 4.1.3.2)."""
MAX_BODY: Final = 4096
BODY_SECONDS: Final = 10.0
MAX_ANSWERING: Final = 64
_MOST_CODES: Final = 256
_LINKS, _PERIOD = 10, 600.0
"""Wrong links from one address, in seconds: a secret has 128 random bits, so this is against load and noise."""

log = logging.getLogger(__name__)


class _Answer(Exception):
    """An answer that ends the request where it stands."""

    def __init__(self, response: web.Response) -> None:
        self.response = response


class PageService:
    """On the event loop on which it is started; once."""

    def __init__(
        self,
        technician: Technician,
        settings: PageSettings,
        tls: ServerTls,
        gateway_id: str,
        ask: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ask`` carries a call of ``technician`` out, on the loop where that lives."""
        self._technician = technician
        self._settings = settings
        self._tls = tls
        self._gateway_id = gateway_id
        self._ask = ask
        self._links = FailureLimit(_LINKS, _PERIOD, clock)
        self._answering = 0
        self._codes: dict[tuple[int, str], Data] = {}
        """By session and device: codes are shown to who made them, and are kept in memory alone."""

    async def start(self) -> int:
        self._http = HttpServer(self._handle)
        self._listener = Listener("page", self._http, self._tls, self._settings.address, self._settings.port)
        return self._listener.port

    async def stop(self, drain: float) -> None:
        await self._listener.close()
        self._http.pre_shutdown()
        await self._http.shutdown(drain)
        await self._listener.drained()

    # --- every request ---------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        frame = Frame(self._gateway_id, secrets.token_urlsafe(16))
        self._answering += 1
        try:
            if self._answering > MAX_ANSWERING:
                raise TooManyRequests("Too many people are on this page at this moment.")
            response = await self._answer(request, frame)
        except _Answer as answer:
            response = answer.response
        except GatewayError as error:
            log.info("%s %s refused: %s: %s", request.remote, _logged(request), error.name(), error.message)
            response = _html(_status(error), screens.message(frame, "That did not work", error.message, _remedy(error)))
        except ConnectionError:
            raise  # there is nobody to answer
        except Exception:
            log.exception("A request for %s failed", _logged(request))
            text = "Something went wrong in the gateway. Nothing was changed by this page; its log says more."
            response = _html(500, screens.message(frame, "That did not work", text))
        finally:
            self._answering -= 1
        for name, value in _headers(frame.nonce):
            response.headers[name] = value
        return response

    async def _answer(self, request: web.BaseRequest, frame: Frame) -> web.Response:
        path, method = request.rel_url.path, request.method
        if method not in ("GET", "POST"):
            raise _Answer(
                _html(405, screens.message(frame, "Not here", "That cannot be done here."), Allow="GET, POST")
            )
        form: Mapping[str, str] = {}
        if method == "POST":
            _check_origin(request, frame)
            form = await _form(request, frame)
        match method, path:
            case "GET", _ if path.startswith("/open/"):
                return _html(200, screens.welcome(frame, path.removeprefix("/open/")))
            case "POST", "/open":
                return await self._enter(request, form.get("link", ""))
        cookie = request.cookies.get(COOKIE, "")
        session = await self._ask(self._technician.session(cookie)) if cookie else None
        if session is None:
            text = "This page opens with a link, which works once and for a limited time."
            remedy = "Ask the administrator for a new link. It is made with 'gatewayctl page open'."
            raise _Answer(_html(401, screens.message(frame, "The page is closed", text, remedy, menu=False)))
        frame = Frame(frame.gateway_id, frame.nonce, _form_token(cookie))
        if method == "POST" and not hmac.compare_digest(form.get("token", "").encode(), frame.form_token.encode()):
            text = "This form does not belong to your session. Nothing was changed."
            raise _Answer(_html(403, screens.message(frame, "Please try again", text)))
        return await self._screen(method, path, form or request.rel_url.query, session, frame)

    async def _screen(
        self, method: str, path: str, given: Mapping[str, str], session: PageSession, frame: Frame
    ) -> web.Response:
        match method, path:
            case "GET", "/":
                found = await self._ask(self._technician.devices())
                return _html(200, screens.devices(frame, found, given.get("search", "")[:64]))
            case "GET", "/device":
                shown = await self._shown(given)
                code = self._codes.get((session.number, shown["device"]["device_id"]))
                return _html(200, screens.device(frame, shown, code))
            case "GET", "/replace":
                return _html(200, screens.ask_replace(frame, (await self._shown(given))["device"]["device_id"]))
            case "GET", "/cancel":
                return _html(200, screens.ask_cancel(frame, (await self._shown(given))["device"]["device_id"]))
            case "POST", "/replace":
                return await self._replace(_device_id(given), given.get("reason", ""), session)
            case "POST", "/cancel":
                device_id = _device_id(given)
                await self._ask(self._technician.cancel(session, device_id))
                self._codes.pop((session.number, device_id), None)
                return _see(f"/device?id={quote(device_id, safe='')}")
            case _:
                return _html(404, screens.message(frame, "Not here", "There is no such page."))

    # --- what is done ----------------------------------------------------------------------------

    async def _enter(self, request: web.BaseRequest, link: str) -> web.Response:
        remote = request.remote or ""
        if wait := self._links.wait(network(remote)):
            raise TooManyRequests("Too many wrong links were tried from this address.", retry_after=wait)
        try:
            cookie, _ = await self._ask(self._technician.enter(link, remote))
        except LinkRefused:
            self._links.failed(network(remote))
            raise
        response = _see("/")
        # Without an age: it is gone when the browser is closed, and its session ends here anyway.
        response.set_cookie(COOKIE, cookie, path="/", secure=True, httponly=True, samesite="Strict")
        return response

    async def _replace(self, device_id: str, reason: str, session: PageSession) -> web.Response:
        if reason not in ("", *screens.REASONS):
            raise InvalidArgument("That reason is not one of those on the page.")
        await self._shown({"id": device_id})
        code = await self._ask(self._technician.replace(session, device_id, reason))
        self._codes.pop((session.number, device_id), None)
        self._codes[session.number, device_id] = code
        if len(self._codes) > _MOST_CODES:
            del self._codes[next(iter(self._codes))]
        return _see(f"/device?id={quote(device_id, safe='')}")

    async def _shown(self, given: Mapping[str, str]) -> Data:
        shown: Data = await self._ask(self._technician.device(_device_id(given)))
        return shown


def _logged(request: web.BaseRequest) -> str:
    """The path as far as it is no secret: what comes after ``/open/`` is a link that may not have been used."""
    return "/" + request.rel_url.raw_path.removeprefix("/").partition("/")[0][:16]


def _device_id(given: Mapping[str, str]) -> str:
    device_id = given.get("id", "")
    if not DEVICE_ID.fullmatch(device_id):
        raise InvalidArgument("That is not the name of a device.")
    return device_id


def _form_token(cookie: str) -> str:
    """Only who may read our pages in this session knows it."""
    return hashlib.sha256(f"form\0{cookie}".encode()).hexdigest()


def _check_origin(request: web.BaseRequest, frame: Frame) -> None:
    """Browsers say where a form comes from. (What does not say it has to know the form's token all the same.)"""
    origin, site = request.headers.get(hdrs.ORIGIN), request.headers.get("Sec-Fetch-Site", "same-origin")
    if origin not in (None, f"https://{request.host}") or site not in ("same-origin", "none"):
        text = "This form does not come from this page. Nothing was changed."
        raise _Answer(_html(403, screens.message(frame, "Please try again", text)))


async def _form(request: web.BaseRequest, frame: Frame) -> dict[str, str]:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    raise _Answer(_html(413, screens.message(frame, "Please try again", "That was too much text.")))
    except (TimeoutError, web.RequestPayloadError):
        raise _Answer(_html(400, screens.message(frame, "Please try again", "The form did not come in."))) from None
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=16))
    except ValueError:
        raise _Answer(_html(400, screens.message(frame, "Please try again", "The form cannot be read."))) from None


def _html(status: int, content: Html, **headers: str) -> web.Response:
    return web.Response(status=status, text=content, content_type="text/html", charset="utf-8", headers=headers)


def _see(path: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: path})


def _status(error: GatewayError) -> int:
    if isinstance(error, TooManyRequests):
        return 429
    return {64: 400, 66: 404, 75: 503, 77: 403}.get(error.exit_code, 500)


def _remedy(error: GatewayError) -> str:
    if isinstance(error, TooManyRequests):
        return "Wait a few minutes, then try again."
    return f"For the administrator: {error.remedy}"


def _headers(nonce: str) -> list[tuple[str, str]]:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return [
        ("Content-Security-Policy", policy),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "same-origin"),  # not no-referrer: with that, forms would come without their origin
        ("X-Content-Type-Options", "nosniff"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Server", "gatewayd"),
    ]
