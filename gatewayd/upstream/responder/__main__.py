"""``python -m gatewayd.upstream.responder``: the responder on whatever can write lines.

Each line of stdin is one message as message routing hands it on, with ``systemProperties`` and ``body``; each line of
stdout is what became of one. It ends with its input. The token for the hub comes through a file descriptor and is not
renewed: this is for trials. In the cloud, the Azure Functions app does the same with a managed identity.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import GatewayError
from ...pki import pem
from ..registry import HubRegistry
from .recheck import CrlRecheck
from .service import Message, Outcome, Responder
from .twins import HubTwins

_SCOPE: Final = "https://iothubs.azure.net/.default"
_LINE_LIMIT: Final = 1024 * 1024
_BATCH: Final = 100
_ATTEMPTS: Final = 5
"""After that it is the gateway that asks again."""


class _Token:
    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self, scope: str) -> str:
        return self._token


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gatewayd.upstream.responder",
        description="Acts on what gateways report, one JSON message a line on stdin, and answers them.",
    )
    parser.add_argument("--hub", required=True, metavar="HOST", help="<hub>.azure-devices.net, or an https URL")
    parser.add_argument("--token-fd", required=True, type=int, metavar="N", help="read the hub's bearer token from it")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="PEM anchors for the hub (default: the system's)")
    parser.add_argument("--crl", metavar="URL", help="also believe what this list of the CA's bears out; needs --ca")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="PEM of the CA certificates that sign devices' ones")
    options = parser.parse_args(argv)
    if (options.crl is None) != (options.ca is None):
        parser.error("--crl and --ca go together")
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s")
    with os.fdopen(options.token_fd) as source:
        token = _Token(source.read().strip())
    try:
        tls = ssl.create_default_context(cafile=options.trust)
        recheck = CrlRecheck(options.crl, pem.bundle(options.ca), tls) if options.crl else None
    except (OSError, ssl.SSLError, GatewayError) as error:
        print(f"--trust or --ca: {error}", file=sys.stderr)  # noqa: T201
        return 78
    asyncio.run(_serve(options.hub, token, tls, recheck))
    return 0


@dataclass(frozen=True, slots=True)
class _Heard:
    message: Message
    attempts: int = 0
    """How often it was not seen to, because the hub failed."""


async def _serve(hub: str, token: _Token, tls: ssl.SSLContext, recheck: CrlRecheck | None) -> None:
    registry, twins = HubRegistry(hub, token, _SCOPE, tls), HubTwins(hub, token, _SCOPE, tls)
    responder = Responder(registry, twins, recheck)
    heard: asyncio.Queue[_Heard | None] = asyncio.Queue(_BATCH)
    tasks = {asyncio.create_task(_read(heard))}
    try:
        while batch := await _gathered(heard):
            for each, outcome in zip(batch, await responder.handle(each.message for each in batch), strict=True):
                print(json.dumps(_shown(outcome)), flush=True)  # noqa: T201
                if outcome.error is not None and each.attempts < _ATTEMPTS:
                    again = asyncio.create_task(_hear_again(heard, _Heard(each.message, each.attempts + 1)))
                    tasks.add(again)
                    again.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await registry.close()
        await twins.close()
        if recheck is not None:
            recheck.close()


async def _read(heard: asyncio.Queue[_Heard | None]) -> None:
    """Each line's message; None when there are no more."""
    reader = asyncio.StreamReader(_LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while not reader.at_eof():
        try:
            message = _message(await reader.readline())
        except ValueError:  # longer than any message can be; the reader has dropped it
            continue
        if message is not None:
            await heard.put(_Heard(message))
    await heard.put(None)


async def _hear_again(heard: asyncio.Queue[_Heard | None], each: _Heard) -> None:
    await asyncio.sleep(2.0 ** (each.attempts - 1))
    await heard.put(each)


async def _gathered(heard: asyncio.Queue[_Heard | None]) -> list[_Heard]:
    """Wait for a message, and take those that have come with it; nothing at the end."""
    batch: list[_Heard] = []
    while (each := await heard.get()) is not None:
        batch.append(each)
        if heard.empty() or len(batch) == _BATCH:
            return batch
    heard.put_nowait(None)  # for the next call
    return batch


def _message(line: bytes) -> Message | None:
    if not line.strip():
        return None
    try:
        document = json.loads(line)
        return Message(dict(document["systemProperties"]), document["body"])
    except (ValueError, KeyError, TypeError, RecursionError):
        logging.getLogger("gatewayd").warning("a line that is no message: %.100r", line)
        return None


def _shown(outcome: Outcome) -> dict[str, Any]:
    request, answer = outcome.request, outcome.answer
    return {
        "speaker": request.speaker if request else None,
        "kind": request.kind if request else None,
        "deviceId": request.device_id if request else None,
        "act": outcome.verdict.act,
        "detail": outcome.verdict.detail,
        "status": answer.status if answer else None,
        "error": str(outcome.error) if outcome.error else None,
    }


if __name__ == "__main__":
    sys.exit(main())
