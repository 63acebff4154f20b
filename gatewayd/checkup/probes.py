"""Facts that the doctor needs, looked up by whichever process runs this: files, disk, names, connections.

Each is bounded in time, and what is wrong with what it looks at is its answer.
"""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import socket
import ssl
from pathlib import Path
from typing import Final

from ..core.doctor import Contact, FileFacts, Reached

WITHIN: Final = 8.0
"""Seconds for a name and for a connection, each."""


def file_facts(path: Path) -> FileFacts | None:
    """None when there is nothing there. Raises PermissionError when this process may not look."""
    try:
        facts = path.lstat()
    except PermissionError:
        raise
    except OSError:
        return None
    return FileFacts(facts.st_mode, facts.st_uid, os.access(path, os.W_OK))


def uid_of(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def space(path: Path) -> tuple[int, int | None] | None:
    """Bytes and inodes that are free where ``path`` is, or would be; None when that cannot be told."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        facts = os.statvfs(path)
    except OSError:
        return None
    return facts.f_bavail * facts.f_frsize, facts.f_favail if facts.f_files else None


async def contact(host: str, port: int, tls: ssl.SSLContext, within: float = WITHIN) -> Contact:
    """Resolve, connect, and shake hands with ``tls``; nothing is sent."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return Contact(Reached.UNRESOLVED, f"no answer within {within:g} s", within)
    except (OSError, UnicodeError) as error:
        return Contact(Reached.UNRESOLVED, getattr(error, "strerror", None) or "it cannot be a name", within)
    try:
        async with asyncio.timeout(within):
            writer = await _connect([str(address[0]) for *_, address in found], port, tls, host)
    except TimeoutError:
        return Contact(Reached.TIMEOUT, within=within)
    except ssl.SSLCertVerificationError as error:
        return Contact(Reached.UNTRUSTED, error.verify_message.rstrip("."), within)
    except ssl.SSLError as error:
        return Contact(Reached.NO_TLS, (error.reason or "no answer").lower().replace("_", " "), within)
    except ConnectionResetError:
        return Contact(Reached.NO_TLS, "the connection was reset", within)
    except OSError as error:
        return Contact(Reached.REFUSED, os.strerror(error.errno or errno.EIO), within)
    writer.transport.abort()
    return Contact(Reached.TRUSTED, within=within)


async def _connect(addresses: list[str], port: int, tls: ssl.SSLContext, host: str) -> asyncio.StreamWriter:
    """To the first that answers, else what came of the last: asyncio, given the name, would say of several addresses
    that fail no more than that they did."""
    for address in addresses[:-1]:
        try:
            return (await asyncio.open_connection(address, port, ssl=tls, server_hostname=host))[1]
        except ssl.SSLError:
            raise
        except OSError:
            continue
    return (await asyncio.open_connection(addresses[-1], port, ssl=tls, server_hostname=host))[1]
