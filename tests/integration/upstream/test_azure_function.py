"""The Functions app as it is shipped: put together by its own script, run without any of the daemon's libraries.

Azure's two packages are played here (azure-functions is not for Python 3.13): the trigger's decorator, and a managed
identity. What they look like is pinned by requirements.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.lab import Lab

ROOT = Path(__file__).parents[3]

_AZURE = """
import os, sys, types

class FunctionApp:
    def function_name(self, name): return lambda function: function
    def event_hub_message_trigger(self, **options):
        assert options["cardinality"] == "many"
        return lambda function: function
    def retry(self, **options): return lambda function: function

class EventHubEvent:
    def __init__(self, body, metadata): self._body, self.iothub_metadata = body, metadata
    def get_body(self): return self._body

class ManagedIdentityCredential:
    async def get_token(self, scope):
        assert scope == "https://iothubs.azure.net/.default"
        return types.SimpleNamespace(token=self.kept)

def module(name, **values):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(values)

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pkcs11", "gi", "pydbus", "msal", "jwt", "click", "rich", "paho"):
            raise ImportError(f"{name} is not there in the cloud")

sys.meta_path.insert(0, Absent())
module("azure"), module("azure.identity")
module("azure.functions", FunctionApp=FunctionApp, EventHubEvent=EventHubEvent)
sys.modules["azure"].functions = sys.modules["azure.functions"]
module("azure.identity.aio", ManagedIdentityCredential=ManagedIdentityCredential)
"""
_RUN = """
import asyncio, json
token, *events = json.loads(sys.stdin.readline())
ManagedIdentityCredential.kept = token
import function_app, gatewayd
assert gatewayd.__file__.startswith(sys.argv[1]), gatewayd.__file__
asyncio.run(function_app.respond([EventHubEvent(json.dumps(body).encode(), stamp) for stamp, body in events]))
"""


def make(lab: Lab, device_id: str, **more: object) -> dict[str, object]:
    identity = {"deviceId": device_id, "authentication": {"type": "certificateAuthority"}, **more}
    made: dict[str, object] = lab.hub("PUT", f"/devices/{device_id}", identity)
    return made


def test_the_app_disables_what_a_gateway_reports(lab: Lab, bearer: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    subprocess.run([ROOT / "packaging/azure-function/build", app], check=True, capture_output=True)
    gateway = make(lab, "gw-fn", capabilities={"iotEdge": True})
    make(lab, "leaf-fn", deviceScope=gateway["deviceScope"])
    stamp = {
        "connection-device-id": "gw-fn",
        "connection-auth-generation-id": gateway["generationId"],
        "connection-auth-method": '{"scope": "device", "type": "x509Certificate"}',
    }
    report = {"type": "revocation", "deviceId": "leaf-fn", "serial": "1a"}
    forged = {"type": "revocation", "deviceId": "gw-fn", "serial": "1a"}
    events = [[stamp, report], [{**stamp, "connection-device-id": "leaf-fn"}, forged], [{}, forged]]
    subprocess.run(
        [sys.executable, "-c", _AZURE + _RUN, str(app)],
        cwd=app,
        env={**os.environ, "PYTHONPATH": str(app), "IOT_HUB": lab.url("hub"), "SSL_CERT_FILE": str(lab.web_root)},
        input=json.dumps([bearer, *events]) + "\n",
        text=True,
        check=True,
        timeout=30,
    )
    status = {name: lab.hub("GET", f"/devices/{name}")["status"] for name in ("gw-fn", "leaf-fn")}
    assert status == {"gw-fn": "enabled", "leaf-fn": "disabled"}
