"""``hub``: the IoT Hub stand-in. Registry REST over HTTPS, the device's side over MQTT, ``/lab/`` beside them."""

from __future__ import annotations


def main(argv: list[str]) -> int:
    from .server import main as serve

    return serve(argv)
