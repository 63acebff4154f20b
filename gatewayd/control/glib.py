"""GLib's main loop in a thread of its own, so that the main thread belongs to somebody else.

It runs GLib's default context: objects may be registered and signals subscribed to from any thread, and GLib calls
back in this one. What is called there must hand over at once.
"""

from __future__ import annotations

import threading

from gi.repository import GLib


class GLibThread:
    """Started once, stopped once."""

    def __init__(self) -> None:
        self._loop = GLib.MainLoop()
        self._thread = threading.Thread(target=self._loop.run, name="glib", daemon=True)

    def start(self) -> None:
        """Returns when the loop is running, so that ``stop`` cannot come before it."""
        running = threading.Event()

        def tell() -> bool:
            running.set()
            return bool(GLib.SOURCE_REMOVE)

        GLib.idle_add(tell)
        self._thread.start()
        running.wait()

    def stop(self) -> None:
        self._loop.quit()
        self._thread.join()
