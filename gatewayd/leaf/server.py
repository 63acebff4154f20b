"""A server on the plant's network as the daemon sees it: in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..config import EstSettings
from ..threads import LoopThread
from .base import Enroller
from .service import EstService
from .thread import HomeEnroller
from .tls import ServerTls

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - to know them


class Service(Protocol):
    """What is served, on the loop that calls."""

    async def start(self) -> int:
        """Listens on the port that it returns. Raises ConfigInvalid when the address or port cannot be had."""

    async def stop(self, drain: float) -> None:
        """Accept nothing more; answer the requests under way, for at most ``drain`` seconds."""


class Server:
    """Serves over TLS; may be started and stopped once.

    It lives in a thread of its own, because the token signs inside the TLS handshake and holds up the thread that it
    happens in: 0.1 ms with SoftHSM, up to 200 ms with a TPM, times all the leaves that come at once after a power cut.
    The daemon's own loop has a watchdog to feed and a hub to talk to meanwhile.
    """

    def __init__(
        self, name: str, make_service: Callable[[], Service], address: str, port: int, names: Sequence[str] = ()
    ) -> None:
        """``make_service`` is called on the loop that calls ``start``. ``names``: those that the certificate holds,
        the first of which is the server's when ``address`` stands for every address of the machine."""
        self._name = name
        self._make_service = make_service
        self._host = names[0] if address in _WILDCARDS and names else address
        self._port = port
        self._running: tuple[LoopThread, Service] | None = None

    async def start(self) -> None:
        """Listens when it returns. Raises ConfigInvalid when the address or port cannot be had."""
        thread = LoopThread(self._name)
        service = self._make_service()
        await thread.start()
        try:
            self._port = await thread.run(service.start())
        except BaseException:
            await thread.close()
            raise
        self._running = thread, service

    async def stop(self, drain: float = 15.0) -> None:
        """Accept nothing more; answer the requests under way, for at most ``drain`` seconds."""
        if self._running is None:
            return
        thread, service = self._running
        self._running = None
        try:
            await thread.run(service.stop(drain))
        finally:
            await thread.close()

    @property
    def url(self) -> str:
        """``https://host:port``; the paths follow."""
        return f"https://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"


class EstServer(Server):
    """``enroller`` is called on the loop that calls ``start``; ``tls`` may be reloaded from there at any time."""

    def __init__(self, enroller: Enroller, settings: EstSettings, tls: ServerTls, names: Sequence[str] = ()) -> None:
        def service() -> EstService:
            return EstService(HomeEnroller(enroller), settings, tls)

        super().__init__("est", service, settings.address, settings.port, names)
