"""HTML from templates: what is filled in is text, and escaped, unless it is markup itself."""

from __future__ import annotations

import html
from collections.abc import Iterable
from string import Template
from typing import Final


class Html(str):
    """Markup that may stand in a page as it is: made by ``fill`` and ``join``, or written by us."""

    __slots__ = ()


NOTHING: Final = Html()


def fill(template: str, /, **values: object) -> Html:
    """``$name`` becomes the value, escaped for text and for quoted attributes. A name without a value raises
    KeyError: nothing is left out in silence."""
    known = {name: each if isinstance(each, Html) else html.escape(str(each)) for name, each in values.items()}
    return Html(Template(template).substitute(known))


def join(parts: Iterable[Html]) -> Html:
    return Html("".join(parts))
