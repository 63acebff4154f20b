from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gatewayd.lab.demo.stage import PAGE_PORT, Stage
from tests.e2e.support import gateway
from tests.page.chromium import Chromium


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, help="a directory for screenshots, such as docs/page")


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with gateway(tmp_path_factory.mktemp("gateway") / "stage") as stage:
        yield stage


@pytest.fixture
def phone(stage: Stage, tmp_path: Path) -> Iterator[Chromium]:
    """It takes the one key for which the gateway has shown a certificate of the lab's CA, and no other."""
    pem = ssl.get_server_certificate((stage.address, PAGE_PORT), ca_certs=str(stage.lab.ca_root))
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with Chromium(tmp_path / "chromium", base64.b64encode(hashlib.sha256(spki).digest()).decode()) as phone:
        yield phone


@pytest.fixture
def picture(request: pytest.FixtureRequest, phone: Chromium) -> Callable[[str], None]:
    """Keep what the phone shows, where somebody has asked for it."""
    directory: Path | None = request.config.getoption("--pictures")

    def take(name: str) -> None:
        if directory is not None:
            (directory / f"{name}.png").write_bytes(phone.thumbnail())

    return take
