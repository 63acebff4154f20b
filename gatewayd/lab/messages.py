"""``messages``: print the hub's D2C messages as they come, one JSON line each, as a consumer of message routing would.

From the oldest on at each start: routing delivers at least once, and whoever reads must bear it.
"""

from __future__ import annotations

import argparse
import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

_WAIT = 10
"""Seconds that the hub holds a request when there is nothing new."""
_AGAIN = 0.2


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gatewayd.lab messages", description="Follow the hub's messages.")
    parser.add_argument("--dir", type=Path, required=True, help="the lab's directory, made by 'init'")
    parser.add_argument("--hub", required=True, help="URL of the hub stand-in")
    options = parser.parse_args(argv)
    tls = ssl.create_default_context(cafile=options.dir / "web-root.pem")
    after = 0
    while True:
        url = f"{options.hub}/lab/messages?after={after}&wait={_WAIT}"
        try:
            with urllib.request.urlopen(url, timeout=2 * _WAIT, context=tls) as response:
                messages = json.load(response)
        except (OSError, ValueError, urllib.error.URLError):
            time.sleep(_AGAIN)
            continue
        for message in messages:
            after = message["sequence"]
            try:
                print(json.dumps(message), flush=True)
            except BrokenPipeError:
                return 0
