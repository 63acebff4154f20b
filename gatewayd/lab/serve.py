"""What the stand-ins share as processes: options, TLS, the ready line, the request log, an orderly stop.

A stand-in's ``main`` reads::

    options = arguments("entra", port=8442).parse_args(argv)
    return run(_serve(options))

    async def _serve(options):
        async with listening(app, options.address, options.port, server_context(options.dir)) as port:
            await until_stopped({"url": f"https://{options.address}:{port}"})
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from .init import DEFAULT_ADDRESS


def arguments(command: str, port: int, description: str = "") -> argparse.ArgumentParser:
    """A parser with the options that every stand-in has: ``--dir``, ``--address``, ``--port`` (0: any free one)."""
    parser = argparse.ArgumentParser(prog=f"python -m gatewayd.lab {command}", description=description)
    parser.add_argument("--dir", type=Path, required=True, help="the lab's directory, made by 'init'")
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="IP address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=port, help="HTTPS port (%(default)s; 0: any free one)")
    return parser


def server_context(directory: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with the lab's web certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(directory / "web-cert.pem", directory / "web-key.pem")
    return context


@asynccontextmanager
async def listening(
    app: web.Application, address: str, port: int, context: ssl.SSLContext | None
) -> AsyncIterator[int]:
    """Serve ``app`` for as long as the block runs; yields the port. Without a context: plain HTTP."""
    runner = web.AppRunner(app, access_log_format='%a "%r" %s %b', shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port, ssl_context=context, reuse_address=True).start()
        bound: int = runner.addresses[0][1]
        yield bound
    finally:
        await runner.cleanup()


async def until_stopped(ready: Mapping[str, object]) -> None:
    """Print the ready line with ``ready`` in it, then wait for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(json.dumps({"ready": True, **ready}), flush=True)
    await stop.wait()


def run(main: Coroutine[Any, Any, None]) -> int:
    """Run a stand-in with its request log on stderr. Returns the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        asyncio.run(main)
    except OSError as error:
        # A port in use or a missing lab directory is the caller's to mend: one line tells it better than a traceback.
        print(f"cannot start: {error}", file=sys.stderr)
        return 69
    return 0
