"""The two private methods of azure-iot-device that upstream/sdk.py wraps."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import exceptions
from azure.iot.device.common.http_transport import HTTPTransport
from azure.iot.device.common.models.x509 import X509
from azure.iot.device.common.mqtt_transport import MQTTTransport
from paho.mqtt.client import connack_string

import gatewayd.upstream.sdk  # noqa: F401 - installs the wrappers
from gatewayd.errors import HubRefused, HubRejected, HubThrottled, HubUnreachable, Internal, TokenFault
from gatewayd.upstream.sdk_errors import translated


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


def caused(error: Exception, *causes: BaseException) -> Exception:
    for outer, inner in itertools.pairwise((error, *causes)):
        outer.__cause__ = inner
    return error


def twin_error(status: int) -> Exception:
    return caused(exceptions.ClientError(), exceptions.ServiceError(f"twin operation returned status {status}"))


SSL_ALERT = ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired")
SSL_ALERT.reason = "SSLV3_ALERT_CERTIFICATE_EXPIRED"


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (
            caused(exceptions.CredentialError(), RuntimeError(connack_string(5))),
            HubRefused,
            "The hub refuses the connection of gw-1 (CONNACK 5).",
        ),
        (
            caused(exceptions.ConnectionFailedError(), RuntimeError(), SSL_ALERT),
            HubRefused,
            "The hub refuses the certificate of gw-1 (TLS alert: certificate expired).",
        ),
        (
            caused(exceptions.ConnectionFailedError(), RuntimeError(connack_string(3))),
            HubUnreachable,
            "The hub of gw-1 cannot be reached: Connection Refused: broker unavailable.",
        ),
        (
            caused(exceptions.ConnectionFailedError(), socket.gaierror(-2, "Name or service not known")),
            HubUnreachable,
            "The hub of gw-1 cannot be reached: Name or service not known.",
        ),
        (exceptions.OperationCancelled(), HubUnreachable, "The hub connection of gw-1 was lost."),
        (twin_error(400), HubRejected, "The hub did not take the reported state of gw-1 (status 400)."),
        (twin_error(429), HubThrottled, "The hub did not take the reported state of gw-1 (status 429)."),
        (twin_error(500), HubUnreachable, "The hub did not take the reported state of gw-1 (status 500)."),
        (
            caused(exceptions.ClientError(), TokenFault("The token is away.")),
            TokenFault,
            "The token is away.",
        ),
        (KeyError("secret"), Internal, "The hub client of gw-1 failed with an unforeseen KeyError."),
    ],
)
def test_what_the_sdk_raises_in_our_words(error: Exception, expected: type[Exception], words: str) -> None:
    said = translated(error, "gw-1")
    assert type(said) is expected
    assert str(said) == words
