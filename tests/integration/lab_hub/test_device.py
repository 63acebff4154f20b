"""The device's side, with Microsoft's own client and with a plain one."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.iot.device import X509, Message, MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient

from tests.support.lab import Lab

from .clients import Device, Service, credential

DEVICEBOUND = "devices/{}/messages/devicebound/#"


async def received(entries: queue.Queue[Any]) -> Any:
    """The SDK calls handlers on a thread of its own."""
    return await asyncio.to_thread(entries.get, timeout=5)


@pytest.fixture
async def client(lab: Lab, service: Service) -> AsyncIterator[IoTHubDeviceClient]:
    if service.call("GET", "/devices/sdk").status == 404:
        service.create("sdk")
    files = credential(lab, "sdk")
    client = IoTHubDeviceClient.create_from_x509_certificate(
        X509(str(files.certificate_file), str(files.key_file)),
        lab.address,
        "sdk",
        server_verification_cert=lab.web_root.read_text(),
    )
    await client.connect()
    yield client
    await client.shutdown()


async def test_the_sdk_sends_telemetry_that_the_hub_stamps(
    lab: Lab, service: Service, client: IoTHubDeviceClient
) -> None:
    message = Message('{"alarm": "hot"}', message_id="m-1", content_encoding="utf-8", content_type="application/json")
    message.custom_properties["type"] = "revocation & more"
    message.custom_properties["iothub-connection-device-id"] = "somebody-else"
    await client.send_message(message)

    [stored] = lab.get("hub", "/lab/messages")
    assert stored["body"] == {"alarm": "hot"}
    assert stored["properties"]["type"] == "revocation & more"
    system = stored["systemProperties"]
    assert system["message-id"] == "m-1"
    assert system["iothub-connection-device-id"] == "sdk"
    assert system["iothub-connection-auth-generation-id"] == service.get("sdk")["generationId"]
    assert json.loads(system["iothub-connection-auth-method"])["type"] == "x509Certificate"
    assert lab.get("hub", f"/lab/messages?after={stored['sequence']}") == []


async def test_the_sdk_sees_and_reports_its_twin(lab: Lab, service: Service, client: IoTHubDeviceClient) -> None:
    pushed: queue.Queue[dict[str, Any]] = queue.Queue()

    async def on_patch(patch: dict[str, Any]) -> None:
        pushed.put_nowait(patch)

    client.on_twin_desired_properties_patch_received = on_patch
    before = await client.get_twin()
    await client.patch_twin_reported_properties({"state": {"renewals": 1, "note": "x"}})
    await client.patch_twin_reported_properties({"state": {"note": None}})
    assert (await client.get_twin())["reported"] == {
        "state": {"renewals": 1},
        "$version": before["reported"]["$version"] + 2,
    }
    assert service.call("GET", "/twins/sdk").body["properties"]["reported"]["state"] == {"renewals": 1}

    lab.post("hub", "/lab/desired", {"deviceId": "sdk", "desired": {"interval": 5}})
    assert await received(pushed) == {"interval": 5, "$version": before["desired"]["$version"] + 1}


async def test_the_sdk_answers_a_direct_method(service: Service, client: IoTHubDeviceClient) -> None:
    async def on_method(request: Any) -> None:
        await client.send_method_response(
            MethodResponse.create_from_method_request(request, 207, {request.name: request.payload})
        )

    client.on_method_request_received = on_method
    call = {
        "methodName": "renew",
        "payload": {"now": True},
        "responseTimeoutInSeconds": 5,
        "connectTimeoutInSeconds": 5,
    }
    answer = await asyncio.to_thread(service.call, "POST", "/twins/sdk/methods", call)
    assert answer.body == {"status": 207, "payload": {"renew": {"now": True}}}


async def test_the_sdk_gets_cloud_to_device_messages(lab: Lab, service: Service, client: IoTHubDeviceClient) -> None:
    came: queue.Queue[Message] = queue.Queue()

    async def on_message(message: Message) -> None:
        came.put_nowait(message)

    client.on_message_received = on_message
    lab.post("hub", "/lab/c2d", {"deviceId": "sdk", "body": "hello", "properties": {"key with space": "a&b"}})
    message = await received(came)
    assert message.data == b"hello"
    assert message.custom_properties == {"key with space": "a&b"}


def test_a_method_that_nobody_answers_times_out(lab: Lab, service: Service) -> None:
    service.create("mute")
    with Device(lab, "mute", credential(lab, "mute")) as device:
        device.connect()
        device.subscribe("$iothub/methods/POST/#")
        call = {"methodName": "x", "responseTimeoutInSeconds": 0.2}
        answer = service.call("POST", "/twins/mute/methods", call)
    assert (answer.status, answer.error) == (504, "GatewayTimeout")


def test_another_device_cannot_answer_in_its_place(lab: Lab, service: Service) -> None:
    service.create("asked")
    service.create("liar")
    with Device(lab, "asked", credential(lab, "asked")) as asked, Device(lab, "liar", credential(lab, "liar")) as liar:
        asked.connect()
        liar.connect()
        asked.subscribe("$iothub/methods/POST/#")

        def answer_in_turn() -> None:
            topic, _ = asked.receive()
            rid = topic.partition("$rid=")[2]
            liar.publish(f"$iothub/methods/res/200/?$rid={rid}", '"lie"')
            asked.publish(f"$iothub/methods/res/200/?$rid={rid}", '"truth"')

        thread = threading.Thread(target=answer_in_turn)
        thread.start()
        answer = lab.post("hub", "/lab/methods", {"deviceId": "asked", "methodName": "who"})
        thread.join()
    assert answer == {"status": 200, "payload": "truth"}


@pytest.mark.parametrize(
    ("topic", "qos"),
    [
        ("devices/own/messages/events/", 2),
        ("devices/other/messages/events/", 1),
        ("devices/own-too/messages/events/", 1),
        ("$iothub/twin/GET/?", 1),
        ("anything", 0),
    ],
)
def test_what_a_device_may_not_publish_closes_its_connection(lab: Lab, service: Service, topic: str, qos: int) -> None:
    if service.call("GET", "/devices/own").status == 404:
        service.create("own")
    before = len(lab.get("hub", "/lab/messages"))
    with Device(lab, "own", credential(lab, "own")) as device:
        device.connect()
        device.client.publish(topic, b"x", qos)
        assert device.closed()
    assert len(lab.get("hub", "/lab/messages")) == before


def test_a_report_that_is_no_json_object_is_answered_400(lab: Lab, service: Service) -> None:
    service.create("garbled")
    with Device(lab, "garbled", credential(lab, "garbled")) as device:
        device.connect()
        device.subscribe("$iothub/twin/res/#")
        for number, payload in enumerate((b"[]", b"{", b"\xff", b"[" * 100_000)):
            device.publish(f"$iothub/twin/PATCH/properties/reported/?$rid={number}", payload)
            assert device.receive()[0] == f"$iothub/twin/res/400/?$rid={number}"


def test_a_device_may_subscribe_to_its_own_topics_only(lab: Lab, service: Service) -> None:
    service.create("curious")
    with Device(lab, "curious", credential(lab, "curious")) as device:
        device.connect()
        assert device.subscribe(DEVICEBOUND.format("curious")) == 1
        assert device.subscribe(DEVICEBOUND.format("other")) == 0x80
        assert device.subscribe("#") == 0x80


def test_keep_alive_is_enforced(lab: Lab, service: Service) -> None:
    service.create("silent")
    with Device(lab, "silent", credential(lab, "silent"), keepalive=1) as device:
        device.connect()
        device.client.loop_stop()  # no PINGREQ any more
        device.closed(within=2.0)
    ended = [each["reason"] for each in lab.get("hub", "/lab/connections")["ended"] if each["deviceId"] == "silent"]
    assert ended == ["keep-alive ran out"]


def test_a_session_that_is_kept_gets_what_came_meanwhile(lab: Lab, service: Service) -> None:
    service.create("sleeper")
    own = credential(lab, "sleeper")
    with Device(lab, "sleeper", own, clean=False) as device:
        device.connect()
        assert not device.session_present
        device.subscribe(DEVICEBOUND.format("sleeper"))
    lab.post("hub", "/lab/c2d", {"deviceId": "sleeper", "body": "one"})
    lab.post("hub", "/lab/c2d", {"deviceId": "sleeper", "body": "two"})
    assert service.get("sleeper")["cloudToDeviceMessageCount"] == 2
    with Device(lab, "sleeper", own, clean=False) as device:
        device.connect()
        assert device.session_present
        assert [device.receive()[1] for _ in range(2)] == [b"one", b"two"]
    assert service.get("sleeper")["cloudToDeviceMessageCount"] == 0
    with Device(lab, "sleeper", own, clean=True) as device:
        device.connect()
        assert not device.session_present
