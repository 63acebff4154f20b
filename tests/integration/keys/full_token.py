"""A child process of test_full_token.py, in a mount namespace of its own: its token's keys lie on a disk of 400 KB.

``python -m tests.integration.keys.full_token MODULE URI DIRECTORY``; the PIN on standard input. Prints what happened.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.errors import TokenError
from gatewayd.keys.pin import Pin
from gatewayd.keys.token import Pkcs11KeyStore

ECDSA = ec.ECDSA(hashes.SHA256())


def move_to_a_small_disk(directory: Path) -> None:
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k,mode=0700", "tmpfs", directory], check=True)
    shutil.copytree(aside, directory, dirs_exist_ok=True)


async def fill(module: Path, uri: str, directory: Path, pin: Pin) -> dict[str, Any]:
    keys = Pkcs11KeyStore(module, uri, pin)
    live = await keys.generate(b"live", "live", KeyAlgorithm.EC_P256)
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(100_000))
    error = await until_refused(keys)
    report = {"error": error.name(), "message": error.message, "state": keys.status().state}
    key = keys.private_key(KeyRef(b"live", KeyAlgorithm.EC_P256), live)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key.public_key().verify(key.sign(b"data", ECDSA), b"data", ECDSA)
    ballast.unlink()
    await keys.generate(b"another", "another", KeyAlgorithm.EC_P256)
    await keys.close()
    return report


async def until_refused(keys: Pkcs11KeyStore) -> TokenError:
    for number in itertools.count():
        try:
            await keys.generate(f"key {number}".encode(), "more", KeyAlgorithm.EC_P256)
        except TokenError as error:
            return error
    raise AssertionError


def main() -> None:
    module, uri, directory = sys.argv[1:]
    move_to_a_small_disk(Path(directory))
    print(json.dumps(asyncio.run(fill(Path(module), uri, Path(directory), Pin(sys.stdin.read().strip())))))


if __name__ == "__main__":
    main()
