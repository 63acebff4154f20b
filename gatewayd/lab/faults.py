"""Faults to inject into a stand-in's calls, as a cloud has them: ``POST /lab/faults``.

A rule is ``{"call": name, "mode": mode, "times": n, "chance": p}``; ``times`` is 1 when it is left out, and null means
for good; ``chance``, from 0 to 1, is how likely it strikes a call, 1 when it is left out.
``GET /lab/faults`` lists the rules that wait, ``DELETE /lab/faults`` drops them. Modes:

- ``NNN`` or ``NNN-before``: HTTP status NNN with ``message`` as body, nothing done; ``NNN-after-issuing``: the same
  after the work was done. ``retry_after`` (seconds) adds that header.
- ``timeout``, ``reset``: no answer, or the connection torn down, before the work; ``…-after-issuing``: after it.
- ``delay``: the answer comes ``seconds`` late, with the work already done; ``delay-before``: the work is late as well.
- ``wrapped-failure``: 200 with ``{"Success": false, "Message": message}``; ``error-text``: 200 with a text that begins
  with ``Error``. In both nothing is done.
- ``double-encoded``: the true answer once more encoded as a JSON string.
- ``no-root``: the true answer with ``RootCertificate`` empty.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

_MODE = re.compile(
    r"(?P<kind>[2-5]\d\d|timeout|reset|delay|wrapped-failure|error-text|double-encoded|no-root)"
    r"(-(?P<when>before|after-issuing))?"
)
_FOREVER = 3600.0


@dataclass(slots=True)
class Rule:
    """One fault that waits for its call."""

    call: str
    mode: str
    times: int | None = 1
    message: str = "injected by the lab"
    seconds: float = 5.0
    retry_after: int | None = None
    chance: float = 1.0

    def parts(self) -> tuple[str, bool]:
        """The kind of fault, and whether the work is done before it strikes."""
        match = _MODE.fullmatch(self.mode)
        assert match is not None
        kind, when = match["kind"], match["when"]
        if when is None:
            return kind, kind in ("delay", "double-encoded", "no-root")
        return kind, when == "after-issuing"

    @classmethod
    def parse(cls, document: Any, calls: frozenset[str]) -> Rule:
        """Raises ValueError or TypeError for what is no rule for one of these calls."""
        rule = cls(**document)
        if rule.call not in calls:
            raise ValueError(f"no call {rule.call!r}; there are {', '.join(sorted(calls))}")
        if not _MODE.fullmatch(rule.mode):
            raise ValueError(f"no mode {rule.mode!r}")
        return rule


class Faults:
    """The rules of one stand-in; a call is named as its route is."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def routes(self, calls: frozenset[str]) -> list[web.RouteDef]:
        """``/lab/faults``; ``calls`` names the calls that may be given."""

        async def add(request: web.Request) -> web.Response:
            try:
                self._rules.append(Rule.parse(await request.json(), calls))
            except (TypeError, ValueError) as error:
                return web.Response(status=400, text=str(error))
            return web.json_response({"waiting": len(self._rules)})

        async def show(_: web.Request) -> web.Response:
            return web.json_response([asdict(rule) for rule in self._rules])

        async def clear(_: web.Request) -> web.Response:
            self._rules.clear()
            return web.json_response({"waiting": 0})

        return [
            web.post("/lab/faults", add),
            web.get("/lab/faults", show),
            web.delete("/lab/faults", clear),
        ]

    def middleware(self) -> Middleware:
        @web.middleware
        async def inject(request: web.Request, handler: Handler) -> web.StreamResponse:
            rule = self._take(request.match_info.route.name)
            if rule is None:
                return await handler(request)
            kind, after = rule.parts()
            answer = await handler(request) if after else None
            if kind == "delay":
                await asyncio.sleep(rule.seconds)
                return answer or await handler(request)
            return await _strike(rule, kind, answer, request)

        return inject

    def _take(self, call: str | None) -> Rule | None:
        for rule in self._rules:
            if rule.call == call and random.random() < rule.chance:
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times <= 0:
                        self._rules.remove(rule)
                return rule
        return None


async def _strike(rule: Rule, kind: str, answer: web.StreamResponse | None, request: web.Request) -> web.StreamResponse:
    match kind:
        case "timeout":
            await asyncio.sleep(_FOREVER)
            return web.Response(status=504)
        case "reset":
            _reset(request)
            return web.Response(status=500)
        case "wrapped-failure":
            return web.json_response({"Success": False, "Message": rule.message})
        case "error-text":
            return web.Response(text=f"Error: {rule.message}")
        case "double-encoded":
            return web.json_response(_text(answer))
        case "no-root":
            return web.json_response({**json.loads(_text(answer)), "RootCertificate": ""})
        case status:
            headers = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
            return web.Response(status=int(status), text=rule.message, headers=headers)


def _text(answer: web.StreamResponse | None) -> str:
    assert isinstance(answer, web.Response)
    assert answer.text is not None
    return answer.text


def _reset(request: web.Request) -> None:
    """Tear the connection down with a TCP reset, as a broken middlebox does."""
    transport = request.transport
    assert transport is not None
    # SO_LINGER of zero seconds turns the close into RST.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
