"""Injected faults, and what a restart leaves standing."""

from __future__ import annotations

import http.client
import socket
import urllib.error
from typing import Any

import pytest

from tests.support.lab import Lab

from .clients import Answer, Device, Service, connack, credential

EVENTS = "devices/{}/messages/events/"


def inject(lab: Lab, where: str, mode: str, match: str, **more: Any) -> None:
    lab.post("hub", "/lab/faults", {"where": where, "mode": mode, "match": match, **more})


def create(service: Service, device_id: str) -> Answer:
    return service.call("PUT", f"/devices/{device_id}", {"deviceId": device_id}, timeout=1)


def test_a_fault_strikes_as_often_as_it_was_asked_to(lab: Lab, service: Service) -> None:
    inject(lab, "registry", "429", "PUT /devices/slow", times=2)
    assert service.call("GET", "/devices/slow").status == 404, "only what matches"
    for _ in range(2):
        throttled = create(service, "slow")
        assert (throttled.status, throttled.error) == (429, "ThrottlingException")
        assert "retry-after" not in throttled.headers
        assert throttled.headers["connection"] == "close"
    assert create(service, "slow").status == 200
    assert lab.get("hub", "/lab/faults") == []


@pytest.mark.parametrize(
    ("mode", "status", "done"), [("500", 500, 404), ("503", 503, 404), ("503-after", 503, 200), ("refuse", 401, 404)]
)
def test_an_answer_may_be_an_error_before_or_after_the_work(
    lab: Lab, service: Service, mode: str, status: int, done: int
) -> None:
    inject(lab, "registry", mode, f"PUT /devices/f-{mode}")
    assert create(service, f"f-{mode}").status == status
    assert service.call("GET", f"/devices/f-{mode}").status == done


@pytest.mark.parametrize(
    ("mode", "error"),
    [("timeout", TimeoutError), ("drop", (http.client.RemoteDisconnected, ConnectionError, urllib.error.URLError))],
)
def test_an_answer_may_never_come(lab: Lab, service: Service, mode: str, error: type[Exception]) -> None:
    inject(lab, "registry", mode, f"PUT /devices/f-{mode}")
    with pytest.raises(error):
        create(service, f"f-{mode}")
    assert service.call("GET", f"/devices/f-{mode}").status == 404


def test_a_connect_may_be_refused_or_find_the_hub_away(lab: Lab, service: Service) -> None:
    service.create("faulty")
    own = credential(lab, "faulty")
    inject(lab, "mqtt", "refuse", "CONNECT faulty")
    assert connack(lab, "faulty", own) == 5
    inject(lab, "mqtt", "503", "CONNECT faulty")
    assert connack(lab, "faulty", own) == 3
    for mode in ("drop", "timeout"):
        inject(lab, "mqtt", mode, "CONNECT faulty")
        with Device(lab, "faulty", own) as device, pytest.raises(AssertionError, match="no CONNACK"):
            device.connect(within=0.5)
    assert connack(lab, "faulty", own) == 0


@pytest.mark.parametrize(("mode", "kept"), [("503-after", 1), ("drop", 0)])
def test_a_publish_may_be_lost_before_or_after_it_was_kept(lab: Lab, service: Service, mode: str, kept: int) -> None:
    device_id = f"publish-{mode}"
    service.create(device_id)
    inject(lab, "mqtt", mode, f"PUBLISH devices/{device_id}/")
    before = len(lab.get("hub", "/lab/messages"))
    with Device(lab, device_id, credential(lab, device_id)) as device:
        device.connect()
        device.client.publish(EVENTS.format(device_id), b"x", 1)
        assert device.closed()
    assert len(lab.get("hub", "/lab/messages")) == before + kept


def test_an_unknown_fault_is_an_error(lab: Lab) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        inject(lab, "mqtt", "429", "")


def test_what_is_no_mqtt_is_hung_up_on(lab: Lab) -> None:
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\x7f", b"\x30\x03\x00\x01#"):
        with (
            socket.create_connection((lab.address, 8883), timeout=5) as raw,
            lab.tls.wrap_socket(raw, server_hostname=lab.address) as tls,
        ):
            tls.sendall(nonsense)
            assert tls.recv(1) == b""


def test_state_survives_a_restart_even_a_hard_one(lab: Lab, service: Service) -> None:
    before = service.create("lasting")
    own = credential(lab, "lasting")
    with Device(lab, "lasting", own, clean=False) as device:
        device.connect()
        device.subscribe("devices/lasting/messages/devicebound/#")
        device.publish(EVENTS.format("lasting") + "%24.mid=before")
        device.subscribe("$iothub/twin/res/#")
        device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", '{"up": true}')
        lab.kill("hub")
        assert device.closed()
    lab.start("hub")

    after = service.get("lasting")
    assert {key: after[key] for key in ("etag", "generationId")} == {
        key: before[key] for key in ("etag", "generationId")
    }
    assert after["connectionState"] == "Disconnected"
    assert service.call("GET", "/twins/lasting").body["properties"]["reported"]["up"] is True
    messages = lab.get("hub", "/lab/messages")
    assert "before" in [message["systemProperties"].get("message-id") for message in messages]
    with Device(lab, "lasting", own, clean=False) as device:
        assert device.connect() == 0
        assert device.session_present
    decisions = [each for each in lab.get("hub", "/lab/connections")["history"] if each["deviceId"] == "lasting"]
    assert [each["serial"] for each in decisions] == [f"{own.certificate.serial_number:x}"] * 2


def test_it_stops_in_order_with_a_device_connected(lab: Lab, service: Service) -> None:
    service.create("last")
    with Device(lab, "last", credential(lab, "last")) as device:
        device.connect()
        assert lab.stop("hub") == 0
        assert device.closed()
    assert "Traceback" not in lab.log("hub").read_text()
