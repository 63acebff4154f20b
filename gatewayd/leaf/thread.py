"""The way from a server's own loop back to the daemon's."""

from __future__ import annotations

import asyncio

from ..core.enrollment import Enrolled, EnrollmentRequest, Pending
from ..threads import across
from .base import Enroller


class HomeEnroller:
    """An Enroller for another thread: each call is carried out on the loop on which this was made."""

    def __init__(self, enroller: Enroller) -> None:
        self._enroller = enroller
        self._home = asyncio.get_running_loop()

    async def enroll(self, request: EnrollmentRequest) -> Enrolled | Pending:
        return await across(self._enroller.enroll(request), self._home)

    async def anchors(self) -> tuple[bytes, ...]:
        return await across(self._enroller.anchors(), self._home)
