"""``gatewayctl device``."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Span, Text

from .. import qr, words
from ..base import Data
from .drawing import coloured, console, joined, plain, stamp, style_of, two_columns


def devices(items: list[Data]) -> Text:
    """One line each: thousands, perhaps, for which a Table takes too long."""
    rows = [("DEVICE", "KIND", "STATE", "HUB", "CERTIFICATE UNTIL", "RENEWS", "SERIAL"), *map(_row, items)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    styled: list[Span] = []
    begins = 0
    for row in rows:
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        for column in (2, 3) if lines else ():
            at = begins + sum(len(cell) + 2 for cell in cells[:column])
            styled.append(Span(at, at + len(row[column]), style_of(row[column])))
        lines.append("  ".join(cells).rstrip())
        begins += len(lines[-1]) + 1
    return Text("\n".join(lines), no_wrap=True, overflow="ignore", spans=[Span(0, len(lines[0]), "bold"), *styled])


def _row(item: Data) -> tuple[str, ...]:
    names = (item["device_id"], item["kind"], item["state"], item["hub_state"])
    times = (words.local(item[key]) if key in item else "" for key in ("not_after", "renew_at"))
    return (*map(words.clean, names), *times, words.clean(item.get("serial", "")))


def device(data: Data) -> RenderableType:
    """``gatewayctl device show``."""
    now = datetime.now(UTC)
    it = data["device"]
    grid = two_columns()
    grid.add_row(Text("device", style="bold"), joined(plain(it["device_id"]), plain(it["kind"]), coloured(it["state"])))
    grid.add_row(Text("in the hub", style="bold"), coloured(it["hub_state"]))
    if it["sans"]:
        grid.add_row(Text("names", style="bold"), plain(", ".join(it["sans"])))
    grid.add_row(Text("certificate", style="bold"), certificate(it, now))
    if "hardware" in data:
        made = data["hardware"]
        void = [Text("void", style="yellow")] if made["void"] else []
        grid.add_row(Text("hardware", style="bold"), joined(plain(made["manufacturer"]), plain(made["serial"]), *void))
    if "code_expires_at" in data:
        code = plain(f"open until {words.local(data['code_expires_at'])}")
        grid.add_row(Text("enrollment code", style="bold"), code)
    parts: list[RenderableType] = [grid]
    if "replacement" in data:
        parts += [Text("\nReplacement", style="bold"), _replacement(data["replacement"])]
    if data["credentials"]:
        parts += [Text("\nGenerations", style="bold"), _credentials(data["credentials"])]
    if data["revocations"]:
        parts += [Text("\nRevocations", style="bold"), *(revocation(each) for each in data["revocations"])]
    if data["history"]:
        parts += [Text("\nHistory", style="bold"), _history(data["history"])]
    return Group(*parts)


def added(data: Data) -> RenderableType:
    """``gatewayctl device add`` and ``device code``: the code, this once."""
    grid = two_columns()
    grid.add_row(Text("device", style="bold"), plain(data["device"]["device_id"]))
    grid.add_row(Text("one-time code", style="bold"), plain(data["code"], "bold green"))
    grid.add_row(Text("good until", style="bold"), plain(words.local(data["expires_at"])))
    if "est_url" in data:
        grid.add_row(Text("enroll at", style="bold"), plain(data["est_url"]))
    return Group(
        grid, Text("The code is not shown again. The device enrolls with its id as user name and the code as password.")
    )


def replacing(data: Data) -> RenderableType:
    """``gatewayctl device replace``: the code, and on a terminal its QR."""
    parts: list[RenderableType] = [added(data)]
    if "enroll_url" in data and console().is_terminal:
        parts += [Text(), qr.drawn(data["enroll_url"])]
    return Group(*parts)


def certificate(item: Data, now: datetime) -> Text:
    if "not_after" not in item:
        return Text("none yet")
    parts = [f"until {words.local(item['not_after'])} ({words.distance(item['not_after'], now)})"]
    parts += [f"renews {words.local(item['renew_at'])}"] if "renew_at" in item else []
    parts += [f"generation {item['generation']}"] if "generation" in item else []
    parts += [item[key] for key in ("key_algorithm",) if key in item]
    parts += [f"serial {item['serial']}"] if "serial" in item else []
    return joined(*map(plain, parts))


def revocation(item: Data) -> RenderableType:
    head = joined(
        plain(item["device_id"], "bold"),
        plain(f"serial {item['serial']}"),
        plain(item["reason"]),
        plain(f"known {words.local(item['known_at'])} from {item['origin']}"),
    )
    lines = [Padding(_milestone(each), (0, 0, 0, 2), expand=False) for each in item["milestones"]]
    return Padding(Group(head, *lines), (0, 0, 0, 2), expand=False)


def _replacement(item: Data) -> RenderableType:
    head = joined(coloured(item["state"]), plain(item["reason"]), plain(f"by {item['origin']}"))
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
        lines.append(trouble(item))
    indented = [Padding(each, (0, 0, 0, 2), expand=False) for each in lines]
    return Padding(Group(head, *indented), (0, 0, 0, 2), expand=False)


def _milestone(item: Data) -> Text:
    name = words.step(item["name"])
    if "done_at" in item:
        line = Text.assemble(("✓", "green"), f" {words.local(item['done_at'])} {name}")
        return line.append(f" — {words.clean(item['evidence'])}", "dim") if item.get("evidence") else line
    if item["attempts"]:
        return Text.assemble(("…", "yellow"), f" {name} — ", trouble(item))
    return Text(f"· {name}", style="dim")


def trouble(item: Data) -> Text:
    """What failed, how often, and when it is tried again."""
    tried = f"tried {item['attempts']} times" if item.get("attempts", 0) > 1 else "tried once"
    again = f", next {words.local(item['next_attempt_at'])}" if "next_attempt_at" in item else ""
    return plain(f"{tried}{again}: {item.get('last_error', 'no answer')}", "yellow")


def _credentials(items: list[Data]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("GENERATION", "STATE", "FROM", "UNTIL", "SERIAL", "TROUBLE"):
        table.add_column(column, overflow="fold")
    for each in items:
        wrong = trouble(each) if "last_error" in each else Text()
        serial = plain(each.get("serial", ""))
        since, until = stamp(each, "not_before"), stamp(each, "not_after")
        table.add_row(str(each["generation"]), coloured(each["state"]), since, until, serial, wrong)
    return Padding(table, (0, 0, 0, 2), expand=False)


def _history(items: list[Data]) -> RenderableType:
    grid = two_columns()
    for each in items:
        detail = plain(each.get("detail", ""), "dim")
        grid.add_row(stamp(each, "at"), joined(plain(each["who"]), plain(each["what"]), plain(each["outcome"]), detail))
    return Padding(grid, (0, 0, 0, 2), expand=False)
