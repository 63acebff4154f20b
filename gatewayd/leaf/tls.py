"""The server's side of TLS."""

from __future__ import annotations

import _ssl
import ssl
import sys
from collections.abc import Callable, Sequence


class ServerTls:
    """The context that the next connection is accepted with; replaced whole, while connections go on.

    Each connection takes the context that is current when it is accepted, certificate, anchors and all, and keeps it
    to its end. (Setting another context in ``sni_callback`` would be the textbook way, but OpenSSL takes over only
    the certificate and the trust store: verify flags stay those of the old context, and so does the session cache, so
    that a client for whom only the old anchors vouched resumes its TLS 1.2 session as if nothing had happened.)
    """

    def __init__(self, make_context: Callable[[], ssl.SSLContext]) -> None:
        """``make_context`` returns a fresh, complete context each time: ``server_context`` with the server's
        certificate and key bound to it. It is called here for the first time and may raise."""
        self._make_context = make_context
        self._context = make_context()

    @property
    def context(self) -> ssl.SSLContext:
        return self._context

    def reload(self) -> None:
        """Take up a new certificate, key or set of anchors. When ``make_context`` raises, the present one stays."""
        self._context = self._make_context()


def server_context(client_anchors: Sequence[bytes]) -> ssl.SSLContext:
    """The EST server's context without certificate and key, which the caller binds.

    A client certificate is asked for and optional: a leaf that enrolls for the first time has none. One that is shown
    must chain to ``client_anchors`` (DER) and be for clientAuth, or the handshake fails.
    """
    context = page_context()
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=b"".join(client_anchors))
    # Each certificate given is an anchor by itself, so that trust can end at the issuing CA and need not take in all
    # that its root may ever vouch for; one signature less to verify on each handshake, too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def peer_chain(connection: ssl.SSLObject) -> tuple[bytes, ...]:
    """DER of all that a peer with a certificate has sent, unverified; empty when its session was resumed. SSLObject has
    ``get_unverified_chain`` since Python 3.13, what it stands on had it before."""
    if sys.version_info >= (3, 13):
        return tuple(connection.get_unverified_chain())
    found = connection._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return tuple(each.public_bytes(_ssl.ENCODING_DER) for each in found or ())


def page_context() -> ssl.SSLContext:
    """A server's context without certificate and key, which the caller binds. It asks for no client certificate: a
    browser would bother its user for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996; strongSwan and libest speak nothing newer
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    # No tickets on TLS 1.3: a leaf comes twice in a certificate's life and keeps no session in between, so that they
    # would cost time in each handshake and save none, however slow the token. On TLS 1.2 OpenSSL's own way stands
    # (libest resumes within one enrollment): a session ends with its context, and two hours after it began.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context
