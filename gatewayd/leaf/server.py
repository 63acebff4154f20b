"""The EST server as the daemon sees it."""

from __future__ import annotations

from ..config import EstSettings
from .base import Enroller
from .service import EstService
from .thread import HomeEnroller, LoopThread
from .tls import ServerTls


class EstServer:
    """Serves EST over TLS on the settings' address and port; may be started and stopped once.

    It lives in a thread of its own, because the token signs inside the TLS handshake and holds up the thread that it
    happens in: 0.1 ms with SoftHSM, up to 200 ms with a TPM, times all the leaves that come at once after a power cut.
    The daemon's own loop has a watchdog to feed and a hub to talk to meanwhile. ``enroller`` is called on the loop
    that calls ``start``; ``tls`` may be reloaded from there at any time.
    """

    def __init__(self, enroller: Enroller, settings: EstSettings, tls: ServerTls) -> None:
        self._enroller = enroller
        self._settings = settings
        self._tls = tls
        self._port = settings.port
        self._running: tuple[LoopThread, EstService] | None = None

    async def start(self) -> None:
        """Listens when it returns. Raises ConfigInvalid when the address or port cannot be had."""
        thread = LoopThread("est")
        service = EstService(HomeEnroller(self._enroller), self._settings, self._tls)
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
        """``https://address:port``, as it listens; the EST paths follow."""
        address = self._settings.address
        return f"https://{f'[{address}]' if ':' in address else address}:{self._port}"
