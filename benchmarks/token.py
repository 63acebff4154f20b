"""TLS handshakes a second with the server's key in a token, as a share of what the same server does with a key in a
file, and of what the token signs for a bare python-pkcs11 loop; on SoftHSM and on a TPM (swtpm), all in one run.

The server is the EST server's own listener in this process; four ``openssl s_time`` make new TLS 1.3 connections to it
as fast as they can, in what the server leaves of the processors (nice): they stand for machines elsewhere. Key and
certificate are EC P-256. The runs are short and take turns, each share is that of neighbouring runs, and every figure
is the median.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.keys import tls
from gatewayd.keys.pin import Pin
from gatewayd.keys.token import Pkcs11KeyStore
from gatewayd.lab.demo.tokens import SoftHsm, Token, Tpm
from gatewayd.leaf.http import HttpServer
from gatewayd.leaf.listener import Listener
from gatewayd.leaf.tls import ServerTls, server_context
from tests.support.authority import SERVER, Authority

from .figures import figure

_ROUNDS = 15
_SECONDS = 0.8
_CLIENTS = 4
_LABEL = "bench"
_PIN = "4711-bench"
_KEY = KeyRef(b"bench", KeyAlgorithm.EC_P256)

_RAW = """
import sys, time, pkcs11
module, label, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
token = pkcs11.lib(module).get_token(token_label=label)
with token.open(rw=True, user_pin=sys.stdin.readline().strip()) as session:
    key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, id=b"bench")
    key.sign(bytes(32), mechanism=pkcs11.Mechanism.ECDSA)
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        key.sign(bytes(32), mechanism=pkcs11.Mechanism.ECDSA)
        count += 1
print(count / took)
"""


@dataclass
class Rates:
    """Per second, one for each round."""

    raw: list[float] = field(default_factory=list)
    software: list[float] = field(default_factory=list)
    token: list[float] = field(default_factory=list)


class _Counting(ssl.SSLObject):
    """Knows how many handshakes have come to their end. (Connections are no measure: these clients go at once.)"""

    count = 0

    def do_handshake(self) -> None:
        super().do_handshake()
        _Counting.count += 1


async def _nothing(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


async def _handshakes(make_context: Callable[[], ssl.SSLContext]) -> float:
    """A second, by the server's count."""
    listener = Listener("est", HttpServer(_nothing), ServerTls(make_context), "127.0.0.1", 0)
    clients = [_client(listener.port) for _ in range(_CLIENTS)]
    try:
        await asyncio.sleep(0.4)
        before, began = _Counting.count, time.perf_counter()
        await asyncio.sleep(_SECONDS)
        return (_Counting.count - before) / (time.perf_counter() - began)
    finally:
        for client in clients:
            client.kill()
            client.wait()
        await asyncio.sleep(0.2)  # the last of them are accepted, and found to be gone
        await listener.close()
        await listener.drained()


def _client(port: int) -> subprocess.Popen[bytes]:
    command = ["nice", "openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-tls1_3", "-time", "60"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)


async def _compare(token: Token, place: Path) -> Rates:
    os.environ.update(token.start())
    module = Path(token.module)
    store = Pkcs11KeyStore(module, f"pkcs11:token={_LABEL}", None)
    await store.initialize(Pin(_PIN))
    public_key = await store.generate(_KEY.id, _LABEL, _KEY.algorithm)
    authority = Authority()
    certificate = authority.leaf(public_key, "gw-1", purposes=(SERVER,))
    key = store.private_key(_KEY, public_key)
    in_file = _in_file(authority, place)

    def with_token() -> ssl.SSLContext:
        context = _context(authority)
        tls.bind(context, certificate, authority.chain[:1], key)
        return context

    def with_file() -> ssl.SSLContext:
        context = _context(authority)
        context.load_cert_chain(in_file)
        return context

    rates = Rates()
    for _ in range(_ROUNDS):
        rates.software.append(await _handshakes(with_file))
        rates.token.append(await _handshakes(with_token))
        rates.raw.append(await asyncio.to_thread(_raw, module))
    await store.close()
    token.stop()
    return rates


def _context(authority: Authority) -> ssl.SSLContext:
    context = server_context([each.public_bytes(Encoding.DER) for each in authority.chain])
    context.sslobject_class = _Counting
    return context


def _in_file(authority: Authority, place: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    chain: list[x509.Certificate] = [authority.leaf(key.public_key(), "gw-1", purposes=(SERVER,)), authority.chain[0]]
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = place / "software.pem"
    file.write_bytes(pem)
    return file


def _raw(module: Path) -> float:
    """What the token signs for one caller who does nothing else, in a process of its own."""
    command = [sys.executable, "-c", _RAW, str(module), _LABEL, str(_SECONDS)]
    return float(subprocess.run(command, input=_PIN, text=True, capture_output=True, check=True).stdout)


def _print(name: str, rates: Rates, **targets: float) -> None:
    figure(f"{name}_signatures_raw", statistics.median(rates.raw), "1/s")
    figure(f"{name}_handshakes", statistics.median(rates.token), "1/s")
    figure(f"{name}_handshakes_software_key", statistics.median(rates.software), "1/s")
    figure(f"{name}_to_software_key", _share(rates.token, rates.software), at_least=targets.get("software"))
    figure(f"{name}_to_signatures_raw", _share(rates.token, rates.raw), at_least=targets.get("raw"))


def _share(these: list[float], those: list[float]) -> float:
    return statistics.median(this / that for this, that in zip(these, those, strict=True))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for name, token, targets in (
            ("softhsm", SoftHsm(place), {"software": 0.8}),
            ("swtpm", Tpm(place), {"raw": 0.9}),
        ):
            _print(name, asyncio.run(_compare(token, place)), **targets)


if __name__ == "__main__":
    main()
