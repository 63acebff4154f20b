"""The stand-in as a process: builds its parts and listens."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from aiohttp import web
from cryptography import x509

from ..serve import arguments, listening, run, server_context, until_stopped
from .auth import Gatekeeper
from .broker import Broker
from .faults import Faults
from .functions import Functions
from .labapi import LabApi
from .mailbox import Mailbox
from .methods import Methods
from .presence import Presence
from .registry import Registry
from .rest import RegistryApi
from .sessions import Sessions
from .state import State
from .tls import admit_any_certificate
from .twins import Twins


def main(argv: list[str]) -> int:
    parser = arguments("hub", port=8443, description="The IoT Hub stand-in.")
    parser.add_argument("--mqtt-port", type=int, default=8883, help="MQTT port (%(default)s; 0: any free one)")
    return run(_serve(parser.parse_args(argv)))


async def _serve(options: argparse.Namespace) -> None:
    hosts = frozenset({options.address, "localhost"})
    gatekeeper = Gatekeeper.of(options.dir, hosts)
    authorities = [
        x509.load_pem_x509_certificate((options.dir / name).read_bytes()) for name in ("ca-root.pem", "ca-issuing.pem")
    ]
    with closing(State(options.dir / "hub-state.sqlite")) as state:
        registry = Registry(state)
        twins = Twins(state, registry)
        mailbox = Mailbox(state, registry)
        sessions = Sessions(state, registry)
        faults = Faults()
        presence = Presence(state, registry, twins, mailbox)
        methods = Methods(registry, presence)
        functions = Functions(state, registry, twins, methods, faults)
        broker = Broker(state, registry, sessions, mailbox, presence, functions, faults, hosts, authorities)

        app = web.Application()
        app.add_routes(RegistryApi(gatekeeper, registry, twins, mailbox, presence, methods, faults).routes())
        app.add_routes(LabApi(state, twins, mailbox, presence, methods, faults).routes())
        async with (
            listening(app, options.address, options.port, server_context(options.dir)) as port,
            _mqtt(broker, options) as mqtt_port,
        ):
            url, mqtt = f"https://{options.address}:{port}", f"{options.address}:{mqtt_port}"
            await until_stopped({"url": url, "host": options.address, "mqtt": mqtt})


@asynccontextmanager
async def _mqtt(broker: Broker, options: argparse.Namespace) -> AsyncIterator[int]:
    context = server_context(options.dir)
    admit_any_certificate(context)
    server = await broker.listen(options.address, options.mqtt_port, context)
    try:
        port: int = server.sockets[0].getsockname()[1]
        yield port
    finally:
        server.close()
        await broker.close()
