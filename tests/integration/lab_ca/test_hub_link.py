"""EZCA's link to the hub: the device of a revoked certificate is disabled without anybody asking for it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from pathlib import Path
from urllib.parse import quote

import aiohttp

from tests.support.lab import Lab

from .client import MANAGEMENT, OWNER, Ezca, ec_key, sha1


def signature(lab: Lab) -> str:
    """A shared access signature of the hub's policy, for the test's own look at the registry."""
    key = base64.b64decode((lab.directory / "hub-key").read_text())
    expiry = int(time.time()) + 60
    resource = quote(lab.address, safe="")
    digest = hmac.digest(key, f"{resource}\n{expiry}".encode(), hashlib.sha256)
    sig = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={resource}&sig={sig}&se={expiry}&skn=iothubowner"


async def test_revoking_disables_the_device(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        hub = lab.start("hub")["url"]
        lab.start("ezca", "--hub-link", hub)
        connector = aiohttp.TCPConnector(ssl=lab.tls)
        async with aiohttp.ClientSession(connector=connector) as session:
            ezca = Ezca(lab, session, lab.token(MANAGEMENT, OWNER))
            certificate = await ezca.issued("linked-1", ec_key())
            url = f"{hub}/devices/linked-1?api-version=2021-04-12"
            headers = {"Authorization": signature(lab)}
            identity = {"deviceId": "linked-1", "authentication": {"type": "certificateAuthority"}}
            async with session.put(url, json=identity, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                created = await answer.json()
            assert created["status"] == "enabled"

            await ezca.ca("RevokeCertificateV2", {**ezca.ids, "Thumbprint": sha1(certificate)})

            for _ in range(100):
                async with session.get(url, headers=headers) as answer:
                    found = await answer.json()
                if found["status"] == "disabled":
                    break
                await asyncio.sleep(0.05)
            assert found["status"] == "disabled"
            assert found["generationId"] == created["generationId"], "changed, not made anew"
            assert found["authentication"]["type"] == "certificateAuthority"


async def test_a_hub_that_is_away_does_not_hold_up_the_revocation(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        lab.start("ezca", "--hub-link", f"https://{lab.address}:8443")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=lab.tls)) as session:
            ezca = Ezca(lab, session, lab.token(MANAGEMENT, OWNER))
            certificate = await ezca.issued("linked-2", ec_key())
            started = time.monotonic()
            answer = await ezca.ca("RevokeCertificateV2", {**ezca.ids, "Thumbprint": sha1(certificate)})
            assert answer["Success"] is True
            assert time.monotonic() - started < 1
        assert lab.stop("ezca") == 0
