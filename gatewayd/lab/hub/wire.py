"""MQTT 3.1.1 packets on a stream, through amqtt's codec.

Each packet is read whole, up to a bound, before it is decoded: a decoder that runs past the packet's end then finds no
more bytes instead of the next packet's.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any, Final

from amqtt.adapters import BufferReader, StreamReaderAdapter
from amqtt.errors import AMQTTError, CodecError, MQTTError, NoDataError
from amqtt.mqtt import packet_class
from amqtt.mqtt.connack import ConnackPacket
from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.unsuback import UnsubackPacket

MAX_PACKET: Final = 256 * 1024 + 4096
"""Bytes: the hub's largest message, and room for its topic."""


class Broken(Exception):
    """The peer is gone, or does not speak MQTT. The connection cannot go on."""


async def read_packet(reader: asyncio.StreamReader, *, only: int | None = None) -> Any:
    """The next packet, an instance of one of amqtt's packet classes; of type ``only``, if given. Raises Broken."""
    try:
        header = await MQTTFixedHeader.from_stream(StreamReaderAdapter(reader))
        if header is None:
            raise Broken("the peer closed the connection")
        if only is not None and header.packet_type != only:
            raise Broken(f"a packet of type {header.packet_type} instead of {only}")
        if header.remaining_length > MAX_PACKET:
            raise Broken(f"a packet of {header.remaining_length} bytes is too large")
        body = await reader.readexactly(header.remaining_length)
        return await packet_class(header).from_stream(BufferReader(body), fixed_header=header)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise Broken(f"the connection broke: {error}") from error
    except (AMQTTError, MQTTError, CodecError, NoDataError, ValueError, struct.error) as error:
        raise Broken(f"not MQTT 3.1.1: {error}") from error


def connack(code: int, *, session_present: bool = False) -> bytes:
    return _encoded(ConnackPacket.build(int(session_present), code))


def puback(packet_id: int) -> bytes:
    return _encoded(PubackPacket.build(packet_id))


def suback(packet_id: int, codes: Sequence[int]) -> bytes:
    return _encoded(SubackPacket.build(packet_id, list(codes)))


def unsuback(packet_id: int) -> bytes:
    return _encoded(UnsubackPacket.build(packet_id))


def pingresp() -> bytes:
    return _encoded(PingRespPacket.build())


def publish(topic: str, payload: bytes, packet_id: int | None) -> bytes:
    """QoS 1 with a packet id, QoS 0 without."""
    return _encoded(PublishPacket.build(topic, payload, packet_id, False, 0 if packet_id is None else 1, False))


def _encoded(packet: Any) -> bytes:
    encoded: bytes = packet.to_bytes()
    return encoded
