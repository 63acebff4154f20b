"""Just enough DER (X.690) to take apart what is too large to be parsed whole."""

from __future__ import annotations

from collections.abc import Iterator

SEQUENCE = 0x30
INTEGER = 0x02
BOOLEAN = 0x01

_LONGEST_LENGTH = 5
"""Octets of a length: 2**32 bytes are more than anything here may have."""


def header(data: bytes, at: int) -> tuple[int, int, int]:
    """(tag, where the content begins, where it ends) of the element at ``at``; its end may lie beyond ``data``. Raises
    ValueError when the header is not all there, or not DER, or has a tag of several octets."""
    if at + 2 > len(data):
        raise ValueError("an element is cut off")
    tag, length = data[at], data[at + 1]
    begin = at + 2
    if tag & 0x1F == 0x1F:
        raise ValueError("a tag of several octets")
    if length >= 0x80:
        octets = length & 0x7F
        if not 0 < octets < _LONGEST_LENGTH or begin + octets > len(data):
            raise ValueError("a length that is indefinite, too large or cut off")
        length = int.from_bytes(data[begin : begin + octets], "big")
        if length < 0x80 or length >> (8 * (octets - 1)) == 0:
            raise ValueError("a length that is not in its shortest form")
        begin += octets
    return tag, begin, begin + length


def elements(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(tag, start, content's begin, end) of each element from ``begin`` to ``end``. Raises ValueError when the last one
    does not end there."""
    at = begin
    while at < end:
        tag, content, stop = header(data, at)
        if stop > end:
            raise ValueError("an element reaches beyond its container")
        yield tag, at, content, stop
        at = stop


def sequence(content: bytes) -> bytes:
    return bytes([SEQUENCE]) + _length(len(content)) + content


def integer_content(number: int) -> bytes:
    """The content octets of a non-negative INTEGER."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _length(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets
