"""``gatewayctl status``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from .. import words
from ..base import Data
from .device import certificate, revocation, trouble
from .drawing import coloured, joined, plain, two_columns

_WAITING = 10
_OPEN, _OPEN_SHORT, _CLOSED = 3, 7, 3
"""How many revocations are shown with every milestone, how many more that are open in a line each, and how many of
those that are complete."""


def status(data: Data) -> RenderableType:
    """One screen, whatever happens: what there is more of is counted."""
    now = words.moment(data["clock"]["now"]) if "now" in data["clock"] else datetime.now(UTC)
    grid = two_columns()
    for label, value in _facts(data, now):
        grid.add_row(Text(label, style="bold"), value)
    parts: list[RenderableType] = [grid]
    if data["waiting"]:
        parts += [Text("\nWaiting for a person", style="bold red"), *map(_waiting, data["waiting"][:_WAITING])]
        parts += _more(len(data["waiting"]) - _WAITING)
    if data["revocations"]:
        parts += [Text("\nRevocations", style="bold"), *_revocations(data["revocations"])]
    if _is_troubled(data):
        parts.append(Text("\n'gatewayctl doctor' looks at all of it now, and says what to do.", style="bold"))
    return Group(*parts)


def _is_troubled(data: Data) -> bool:
    """Whether something failed that is not said to wait for a person."""
    peers = (data["issuer"], data["hub"]["registry"], *data["revocation_sources"])
    return (
        any("last_error" in each for each in peers)
        or data["token"]["state"] != "ready"
        or data["hub"]["state"] in ("refused", "unreachable")
    )


def _revocations(items: list[Data]) -> Iterator[RenderableType]:
    open_, closed = ([each for each in items if each.get("open", True) is state] for state in (True, False))
    yield from (revocation(each) for each in open_[:_OPEN])
    yield from (_in_a_line(each) for each in (*open_[_OPEN : _OPEN + _OPEN_SHORT], *closed[:_CLOSED]))
    yield from _more(len(open_) - _OPEN - _OPEN_SHORT)


def _in_a_line(item: Data) -> RenderableType:
    missing = next((each["name"] for each in item["milestones"] if "done_at" not in each), None)
    stands = Text(f"not yet {words.step(missing)}", style="yellow") if missing else Text("complete", style="green")
    known = f"known {words.local(item['known_at'])}"
    line = joined(plain(item["device_id"], "bold"), plain(f"serial {item['serial']}"), plain(known), stands)
    return Padding(line, (0, 0, 0, 2), expand=False)


def _more(count: int) -> list[RenderableType]:
    return [Text(f"  and {count} more: 'gatewayctl status --json'", style="dim")] if count > 0 else []


def clock(data: Data) -> Text:
    by = "synchronised" if data.get("synchronised") else "not synchronised"
    if data["sane"]:
        return joined(coloured("sane"), plain(by))
    says = f"it says {words.local(data['system'])}" if "system" in data else ""
    return joined(plain("not trusted: decisions wait for it", "red"), plain(says), plain(by))


def _facts(data: Data, now: datetime) -> Iterator[tuple[str, Text]]:
    gateway, token, issuer, hub, est = data["gateway"], data["token"], data["issuer"], data["hub"], data["est"]
    yield (
        "gateway",
        joined(plain(gateway["device_id"], "bold"), coloured(gateway["state"]), plain(f"gatewayd {data['version']}")),
    )
    yield "certificate", certificate(gateway, now)
    if "last_error" in gateway:
        yield "", trouble(gateway)
    yield "token", _token(token)
    if token.get("detail"):
        yield "", plain(token["detail"], "red")
    if "registrar_token" in data:
        yield "registrar's", _token(data["registrar_token"])
    yield "clock", clock(data["clock"])
    yield "CA", joined(plain(issuer["name"]), plain(issuer.get("url", "")), _success(issuer, now))
    if "last_error" in issuer:
        yield "", plain(issuer["last_error"], "yellow")
    if "left_alone_until" in issuer:
        until = words.local(issuer["left_alone_until"])
        yield "", plain(f"left alone until {until} after {issuer['failures']} failures in a row", "yellow")
    since = f"since {words.local(hub['since'])}" if "since" in hub else ""
    yield "hub", joined(coloured(hub["state"]), plain(hub["host"]), plain(since))
    if hub.get("detail"):
        yield "", plain(hub["detail"], "yellow")
    yield "hub registry", _success(hub["registry"], now)
    if "last_error" in hub["registry"]:
        yield "", plain(hub["registry"]["last_error"], "yellow")
    yield (
        "EST server",
        joined(coloured("listening" if est["listening"] else "not listening"), plain(est.get("url", ""))),
    )
    for source in data["revocation_sources"]:
        yield "revocations", _source(source, now)
        if "last_error" in source:
            yield "", plain(source["last_error"], "yellow")
        if "on_hold" in source:
            yield "", plain(f"on hold at the CA: {', '.join(source['on_hold'])}", "red")
    for hook in data.get("hooks", []):
        yield "hook", joined(plain(hook["name"]), coloured(hook["state"]), _success(hook, now))
        if hook["state"] == "failed":
            yield "", trouble(hook)
    counts = [
        joined(Text(str(count)), coloured(state), separator=" ") for state, count in data["devices"].items() if count
    ]
    yield "leaf devices", joined(*counts) if counts else Text("none yet: 'gatewayctl device add'")


def _token(item: Data) -> Text:
    return joined(coloured(item["state"]), plain(item.get("label", "")), plain(item.get("model", "")))


def _source(item: Data, now: datetime) -> Text:
    parts = [plain(item["kind"]), coloured(item["state"]), plain(item["name"]), _success(item, now)]
    if "next_update" in item:
        parts.append(plain(f"next one {words.distance(item['next_update'], now)}"))
    return joined(*parts)


def _success(item: Data, now: datetime) -> Text:
    if "last_success_at" not in item:
        return Text("no exchange yet")
    return plain(f"last success {words.distance(item['last_success_at'], now)}")


def _waiting(item: Data) -> RenderableType:
    where = f"{item['device_id']}: " if "device_id" in item else ""
    return Padding(
        Group(plain(f"{where}{item['what']}"), plain(f"→ {item['remedy']}", "bold")), (0, 0, 0, 2), expand=False
    )
