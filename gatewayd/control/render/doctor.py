"""``gatewayctl doctor``."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from ..base import Data
from .drawing import joined, plain

_MARKS = {"fine": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red"), "unknown": ("?", "yellow")}


def findings(items: list[Data]) -> RenderableType:
    """One line each, and below it what to do; then how many of which kind."""
    parts: list[RenderableType] = []
    for each in items:
        mark, style = _MARKS[each["verdict"]]
        head = plain(f"{each['area']:<13} {each['check']}: ", "dim")
        parts.append(Text.assemble((mark, style), " ", head, plain(each["what"])))
        if "remedy" in each:
            parts.append(Padding(plain(f"→ {each['remedy']}", "bold"), (0, 0, 0, 2), expand=False))
    kinds = [each["verdict"] for each in items]
    counted = [plain(f"{kinds.count(kind)} {word}") for kind, word in _WORDS.items() if kind in kinds]
    return Group(*parts, Text(), joined(*counted))


_WORDS = {"fine": "fine", "warning": "to look at", "problem": "wrong", "unknown": "not checked"}
