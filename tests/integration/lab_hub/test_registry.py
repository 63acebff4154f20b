"""The registry as a service calls it: full replace, etags, error names, authorization."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from tests.support.lab import Lab

from .clients import BY_CA, Answer, Device, Service, credential, pinned, sas


def put(service: Service, device_id: str, if_match: str | None = None, **fields: Any) -> Answer:
    return service.call("PUT", f"/devices/{device_id}", {"deviceId": device_id, **fields}, if_match=if_match)


def test_put_creates_once_and_updates_only_with_a_current_etag(service: Service) -> None:
    assert put(service, "etag", '"*"').error == "DeviceNotFound"
    created = put(service, "etag", authentication=BY_CA)
    etag = created.body["etag"]
    assert created.headers["etag"] == f'"{etag}"'

    again = put(service, "etag")
    assert (again.status, again.error) == (409, "DeviceAlreadyExists")
    stale = put(service, "etag", '"AAAA"', authentication=BY_CA)
    assert (stale.status, stale.error) == (412, "PreconditionFailed")
    assert stale.body["Message"].startswith("ErrorCode:PreconditionFailed;")

    for if_match in (f'"{etag}"', None, "*", '"*"'):
        current = service.get("etag")["etag"]
        answer = put(service, "etag", if_match or current, authentication=BY_CA, status="disabled")
        assert answer.status == 200
        assert answer.body["etag"] != current


def test_a_put_that_leaves_authentication_out_turns_the_device_into_one_with_keys(service: Service) -> None:
    service.create("careless", status="disabled")
    answer = put(service, "careless", "*")
    authentication = answer.body["authentication"]
    assert authentication["type"] == "sas"
    assert authentication["symmetricKey"]["primaryKey"]
    assert answer.body["status"] == "enabled", "what is left out falls back to its default"


def test_delete_needs_if_match(service: Service) -> None:
    etag = service.create("gone")["etag"]
    assert service.call("DELETE", "/devices/gone").status == 400
    assert service.call("DELETE", "/devices/gone", if_match="nonsense").error == "PreconditionFailed"
    assert service.call("DELETE", "/devices/gone", if_match=etag).status == 204
    assert service.call("DELETE", "/devices/gone", if_match="*").error == "DeviceNotFound"
    missing = service.call("GET", "/devices/gone")
    assert (missing.status, missing.error) == (404, "DeviceNotFound")


@pytest.mark.parametrize(
    "fields",
    [
        {"authentication": pinned("12:34")},
        {"authentication": pinned("a" * 41)},
        {"authentication": {"type": "selfSigned"}},
        {"authentication": {"type": "password"}},
        {"statusReason": "x" * 129},
        {"status": "paused"},
        {"deviceId": "somebody-else"},
    ],
)
def test_a_document_the_hub_cannot_accept_changes_nothing(service: Service, fields: dict[str, Any]) -> None:
    answer = put(service, "wrong", **fields)
    assert (answer.status, answer.error) == (400, "ArgumentInvalid")
    assert service.call("GET", "/devices/wrong").status == 404


def test_an_etag_moves_on_identity_writes_and_not_on_connects(lab: Lab, service: Service) -> None:
    created = service.create("moves")
    with Device(lab, "moves", credential(lab, "moves")) as device:
        assert device.connect() == 0
        connected = service.get("moves")
    assert connected["connectionState"] == "Connected"
    assert connected["connectionStateUpdatedTime"] > created["connectionStateUpdatedTime"]
    assert connected["etag"] == created["etag"]
    disabled = service.change("moves", status="disabled", statusReason="keyCompromise")
    assert disabled["generationId"] == created["generationId"]
    assert disabled["statusReason"] == "keyCompromise"
    assert datetime.fromisoformat(disabled["statusUpdatedTime"]) > datetime.now(UTC) - timedelta(minutes=1)


def test_a_leaf_carries_its_gateways_scope(service: Service) -> None:
    gateway = service.create("gw", capabilities={"iotEdge": True})
    leaf = service.create("leaf", deviceScope=gateway["deviceScope"])
    assert gateway["deviceScope"].startswith("ms-azure-iot-edge://gw-")
    assert leaf["parentScopes"] == [gateway["deviceScope"]]


def test_bulk_does_what_it_can_and_names_what_it_could_not(service: Service) -> None:
    etag = service.create("b1")["etag"]
    items = [
        {"id": "b1", "importMode": "updateIfMatchETag", "eTag": etag, "status": "disabled", "authentication": BY_CA},
        {"id": "b2", "importMode": "create", "authentication": BY_CA, "tags": {"line": 1}},
        {"id": "b3", "importMode": "delete"},
    ]
    answer = service.call("POST", "/devices", items)
    assert answer.status == 400
    [error] = answer.body["errors"]
    assert (error["deviceId"], error["errorCode"]) == ("b3", "DeviceNotFound")
    assert service.get("b1")["status"] == "disabled"
    assert service.call("GET", "/twins/b2").body["tags"] == {"line": 1}

    assert service.call("POST", "/devices", [{"id": "b2", "importMode": "delete"}]).body["isSuccessful"] is True
    too_many = service.call("POST", "/devices", [{"id": f"n{i}", "importMode": "create"} for i in range(101)])
    assert (too_many.status, too_many.error) == (413, "TooManyDevices")


def test_a_query_lags_behind_so_it_proves_nothing(service: Service) -> None:
    def listed() -> list[str]:
        found: list[str] = []
        headers = {"x-ms-max-item-count": "3"}
        while True:
            answer = service.call("POST", "/devices/query", {"query": "SELECT * FROM devices"}, headers=headers)
            assert len(answer.body) <= 3
            found += [twin["deviceId"] for twin in answer.body]
            if "x-ms-continuation" not in answer.headers:
                return found
            headers["x-ms-continuation"] = answer.headers["x-ms-continuation"]

    for number in range(4):
        service.create(f"query-{number}")
    assert not [device_id for device_id in listed() if device_id.startswith("query-")]
    time.sleep(1.5)
    service.call("DELETE", "/devices/query-3", if_match="*")
    assert [device_id for device_id in listed() if device_id.startswith("query-")] == [
        "query-0",
        "query-1",
        "query-2",
        "query-3",
    ]


def test_a_disabled_devices_twin_and_methods_are_not_found(service: Service) -> None:
    service.create("dark", status="disabled")
    twin = service.call("GET", "/twins/dark")
    assert (twin.status, twin.error, twin.body["errorCode"]) == (404, "DeviceNotFound", 404001)
    assert service.call("POST", "/twins/dark/methods", {"methodName": "x"}).error == "DeviceNotFound"


def test_a_method_on_a_device_that_is_offline_fails_with_the_nested_body(service: Service) -> None:
    service.create("offline")
    answer = service.call("POST", "/twins/offline/methods", {"methodName": "x"})
    assert (answer.status, answer.error) == (404, "DeviceNotOnline")
    assert json.loads(answer.body["Message"])["errorCode"] == 404103


def test_twins_merge_replace_and_keep_etags(service: Service) -> None:
    service.create("twin")
    first = service.call("PATCH", "/twins/twin", {"tags": {"a": {"x": 1, "y": 2}}, "properties": {"desired": {"p": 1}}})
    merged = service.call("PATCH", "/twins/twin", {"tags": {"a": {"x": None}}}, if_match=first.headers["etag"])
    assert merged.body["tags"] == {"a": {"y": 2}}
    assert merged.body["properties"]["desired"]["p"] == 1
    assert service.call("PATCH", "/twins/twin", {}, if_match=first.headers["etag"]).error == "PreconditionFailed"
    replaced = service.call("PUT", "/twins/twin", {"properties": {"desired": {"q": 2}}})
    assert replaced.body["tags"] == {}
    assert "p" not in replaced.body["properties"]["desired"]


def entra(lab: Lab, **claims: Any) -> str:
    now = int(time.time())
    standard = {"aud": "https://iothubs.azure.net", "oid": "app-1", "nbf": now - 5, "iat": now, "exp": now + 60}
    key = (lab.directory / "entra-signing-key.pem").read_text()
    return "Bearer " + jwt.encode({**standard, **claims}, key, algorithm="RS256")


def test_entra_tokens_for_the_hub_are_taken(lab: Lab, service: Service) -> None:
    assert service.call("GET", "/devices/absent", authorization=entra(lab)).status == 404


@pytest.mark.parametrize(
    "claims",
    [{"aud": "https://management.core.windows.net"}, {"exp": int(time.time()) - 120}, {"oid": None}],
    ids=["for another service", "expired", "of nobody"],
)
def test_other_entra_tokens_are_refused(lab: Lab, service: Service, claims: dict[str, Any]) -> None:
    assert service.call("GET", "/devices/absent", authorization=entra(lab, **claims)).status == 401


def test_signatures_are_checked(lab: Lab, service: Service) -> None:
    def status(authorization: str) -> int:
        return service.call("GET", "/devices/absent", authorization=authorization).status

    good = sas(lab.address, service.key)
    assert status(good) == 404
    assert status(sas(lab.address, service.key, lasts=-1)) == 401
    assert status(sas(lab.address, service.key, policy="device")) == 401
    assert status(sas("other.azure-devices.net", service.key)) == 401
    assert status(sas(lab.address, "QUJD")) == 401
    assert status("Basic QUJD") == 401
    assert service.key not in lab.log("hub").read_text()


def test_only_the_known_api_version_is_served(service: Service) -> None:
    assert service.call("GET", "/devices/absent", version="2031-01-01").error == "InvalidProtocolVersion"
