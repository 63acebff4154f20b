"""docs/json.md → what a person reads. Everything that came from outside goes through ``words.clean``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import click
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import qr, words
from .base import Data

_GOOD = {
    "ready",
    "live",
    "connected",
    "active",
    "current",
    "done",
    "present",
    "listening",
    "sane",
    "accepted",
    "fresh",
    "pinned",
    "lifted",
}
_WORKING = {
    "new",
    "enrolling",
    "replacing",
    "connecting",
    "unreachable",
    "started",
    "waiting",
    "running",
    "absent",
    "pending",
    "unknown",
    "closing",
    "awaiting",
    "pinning",
    "lifting",
}
_BAD = {
    "refused",
    "revoked",
    "expired",
    "faulty",
    "pin-missing",
    "pin-refused",
    "unusable",
    "failed",
    "rejected",
    "not listening",
    "stale",
}
_MARKS = {"done": ("✓", "green"), "failed": ("✗", "red"), "waiting": ("…", "yellow"), "started": ("·", "dim")}


def console(*, stderr: bool = False) -> Console:
    """Wraps at the terminal's width; into a pipe or a file nothing is wrapped or cut."""
    made = Console(highlight=False, markup=False, emoji=False, stderr=stderr)
    if not made.is_terminal:
        made.width = 10_000
    return made


def show(renderable: RenderableType) -> None:
    """On stdout; without the blanks that fill a table's last column when it is not a terminal."""
    out = console()
    if out.is_terminal:
        out.print(renderable, crop=False)
        return
    with out.capture() as captured:
        out.print(renderable)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def status(data: Data) -> RenderableType:
    """One screen."""
    now = words.moment(data["clock"]["now"]) if "now" in data["clock"] else datetime.now(UTC)
    grid = _grid()
    for label, value in _facts(data, now):
        grid.add_row(Text(label, style="bold"), value)
    parts: list[RenderableType] = [grid]
    if data["waiting"]:
        parts += [Text("\nWaiting for a person", style="bold red"), *map(_waiting, data["waiting"])]
    if data["revocations"]:
        parts += [Text("\nRevocations", style="bold"), *(_revocation(each) for each in data["revocations"])]
    return Group(*parts)


def devices(items: list[Data]) -> RenderableType:
    """One line each: thousands, perhaps, for which a Table takes too long."""
    heads = ("DEVICE", "KIND", "STATE", "HUB", "CERTIFICATE UNTIL", "RENEWS", "SERIAL")
    rows = [[Text(head, style="bold") for head in heads]]
    for each in items:
        plain = [_text(each["device_id"]), _text(each["kind"])]
        states = [_state(each["state"]), _state(each["hub_state"])]
        rows.append([*plain, *states, _time(each, "not_after"), _time(each, "renew_at"), _text(each.get("serial", ""))])
    widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        for cell, width in zip(row[:-1], widths, strict=False):
            cell.pad_right(width - cell.cell_len + 2)
    return Text("\n", no_wrap=True, overflow="ignore").join(Text.assemble(*row) for row in rows)


def device(data: Data) -> RenderableType:
    """``gatewayctl device show``."""
    now = datetime.now(UTC)
    it = data["device"]
    grid = _grid()
    grid.add_row(Text("device", style="bold"), _join(_text(it["device_id"]), _text(it["kind"]), _state(it["state"])))
    grid.add_row(Text("in the hub", style="bold"), _state(it["hub_state"]))
    if it["sans"]:
        grid.add_row(Text("names", style="bold"), _text(", ".join(it["sans"])))
    grid.add_row(Text("certificate", style="bold"), _certificate(it, now))
    if "code_expires_at" in data:
        code = _text(f"open until {words.local(data['code_expires_at'])}")
        grid.add_row(Text("enrollment code", style="bold"), code)
    parts: list[RenderableType] = [grid]
    if "replacement" in data:
        parts += [Text("\nReplacement", style="bold"), _replacement(data["replacement"])]
    if data["credentials"]:
        parts += [Text("\nGenerations", style="bold"), _credentials(data["credentials"])]
    if data["revocations"]:
        parts += [Text("\nRevocations", style="bold"), *(_revocation(each) for each in data["revocations"])]
    if data["history"]:
        parts += [Text("\nHistory", style="bold"), _history(data["history"])]
    return Group(*parts)


