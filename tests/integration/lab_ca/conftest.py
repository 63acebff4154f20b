from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.lab import Lab

from .client import MANAGEMENT, OWNER, Ezca, rsa_key


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One EZCA and one Entra for all the tests here; each test uses device names of its own."""
    with Lab(tmp_path_factory.mktemp("ca") / "lab") as lab:
        lab.start("entra")
        lab.start("ezca", "--page-size", "3")
        yield lab


@pytest.fixture(scope="package")
def owner_token(running: Lab) -> str:
    return running.token(MANAGEMENT, OWNER)


@pytest.fixture(scope="package")
def key() -> rsa.RSAPrivateKey:
    """RSA keys are slow to make; where a test needs just any, it takes this one."""
    return rsa_key()


@pytest.fixture
async def ezca(running: Lab, owner_token: str) -> AsyncIterator[Ezca]:
    connector = aiohttp.TCPConnector(ssl=running.tls)
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Ezca(running, session, owner_token)
