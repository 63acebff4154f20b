"""The MQTT listener: reads a CONNECT, has it judged, answers, and serves the connection to its end."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from typing import Any, Final

from amqtt.mqtt.packet import CONNECT
from cryptography import x509

from . import admission, wire
from .admission import Verdict
from .clock import text, utc_now
from .connection import Connection, Peer
from .faults import SILENCE, Faults, Mode
from .functions import Functions
from .identity import Identity
from .mailbox import Mailbox
from .presence import Presence
from .registry import Registry
from .sessions import Sessions
from .state import State

log = logging.getLogger(__name__)

_HANDSHAKE_WITHIN: Final = 10.0
_CONNECT_WITHIN: Final = 10.0
_SHUTDOWN_WITHIN: Final = 1.0
_UNAVAILABLE: Final = 3


class Broker:
    def __init__(
        self,
        state: State,
        registry: Registry,
        sessions: Sessions,
        mailbox: Mailbox,
        presence: Presence,
        functions: Functions,
        faults: Faults,
        hosts: frozenset[str],
        authorities: list[x509.Certificate],
    ) -> None:
        """``hosts``: the hub's names, lower-case; ``authorities``: the CAs registered with it."""
        self._state = state
        self._registry = registry
        self._sessions = sessions
        self._mailbox = mailbox
        self._presence = presence
        self._functions = functions
        self._faults = faults
        self._hosts = hosts
        self._authorities = authorities
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, address: str, port: int, context: ssl.SSLContext) -> asyncio.Server:
        return await asyncio.start_server(
            self._accept,
            address,
            port,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_WITHIN,
            ssl_shutdown_timeout=_SHUTDOWN_WITHIN,
            reuse_address=True,
        )

    async def close(self) -> None:
        """End every connection and wait until each is accounted for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                packet = await wire.read_packet(reader, only=CONNECT)
            await self._connect(packet, reader, writer)
        except (TimeoutError, wire.Broken, OSError) as error:
            log.info("MQTT: no CONNECT: %s", error or "the client sent nothing")
        finally:
            writer.close()

    async def _connect(self, packet: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client_id: str = packet.payload.client_id
        fault = self._faults.take("mqtt", f"CONNECT {client_id}")
        if fault is Mode.TIMEOUT:
            await asyncio.sleep(SILENCE)
        if fault in (Mode.TIMEOUT, Mode.DROP):
            return
        if fault is Mode.UNAVAILABLE:
            writer.write(wire.connack(_UNAVAILABLE))
            return

        # From here to `enter` nothing is awaited: a device disabled in between would slip in.
        identity = self._registry.find(client_id)
        certificate = _certificate(writer)
        verdict = self._judge(packet, certificate, identity)
        if fault is Mode.REFUSE:
            verdict = Verdict(admission.REFUSED, "a fault was injected")
        evidence = _evidence(certificate) if certificate else {}
        self._record(client_id, verdict, evidence)
        if identity is None or verdict.code != admission.ACCEPTED:
            writer.write(wire.connack(admission.REFUSED))
            return
        session = self._sessions.open(client_id, clean=packet.variable_header.clean_session_flag)
        connection = Connection(
            Peer(client_id, evidence, _stamp(identity)),
            reader,
            writer,
            packet.variable_header.keep_alive,
            session,
            self._mailbox,
            self._functions.take,
        )
        self._presence.enter(connection)
        writer.write(wire.connack(admission.ACCEPTED, session_present=session.present))
        if fault is Mode.UNAVAILABLE_AFTER:
            connection.close("a fault was injected")
        try:
            await connection.run()
        finally:
            connection.close("the hub stops")
            self._presence.leave(connection)

    def _judge(self, packet: Any, certificate: x509.Certificate | None, identity: Identity | None) -> Verdict:
        header, payload = packet.variable_header, packet.payload
        if (header.proto_name, header.proto_level) != ("MQTT", 4):
            return Verdict(admission.REFUSED, "not MQTT 3.1.1")
        return admission.decide(
            payload.client_id, payload.username, certificate, identity, self._hosts, self._authorities, utc_now()
        )

    def _record(self, client_id: str, verdict: Verdict, evidence: dict[str, str]) -> None:
        log.info("MQTT CONNECT %r: CONNACK %d, %s", client_id, verdict.code, verdict.reason)
        entry = {"deviceId": client_id, "code": verdict.code, "reason": verdict.reason, "time": text(utc_now())}
        self._state.append("decision", entry | evidence)


def _certificate(writer: asyncio.StreamWriter) -> x509.Certificate | None:
    """What the client presented; None if that was nothing, or nothing that can be read."""
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    try:
        return x509.load_der_x509_certificate(der) if der else None
    except ValueError:
        return None


def _evidence(certificate: x509.Certificate) -> dict[str, str]:
    return {"serial": f"{certificate.serial_number:x}", "thumbprint": admission.thumbprints(certificate)[1]}


def _stamp(identity: Identity) -> dict[str, str]:
    """What the hub says about a connection on each of its messages: all of it about who connected."""
    method = {"scope": "device", "type": "x509Certificate", "issuer": "external", "acceptingIpFilterRule": None}
    return {
        "iothub-connection-device-id": identity["deviceId"],
        "iothub-connection-auth-generation-id": identity["generationId"],
        "iothub-connection-auth-method": json.dumps(method),
    }