def tokens(data: Data) -> RenderableType:
    """``gatewayctl token status``."""
    grid = _grid()
    for name, it in data.items():
        if name != "token":
            grid.add_row(Text(name.replace("_", " "), style="bold"))
        for label, key in (
            ("token", "label"),
            ("serial", "serial"),
            ("model", "model"),
            ("manufacturer", "manufacturer"),
            ("module", "module"),
        ):
            if it.get(key):
                grid.add_row(Text(label, style="bold"), _text(it[key]))
        since = _text(f"since {words.local(it['since'])}" if "since" in it else "")
        grid.add_row(Text("state", style="bold"), _join(_state(it["state"]), since))
        if it.get("detail"):
            grid.add_row("", _text(it["detail"], "red"))
        if "pin_tries" in it:
            left = str(it.get("pin_tries_left", it["pin_tries"]))
            until = f"locked until {words.local(it['locked_until'])} at the latest" if "locked_until" in it else ""
            grid.add_row(Text("PIN tries left", style="bold"), _join(_text(left, "red"), _text(until)))
        if "algorithms" in it:
            grid.add_row(Text("makes keys", style="bold"), _text(", ".join(it["algorithms"])))
    return grid


def token_objects(data: Data) -> RenderableType:
    """``gatewayctl token objects``."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ROLE", "KIND", "ALGORITHM", "ID", "LABEL", "WHY"):
        table.add_column(column, overflow="fold")
    for each in data["objects"]:
        goes = f" It goes from {words.local(each['collected_from'])} on." if "collected_from" in each else ""
        table.add_row(
            _state(each["role"]),
            _text(each["kind"]),
            _text(each.get("algorithm", "")),
            _text(each["id"]),
            _text(each["label"]),
            _text(each["reason"] + goes),
        )
    for each in data["missing"]:
        gone = Text("missing", style="red")
        table.add_row(gone, Text("private-key"), Text(), _text(each["id"]), Text(), _text(each["reason"], "red"))
    return table


def added(data: Data) -> RenderableType:
    """``gatewayctl device add`` and ``device code``: the code, this once."""
    grid = _grid()
    grid.add_row(Text("device", style="bold"), _text(data["device"]["device_id"]))
    grid.add_row(Text("one-time code", style="bold"), _text(data["code"], "bold green"))
    grid.add_row(Text("good until", style="bold"), _text(words.local(data["expires_at"])))
    if "est_url" in data:
        grid.add_row(Text("enroll at", style="bold"), _text(data["est_url"]))
    return Group(
        grid, Text("The code is not shown again. The device enrolls with its id as user name and the code as password.")
    )


def replacing(data: Data) -> RenderableType:
    """``gatewayctl device replace``: the code, and on a terminal its QR."""
    parts: list[RenderableType] = [added(data)]
    if "enroll_url" in data and console().is_terminal:
        parts += [Text(), qr.drawn(data["enroll_url"])]
    return Group(*parts)


def page_opened(data: Data) -> RenderableType:
    """``gatewayctl page open``: the link, and on a terminal its QR."""
    good = f"It works once, and opens the page on one phone until {words.local(data['expires_at'])}."
    parts: list[RenderableType] = [_text(data["url"], "bold green"), Text(good)]
    if console().is_terminal:
        parts += [Text(), qr.drawn(data["url"])]
    return Group(*parts)


def step(data: Data) -> Text:
    """``✓ 12:01:03 revoked at the CA — evidence``"""
    mark, style = _MARKS.get(data["state"], ("·", ""))
    line = Text.assemble((mark, style), f" {words.clock(data['at'])} {words.step(data['step'])}")
    if data.get("detail"):
        line.append(f" — {words.clean(data['detail'])}", "dim")
    return line


def clock(data: Data) -> Text:
    by = "synchronised" if data.get("synchronised") else "not synchronised"
    if data["sane"]:
        return _join(_state("sane"), _text(by))
    says = f"it says {words.local(data['system'])}" if "system" in data else ""
    return _join(_text("not trusted: decisions wait for it", "red"), _text(says), _text(by))


def outcome(job: Data) -> Text:
    """What a job that is done has come to."""
    result = job["result"]
    if job["kind"] == "revoke":
        return _text(f"{job['device_id']} is revoked, and verified as disabled in the hub.", "bold green")
    if job["kind"] == "replace":
        return _text(f"{job['device_id']} has new hardware; no old certificate of it gets into the hub.", "bold green")
    until = f" until {words.local(result['not_after'])}" if "not_after" in result else ""
    serial = f", serial {result['serial']}" if "serial" in result else ""
    return _text(f"{job['device_id']} has a new certificate{serial}{until}.", "bold green")


def _facts(data: Data, now: datetime) -> Iterator[tuple[str, Text]]:
    gateway, token, issuer, hub, est = data["gateway"], data["token"], data["issuer"], data["hub"], data["est"]
    yield (
        "gateway",
        _join(_text(gateway["device_id"], "bold"), _state(gateway["state"]), _text(f"gatewayd {data['version']}")),
    )
    yield "certificate", _certificate(gateway, now)
    if "last_error" in gateway:
        yield "", _trouble(gateway)
    yield "token", _join(_state(token["state"]), _text(token.get("label", "")), _text(token.get("model", "")))
    if token.get("detail"):
        yield "", _text(token["detail"], "red")
    yield "clock", clock(data["clock"])
    yield "CA", _join(_text(issuer["name"]), _text(issuer.get("url", "")), _success(issuer, now))
    if "last_error" in issuer:
        yield "", _text(issuer["last_error"], "yellow")
    if "left_alone_until" in issuer:
        until = words.local(issuer["left_alone_until"])
        yield "", _text(f"left alone until {until} after {issuer['failures']} failures in a row", "yellow")
    since = f"since {words.local(hub['since'])}" if "since" in hub else ""
    yield "hub", _join(_state(hub["state"]), _text(hub["host"]), _text(since))
    if hub.get("detail"):
        yield "", _text(hub["detail"], "yellow")
    yield "hub registry", _success(hub["registry"], now)
    if "last_error" in hub["registry"]:
        yield "", _text(hub["registry"]["last_error"], "yellow")
    yield "EST server", _join(_state("listening" if est["listening"] else "not listening"), _text(est.get("url", "")))
    for source in data["revocation_sources"]:
        yield "revocations", _source(source, now)
        if "last_error" in source:
            yield "", _text(source["last_error"], "yellow")
        if "on_hold" in source:
            yield "", _text(f"on hold at the CA: {', '.join(source['on_hold'])}", "red")
    for hook in data.get("hooks", []):
        yield "hook", _join(_text(hook["name"]), _state(hook["state"]), _success(hook, now))
        if hook["state"] == "failed":
            yield "", _trouble(hook)
    counts = [
        _join(Text(str(count)), _state(state), separator=" ") for state, count in data["devices"].items() if count
    ]
    yield "leaf devices", _join(*counts) if counts else Text("none yet: 'gatewayctl device add'")


def _source(item: Data, now: datetime) -> Text:
    parts = [_text(item["kind"]), _state(item["state"]), _text(item["name"]), _success(item, now)]
    if "next_update" in item:
        parts.append(_text(f"next one {words.distance(item['next_update'], now)}"))
    return _join(*parts)


def _certificate(item: Data, now: datetime) -> Text:
    if "not_after" not in item:
        return Text("none yet")
    parts = [f"until {words.local(item['not_after'])} ({words.distance(item['not_after'], now)})"]
    parts += [f"renews {words.local(item['renew_at'])}"] if "renew_at" in item else []
    parts += [f"generation {item['generation']}"] if "generation" in item else []
    parts += [item[key] for key in ("key_algorithm",) if key in item]
    parts += [f"serial {item['serial']}"] if "serial" in item else []
    return _join(*map(_text, parts))


def _success(item: Data, now: datetime) -> Text:
    if "last_success_at" not in item:
        return Text("no exchange yet")
    return _text(f"last success {words.distance(item['last_success_at'], now)}")


def _waiting(item: Data) -> RenderableType:
    where = f"{item['device_id']}: " if "device_id" in item else ""
    return Padding(
        Group(_text(f"{where}{item['what']}"), _text(f"→ {item['remedy']}", "bold")), (0, 0, 0, 2), expand=False
    )


def _revocation(item: Data) -> RenderableType:
    head = _join(
        _text(item["device_id"], "bold"),
        _text(f"serial {item['serial']}"),
        _text(item["reason"]),
        _text(f"known {words.local(item['known_at'])} from {item['origin']}"),
    )
    lines = [Padding(_milestone(each), (0, 0, 0, 2), expand=False) for each in item["milestones"]]
    return Padding(Group(head, *lines), (0, 0, 0, 2), expand=False)


def _replacement(item: Data) -> RenderableType:
    head = _join(_state(item["state"]), _text(item["reason"]), _text(f"by {item['origin']}"))
    lines: list[Text] = []
    for each in item["steps"]:
        name = words.step(each["name"])
        if "done_at" in each:
            lines.append(Text.assemble(("✓", "green"), f" {words.local(each['done_at'])} {name}"))
        elif each["name"] == "pin-lifted" and "lift_at" in item and item["state"] == "pinned":
            lines.append(Text(f"· {name}: {words.local(item['lift_at'])}", style="dim"))
        else:
            lines.append(Text(f"· {name}", style="dim"))
    if "last_error" in item:
        lines.append(_trouble(item))
    indented = [Padding(each, (0, 0, 0, 2), expand=False) for each in lines]
    return Padding(Group(head, *indented), (0, 0, 0, 2), expand=False)


def _milestone(item: Data) -> Text:
    name = words.step(item["name"])
    if "done_at" in item:
        line = Text.assemble(("✓", "green"), f" {words.local(item['done_at'])} {name}")
        return line.append(f" — {words.clean(item['evidence'])}", "dim") if item.get("evidence") else line
    if item["attempts"]:
        return Text.assemble(("…", "yellow"), f" {name} — ", _trouble(item))
    return Text(f"· {name}", style="dim")


def _trouble(item: Data) -> Text:
    """What failed, how often, and when it is tried again."""
    tried = f"tried {item['attempts']} times" if item.get("attempts", 0) > 1 else "tried once"
    again = f", next {words.local(item['next_attempt_at'])}" if "next_attempt_at" in item else ""
    return _text(f"{tried}{again}: {item.get('last_error', 'no answer')}", "yellow")


def _credentials(items: list[Data]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("GENERATION", "STATE", "FROM", "UNTIL", "SERIAL", "TROUBLE"):
        table.add_column(column, overflow="fold")
    for each in items:
        trouble = _trouble(each) if "last_error" in each else Text()
        serial = _text(each.get("serial", ""))
        since, until = _time(each, "not_before"), _time(each, "not_after")
        table.add_row(str(each["generation"]), _state(each["state"]), since, until, serial, trouble)
    return Padding(table, (0, 0, 0, 2), expand=False)


def _history(items: list[Data]) -> RenderableType:
    grid = _grid()
    for each in items:
        detail = _text(each.get("detail", ""), "dim")
        grid.add_row(_time(each, "at"), _join(_text(each["who"]), _text(each["what"]), _text(each["outcome"]), detail))
    return Padding(grid, (0, 0, 0, 2), expand=False)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _text(text: str, style: str = "") -> Text:
    return Text(words.clean(text), style=style)


def _time(item: Data, key: str) -> Text:
    return Text(words.local(item[key])) if key in item else Text()


def _state(state: str) -> Text:
    style = "green" if state in _GOOD else "yellow" if state in _WORKING else "red" if state in _BAD else ""
    return _text(state, style)


def _join(*parts: Text, separator: str = " · ") -> Text:
    return Text(separator).join([each for each in parts if each])
