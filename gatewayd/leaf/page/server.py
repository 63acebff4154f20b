"""The technician's page as the daemon sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any

from ...config import PageSettings
from ...threads import across
from ..server import Server
from ..tls import ServerTls
from .base import Technician
from .service import PageService


class PageServer(Server):
    """``technician`` is called on the loop that calls ``start``; ``tls`` may be reloaded from there at any time."""

    def __init__(
        self,
        technician: Technician,
        settings: PageSettings,
        tls: ServerTls,
        gateway_id: str,
        names: Sequence[str] = (),
    ) -> None:
        def service() -> PageService:
            home = asyncio.get_running_loop()

            def ask(call: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
                return across(call, home)

            return PageService(technician, settings, tls, gateway_id, ask)

        super().__init__("page", service, settings.address, settings.port, names)
