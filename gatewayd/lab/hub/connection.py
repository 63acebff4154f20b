"""One accepted MQTT connection: acknowledgements, subscriptions, keep-alive. What a PUBLISH means is not its affair."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

from amqtt.mqtt.disconnect import DisconnectPacket
from amqtt.mqtt.pingreq import PingReqPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket

from . import topics, wire
from .mailbox import Letter, Mailbox
from .sessions import Session

_KEEPALIVE_GRACE: Final = 1.5
"""MQTT 3.1.1, 3.1.2.10."""
_MAX_QOS: Final = 1
_REFUSED: Final = 0x80

Publish = Callable[["Connection", str, bytes], bool]
"""``publish(connection, topic, payload)`` → whether to acknowledge. Raises wire.Broken to end the connection."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as established at CONNECT."""

    device_id: str
    evidence: dict[str, str]
    """``serial`` and ``thumbprint`` (SHA-256) of the certificate, in hex."""
    stamp: dict[str, str]
    """The system properties that the hub adds to each message of this connection."""


class Connection:
    def __init__(
        self,
        peer: Peer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        keepalive: int,
        session: Session,
        mailbox: Mailbox,
        on_publish: Publish,
    ) -> None:
        """``keepalive`` in seconds; 0: never times out."""
        self.peer = peer
        self._session = session
        self._reader = reader
        self._writer = writer
        self._patience = keepalive * _KEEPALIVE_GRACE or None
        self._mailbox = mailbox
        self._on_publish = on_publish
        self._packet_ids = cycle(range(1, 65536))
        self._unacknowledged: dict[int, Letter] = {}
        self.ended_because: str | None = None

    @property
    def is_open(self) -> bool:
        return self.ended_because is None

    def close(self, reason: str) -> None:
        """End the connection from the hub's side. MQTT 3.1.1 has no way to tell the device why."""
        if self.is_open:
            self.ended_because = reason
            self._writer.close()

    async def run(self) -> None:
        """Serve until the connection ends."""
        self.deliver()
        try:
            while self.is_open:
                async with asyncio.timeout(self._patience):
                    packet = await wire.read_packet(self._reader)
                if self.is_open:
                    self._handle(packet)
                    await self._writer.drain()
        except TimeoutError:
            self.close("keep-alive ran out")
        except (wire.Broken, OSError) as error:
            self.close(str(error))

    def send(self, topic_filter: str, topic: str, payload: bytes) -> bool:
        """Send at QoS 0 if the device has subscribed to ``topic_filter``; returns whether it has."""
        subscribed = topic_filter in self._session
        if subscribed:
            self._writer.write(wire.publish(topic, payload, None))
        return subscribed

    def deliver(self) -> None:
        """Send what is in the mailbox and was not sent on this connection yet, at QoS 1."""
        if topics.devicebound(self.peer.device_id) not in self._session:
            return
        sent = set(self._unacknowledged.values())
        for letter in self._mailbox.pending(self.peer.device_id):
            if letter not in sent:
                packet_id = next(number for number in self._packet_ids if number not in self._unacknowledged)
                self._unacknowledged[packet_id] = letter
                self._writer.write(wire.publish(letter.topic, letter.body, packet_id))

    def _handle(self, packet: Any) -> None:
        match packet:
            case PublishPacket():
                self._take(packet)
            case PubackPacket():
                if letter := self._unacknowledged.pop(packet.packet_id, None):
                    self._mailbox.complete(letter)
            case SubscribePacket():
                self._subscribe(packet.variable_header.packet_id, packet.payload.topics)
            case UnsubscribePacket():
                for topic_filter in packet.payload.topics:
                    self._session.unsubscribe(topic_filter)
                self._writer.write(wire.unsuback(packet.variable_header.packet_id))
            case PingReqPacket():
                self._writer.write(wire.pingresp())
            case DisconnectPacket():
                self.close("the device disconnected")
            case _:
                raise wire.Broken(f"a {type(packet).__name__} has no place here")

    def _take(self, packet: Any) -> None:
        if packet.qos > _MAX_QOS:
            raise wire.Broken("the hub knows no QoS 2")
        acknowledge = self._on_publish(self, packet.topic_name, packet.data or b"")
        if acknowledge and packet.qos == 1:
            self._writer.write(wire.puback(packet.packet_id))

    def _subscribe(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        codes = []
        for topic_filter, qos in wanted:
            allowed = topics.may_subscribe(self.peer.device_id, topic_filter)
            codes.append(min(qos, _MAX_QOS) if allowed else _REFUSED)
            if allowed:
                self._session.subscribe(topic_filter)
        self._writer.write(wire.suback(packet_id, codes))
        self.deliver()
