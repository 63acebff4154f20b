"""Memory that was freed goes back to the system.

A list of all devices makes some hundred thousand small pieces on its way to the bus. Freed, they would stay with the
process: GLib before 2.76 keeps them in an allocator of its own, and glibc's keeps whole pages in the middle of its heap
until it is told.
"""

from __future__ import annotations

import ctypes
import os

_ARENA_MAX = -8
"""M_ARENA_MAX of <malloc.h>."""


def prepare() -> None:
    """Before GLib is loaded and threads are started. GLib is to take its pieces from malloc, as later versions do
    anyway; and all threads take theirs from one heap, for only that one is given back whole."""
    os.environ.setdefault("G_SLICE", "always-malloc")
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_ARENA_MAX, 1)


def give_back() -> None:
    """Takes some milliseconds, without the GIL. Nothing happens with another C library than glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
