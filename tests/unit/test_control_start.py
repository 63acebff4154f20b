"""gatewayctl starts fast because it loads little; the seconds are for the benchmark, this is why."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("gatewayd.control.cli", {"gi", "rich", "aiohttp", "cryptography", "azure", "pkcs11", "msal", "sqlite3"}),
        ("gatewayd.control.client", {"rich", "aiohttp", "cryptography", "azure", "pkcs11", "msal", "asyncio"}),
        ("gatewayd.control.render", {"aiohttp", "cryptography", "azure", "pkcs11", "msal", "asyncio"}),
    ],
)
def test_what_a_command_does_not_need_it_does_not_load(module: str, without: set[str]) -> None:
    program = f"import sys, {module}; print(*sorted({without!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == []
