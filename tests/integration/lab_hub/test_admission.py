"""Who gets in: both X.509 modes, everything that is refused, and the hole that the hub leaves open."""

from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Any

import pytest

from tests.support.lab import Lab

from .clients import BY_CA, Device, Service, connack, credential, pinned

ACCEPTED, REFUSED = 0, 5


def reasons(lab: Lab, device_id: str) -> list[tuple[int, str]]:
    history = lab.get("hub", "/lab/connections")["history"]
    return [(entry["code"], entry["reason"]) for entry in history if entry["deviceId"] == device_id]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ca_signed_certificate_gets_in(lab: Lab, service: Service, version: ssl.TLSVersion) -> None:
    device_id = f"signed-{version.name}"
    service.create(device_id)
    assert connack(lab, device_id, credential(lab, device_id), tls=version) == ACCEPTED


def test_a_re_enabled_device_lets_its_revoked_certificate_in_again_until_it_is_pinned(
    lab: Lab, service: Service
) -> None:
    service.create("swapped")
    old, new = credential(lab, "swapped"), credential(lab, "swapped")
    assert connack(lab, "swapped", old) == ACCEPTED

    service.change("swapped", status="disabled", statusReason="revoked")
    assert connack(lab, "swapped", old) == REFUSED

    service.change("swapped", status="enabled", statusReason=None)
    assert connack(lab, "swapped", old) == ACCEPTED, "the hub never looks at revocation"

    service.change("swapped", authentication=pinned(new.sha256, new.sha256))
    assert connack(lab, "swapped", old) == REFUSED
    assert connack(lab, "swapped", new) == ACCEPTED


def test_deleting_and_creating_again_does_not_close_the_hole(lab: Lab, service: Service) -> None:
    before = service.create("reborn")
    old = credential(lab, "reborn")
    assert service.call("DELETE", "/devices/reborn", if_match="*").status == 204
    assert connack(lab, "reborn", old) == REFUSED
    after = service.create("reborn")
    assert after["generationId"] != before["generationId"]
    assert connack(lab, "reborn", old) == ACCEPTED


def test_a_pinned_certificate_needs_no_chain_but_must_be_in_time(lab: Lab, service: Service) -> None:
    own, stale = credential(lab, "x", issued=False), credential(lab, "x", issued=False, starts=-timedelta(days=2))
    by_sha1, by_sha256 = pinned(own.sha1.upper(), stale.sha1), pinned(stale.sha256, own.sha256.upper())
    service.create("pinned", by_sha1)
    assert connack(lab, "pinned", own) == ACCEPTED
    service.change("pinned", authentication=by_sha256)
    assert connack(lab, "pinned", own) == ACCEPTED
    assert connack(lab, "pinned", stale) == REFUSED


@pytest.mark.parametrize(
    ("name", "authentication", "presented", "options", "reason"),
    [
        ("nobody", None, {}, {}, "no such device"),
        ("bare", BY_CA, None, {}, "no client certificate"),
        ("alien", BY_CA, {"issued": False}, {}, "does not chain"),
        ("late", BY_CA, {"starts": -timedelta(days=2)}, {}, "expired"),
        ("early", BY_CA, {"starts": timedelta(days=2)}, {}, "not yet valid"),
        ("other", BY_CA, {"common_name": "OTHER"}, {}, "not the device id"),
        ("password", {"type": "sas"}, {}, {}, "authenticates with sas"),
        ("unpinned", pinned("0" * 64), {}, {}, "neither slot"),
        ("homeless", BY_CA, {}, {"username": "elsewhere.net/homeless/?api-version=1"}, "names another hub"),
        ("nameless", BY_CA, {}, {"username": "nameless"}, "the username is not"),
    ],
)
def test_every_other_connect_is_answered_5_and_the_reason_stays_with_the_hub(
    lab: Lab,
    service: Service,
    name: str,
    authentication: dict[str, Any] | None,
    presented: dict[str, Any] | None,
    options: dict[str, Any],
    reason: str,
) -> None:
    if authentication is not None:
        service.create(name, authentication)
    certificate = None if presented is None else credential(lab, **{"common_name": name, **presented})
    assert connack(lab, name, certificate, **options) == REFUSED
    [(code, logged)] = reasons(lab, name)
    assert code == REFUSED
    assert reason in logged


def test_a_refused_connect_does_not_disturb_the_device_that_is_connected(lab: Lab, service: Service) -> None:
    service.create("steady")
    with Device(lab, "steady", credential(lab, "steady")) as device:
        assert device.connect() == ACCEPTED
        assert connack(lab, "steady", credential(lab, "mallory")) == REFUSED
        assert not device.closed(within=0.3)


def test_a_newcomer_evicts_the_older_connection(lab: Lab, service: Service) -> None:
    service.create("twice")
    certificate = credential(lab, "twice")
    with Device(lab, "twice", certificate) as older, Device(lab, "twice", certificate) as newer:
        assert older.connect() == ACCEPTED
        assert newer.connect() == ACCEPTED
        assert older.closed()
        assert not newer.closed(within=0.3)


@pytest.mark.parametrize("how", ["disabled", "deleted"])
def test_a_connected_device_is_thrown_out_at_once(lab: Lab, service: Service, how: str) -> None:
    service.create(how)
    with Device(lab, how, credential(lab, how)) as device:
        assert device.connect() == ACCEPTED
        connected = service.get(how)
        assert connected["connectionState"] == "Connected"
        if how == "disabled":
            service.change(how, status="disabled")
        else:
            service.call("DELETE", f"/devices/{how}", if_match="*")
        assert device.closed(within=0.5)
    ended = [entry["reason"] for entry in lab.get("hub", "/lab/connections")["ended"] if entry["deviceId"] == how]
    assert ended == [f"the device was {how}"]
