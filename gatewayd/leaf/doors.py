"""The servers on the plant's network, for as long as the gateway has a certificate to show."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import GatewayError, NotBootstrapped
from ..messages import kind
from ..upstream.base import LinkCredential
from .server import Server
from .tls import ServerTls, page_context, server_context

log = logging.getLogger(__name__)

Bind = Callable[
    [ssl.SSLContext, x509.Certificate, Sequence[x509.Certificate], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey], None
]
"""Have a context show a certificate whose key is in the token."""
Anchors = Callable[[], tuple[x509.Certificate, ...]]


class Door:
    """One server: opened with the gateway's first certificate, and shown each later one."""

    def __init__(
        self, name: str, make: Callable[[ServerTls], Server], bind: Bind, context: Callable[[], ssl.SSLContext]
    ) -> None:
        """``name`` is for the log; ``context`` makes a fresh one, without certificate."""
        self._name = name
        self._make = make
        self._bind = bind
        self._new_context = context
        self._open: tuple[ServerTls, Server] | None = None
        self._live: LinkCredential | None = None

    @property
    def url(self) -> str | None:
        """None while it is closed."""
        return self._open[1].url if self._open else None

    async def show(self, live: LinkCredential) -> None:
        """Serve with this certificate from now on. What keeps it from that is in the log."""
        self._live = live
        try:
            if self._open is not None:
                self._open[0].reload()
                return
            tls = ServerTls(self._context)
            server = self._make(tls)
            await server.start()
        except GatewayError as error:
            log.error("%s: %s %s", self._name, error, error.remedy)
            return
        self._open = tls, server
        log.info("%s is at %s", self._name, server.url, extra=kind("door"))

    def reload(self) -> None:
        if self._open is not None:
            self._open[0].reload()

    async def close(self) -> None:
        if self._open is not None:
            (_, server), self._open = self._open, None
            await server.stop()

    def _context(self) -> ssl.SSLContext:
        assert self._live is not None
        context = self._new_context()
        self._bind(context, self._live.certificate, self._live.chain, self._live.private_key)
        return context


def est_door(
    make: Callable[[ServerTls], Server], bind: Bind, anchors: Anchors, manufacturers: Sequence[x509.Certificate] = ()
) -> Door:
    """For leaves. ``anchors`` are those of the leaves' certificates, ``manufacturers`` of those that they were made
    with."""

    def context() -> ssl.SSLContext:
        known = anchors()
        if not known:
            raise NotBootstrapped("The CA's certificates are not known yet.")
        return server_context([each.public_bytes(Encoding.DER) for each in (*known, *manufacturers)])

    return Door("the EST server", make, bind, context)


def page_door(make: Callable[[ServerTls], Server], bind: Bind) -> Door:
    """For technicians."""
    return Door("the technician's page", make, bind, page_context)
