"""The two private methods of azure-iot-device that upstream/sdk.py wraps."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device.common.http_transport import HTTPTransport
from azure.iot.device.common.models.x509 import X509
from azure.iot.device.common.mqtt_transport import MQTTTransport

import gatewayd.upstream.sdk  # noqa: F401 - wraps them


@pytest.mark.parametrize(
    ("transport", "expected"),
    [
        (MQTTTransport, "f2276affa26aafa0b6e745ceb2697aee628e6ae82e5662420c9e1f9aa590f4da"),
        (HTTPTransport, "5a5a4a44434f17cf37db21458e1b7b619560809cac7a205addc3b9083b5f981f"),
    ],
)
def test_the_wrapped_methods_are_the_ones_that_were_read(transport: Any, expected: str) -> None:
    """When this fails, read the new source: does it still skip load_cert_chain for ``_x509_cert = None``, and return
    the context? Then sdk.py is right and the hash may change."""
    original = inspect.unwrap(transport._create_ssl_context)
    assert original is not transport._create_ssl_context, "not wrapped"
    assert hashlib.sha256(inspect.getsource(original).encode()).hexdigest() == expected


def test_a_client_with_files_is_built_as_ever(tmp_path: Path) -> None:
    files = X509(str(tmp_path / "missing.pem"), str(tmp_path / "missing.key"))
    with pytest.raises(FileNotFoundError):
        MQTTTransport("id", "host.example", "user", x509_cert=files)
