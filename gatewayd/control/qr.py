"""A QR code on a terminal."""

from __future__ import annotations

from rich.text import Text

_HALVES = {(0, 0): " ", (0, 1): "▄", (1, 0): "▀", (1, 1): "█"}


def drawn(text: str) -> Text:
    """Two modules to a character cell; dark on light, whatever the terminal's colours are."""
    import segno

    rows = [bytes(row) for row in segno.make_qr(text, error="m").matrix_iter(border=4)]
    rows += [bytes(len(rows[0]))] * (len(rows) % 2)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ("".join(_HALVES[top, bottom] for top, bottom in zip(*pair, strict=True)) for pair in pairs)
    return Text("\n".join(lines), style="#000000 on #ffffff", no_wrap=True)
