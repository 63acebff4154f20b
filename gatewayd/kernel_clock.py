"""What the kernel tells about its clock: whether it is synchronised, and when somebody sets it (Linux only).

Through ctypes: Python has no adjtimex(2), and timerfd_create(2) only since 3.13.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

_STA_UNSYNC: Final = 0x0040
_TIMESYNCD: Final = Path("/run/systemd/timesync/synchronized")
"""Touched at each synchronisation since boot (systemd-timesyncd.service(8))."""
_ASKED_EVERY: Final = 600.0
_ASKED_EVERY_UNTIL_THEN: Final = 60.0
"""Seconds between two questions to systemd-timedated."""
_TIMEDATED_WITHIN: Final = 5000
"""Milliseconds."""
_CLOCK_REALTIME: Final = 0
_TFD_TIMER_ABSTIME: Final = 1
_TFD_TIMER_CANCEL_ON_SET: Final = 2
_FAR: Final = 2**33 if ctypes.sizeof(ctypes.c_long) == 8 else 2**31 - 1
"""Seconds since 1970, for a timer that is never to expire: the year 2242; on 32 bits time_t ends in 2038."""


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as ``status``; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


class _Itimerspec(ctypes.Structure):
    """struct itimerspec: the interval, then the first expiry; each in seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def synchronised() -> bool:
    """Whether something keeps the kernel's clock right: chrony, ntpd and systemd-timesyncd say so to the kernel."""
    return _TIMESYNCD.exists() if (says := _kernel_says()) is None else says


def _kernel_says() -> bool | None:
    """None where a sandbox that forbids to set the clock (ProtectClock=) forbids to ask as well."""
    timex = _Timex()
    if _libc().adjtimex(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & _STA_UNSYNC


class Synchronisation:
    """``synchronised`` also within a sandbox that does not let the kernel be asked: systemd-timesyncd leaves a mark,
    and of every other NTP client systemd-timedated tells what the kernel says. That one is started for each question,
    and so is asked seldom."""

    def __init__(
        self, kernel: Callable[[], bool | None] = _kernel_says, timedated: Callable[[], bool] | None = None
    ) -> None:
        self._kernel = kernel
        self._timedated = timedated or _timedated_says
        self._told = False
        self._ask_at = 0.0

    def __call__(self) -> bool:
        says = self._kernel()
        return self._told or _TIMESYNCD.exists() if says is None else says

    async def refresh(self) -> None:
        """Ask again, if it is time to."""
        if self._kernel() is None and not _TIMESYNCD.exists() and time.monotonic() >= self._ask_at:
            self._told = await asyncio.to_thread(self._timedated)
            self._ask_at = time.monotonic() + (_ASKED_EVERY if self._told else _ASKED_EVERY_UNTIL_THEN)


def _timedated_says() -> bool:
    """NTPSynchronized of org.freedesktop.timedate1(5); false when it cannot be asked."""
    from gi.repository import Gio, GLib

    interface = "org.freedesktop.timedate1"
    asked = GLib.Variant("(ss)", (interface, "NTPSynchronized"))
    where = (interface, "/org/freedesktop/timedate1", "org.freedesktop.DBus.Properties", "Get")
    try:
        bus = Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
        answer = bus.call_sync(*where, asked, None, Gio.DBusCallFlags.NONE, _TIMEDATED_WITHIN, None)
    except GLib.Error as error:
        log.debug("systemd-timedated: %s", error.message)
        return False
    return bool(answer.unpack()[0])


class StepWatch:
    """Calls back, on the event loop, each time the wall clock is set or the machine has slept (timerfd_create(2),
    TFD_TIMER_CANCEL_ON_SET). Where the kernel does not offer that, it never calls."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step
        self._fd = -1

    def start(self) -> None:
        libc = _libc()
        self._fd = libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or not self._arm():
            log.warning("the kernel does not tell of clock steps: %s", os.strerror(ctypes.get_errno()))
            self.stop()
            return
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def stop(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _arm(self) -> bool:
        spec = _Itimerspec(0, 0, _FAR, 0)
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        return _libc().timerfd_settime(self._fd, flags, ctypes.byref(spec), None) == 0 or (
            # The clock was set between: the timer is armed all the same, and says so to the next read.
            ctypes.get_errno() == errno.ECANCELED
        )

    def _readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ECANCELED and self._arm():
                self._on_step()
                return
        # A clock set past the timer's own moment, or an error: steps are found by looking from now on.
        log.warning("the kernel does not tell of clock steps any more")
        self.stop()
        self._on_step()
