"""The daemon's side of an attestation: a process for each (attestation.py), in the token's turn and time limit."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors import TokenFault, TokenTimeout, all_errors
from .channel import ChannelClosed, read_json
from .pin import Pin
from .process import ChildProcess
from .token import Pkcs11KeyStore


class TpmAttester:
    """``keys.base.Attester`` for the TPM that a token of tpm2-pkcs11 is in."""

    def __init__(self, token: Pkcs11KeyStore) -> None:
        self._token = token

    async def attest(self, key_id: bytes, nonce: bytes) -> dict[str, bytes]:
        arguments = {"key_id": key_id.hex(), "nonce": nonce.hex()}
        files = await self._token.beside(partial(self._attest, arguments))
        return {name: bytes.fromhex(content) for name, content in files.items()}

    def _attest(self, arguments: dict[str, str], pin: Pin, deadline: float) -> dict[str, str]:
        label = self._token.status().label
        found: dict[str, str] = _ask("attest", {**arguments, "label": label, "pin": pin.reveal()}, deadline)
        return found

    async def activate(self, challenge: bytes) -> bytes:
        return await self._token.beside(
            lambda _, deadline: bytes.fromhex(_ask("activate", {"challenge": challenge.hex()}, deadline))
        )


def _ask(what: str, arguments: dict[str, str], deadline: float) -> Any:
    process = ChildProcess("attestation")
    try:
        process.channel.send_json([what, arguments])
        outcome, content = read_json(process.channel.receive(deadline)[1])
    except TimeoutError:
        process.kill()
        raise TokenTimeout("The TPM did not attest within the token's time limit.") from None
    except (ChannelClosed, ValueError, TypeError):
        raise TokenFault("The process that was to ask the TPM has ended without an answer.") from None
    finally:
        process.end()
    if outcome == "done":
        return content
    raise all_errors().get(content["error"], TokenFault)(content["message"])
