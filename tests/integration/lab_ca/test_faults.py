"""The faults that the EZCA stand-in can be told to have, and what it keeps over a restart."""

from __future__ import annotations

import asyncio
import json
import urllib.error
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.lab import Lab

from .client import MANAGEMENT, OWNER, Ezca, csr, ec_key

CALL = "RequestSSLCertificateV2"
PATH = f"/api/CA/{CALL}"


def fault(ezca: Ezca, mode: str, **more: object) -> None:
    ezca.lab.post("ezca", "/lab/faults", {"call": CALL, "mode": mode, **more})


def minted(ezca: Ezca, name: str) -> int:
    return sum(each["common_name"] == name for each in ezca.lab.get("ezca", "/lab/certificates"))


@pytest.mark.parametrize(
    ("mode", "status", "issued"),
    [
        ("503-before", 503, 0),
        ("503-after-issuing", 503, 1),
        ("500", 500, 0),
        ("401", 401, 0),
        ("429", 429, 0),
    ],
)
async def test_a_status_comes_before_or_after_the_work_and_only_once(
    ezca: Ezca, mode: str, status: int, issued: int
) -> None:
    name = f"fault-{mode}"
    await ezca.ca("RegisterNewDomain", ezca.registration(name))
    order = ezca.order(name, ec_key())
    fault(ezca, mode)
    assert (await ezca.call("POST", PATH, order))[0] == status
    assert minted(ezca, name) == issued
    assert (await ezca.call("POST", PATH, order))[0] == 200
    assert minted(ezca, name) == issued + 1


async def test_answers_in_every_form(ezca: Ezca) -> None:
    await ezca.ca("RegisterNewDomain", ezca.registration("forms"))
    order = ezca.order("forms", ec_key())

    fault(ezca, "wrapped-failure", message="the CA is asleep")
    assert await ezca.ca(CALL, order) == {"Success": False, "Message": "the CA is asleep"}
    fault(ezca, "error-text", message="no capacity")
    assert await ezca.call("POST", PATH, order) == (200, "Error: no capacity")
    assert minted(ezca, "forms") == 0

    fault(ezca, "double-encoded")
    inner = await ezca.ca(CALL, order)
    assert isinstance(inner, str)
    assert "CertificatePEM" in json.loads(inner)
    fault(ezca, "no-root")
    answer = await ezca.ca(CALL, order)
    assert answer["RootCertificate"] == ""
    assert answer["IssuingCACertificate"]


@pytest.mark.parametrize(("mode", "issued"), [("timeout", 0), ("timeout-after-issuing", 1)])
async def test_no_answer(ezca: Ezca, mode: str, issued: int) -> None:
    await ezca.ca("RegisterNewDomain", ezca.registration(mode))
    fault(ezca, mode)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(ezca.call("POST", PATH, ezca.order(mode, ec_key())), 0.5)
    assert minted(ezca, mode) == issued


@pytest.mark.parametrize(("mode", "issued"), [("reset", 0), ("reset-after-issuing", 1)])
async def test_connection_reset(ezca: Ezca, mode: str, issued: int) -> None:
    await ezca.ca("RegisterNewDomain", ezca.registration(mode))
    fault(ezca, mode)
    with pytest.raises(aiohttp.ClientConnectionError):
        await ezca.call("POST", PATH, ezca.order(mode, ec_key()))
    assert minted(ezca, mode) == issued


async def test_a_late_answer_has_its_work_done_already(ezca: Ezca) -> None:
    await ezca.ca("RegisterNewDomain", ezca.registration("late"))
    fault(ezca, "delay", seconds=0.6)
    started = asyncio.get_running_loop().time()
    asked = asyncio.ensure_future(ezca.call("POST", PATH, ezca.order("late", ec_key())))
    await asyncio.sleep(0.3)
    assert not asked.done()
    assert minted(ezca, "late") == 1
    assert (await asked)[0] == 200
    assert asyncio.get_running_loop().time() - started >= 0.6


@pytest.mark.parametrize("rule", [{"call": "NoSuchCall", "mode": "500"}, {"call": CALL, "mode": "explode"}])
def test_a_fault_that_does_not_exist_is_an_error(running: Lab, rule: dict[str, str]) -> None:
    with pytest.raises(urllib.error.HTTPError):
        running.post("ezca", "/lab/faults", rule)


async def test_the_log_counts_calls_and_names_the_caller(ezca: Ezca) -> None:
    before = len(ezca.lab.get("ezca", "/lab/log"))
    await ezca.ca("GetMyDomains")
    await ezca.call("GET", "/api/CA/GetMyDomains", token="not-a-token")
    seen = [(each["call"], each["caller"], each["status"]) for each in ezca.lab.get("ezca", "/lab/log")[before:]]
    assert seen == [("GetMyDomains", "registrar@example.test", 200), ("GetMyDomains", "", 401)]


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart_keeps_what_was_issued(tmp_path: Path, key: rsa.RSAPrivateKey, how: str) -> None:
    with Lab(tmp_path / "lab") as lab:
        lab.start("ezca")
        token = lab.token(MANAGEMENT, OWNER)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=lab.tls, force_close=True)) as session:
            ezca = Ezca(lab, session, token)
            certificate = await ezca.issued("kept", key)
            before = lab.get("ezca", "/lab/certificates")
            status = lab.stop("ezca") if how == "stop" else lab.kill("ezca")
            assert status == (0 if how == "stop" else -9)
            lab.start("ezca")
            assert lab.get("ezca", "/lab/certificates") == before
            assert not (await ezca.ca("RegisterNewDomain", ezca.registration("kept")))["Success"]
            answer = await ezca.renew("V3", certificate, key, csr(key, "kept", x509.DNSName("kept")))
            assert answer[0] == 200
