"""The registrar's certificate: the next one is made in time, and used once Entra takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from gatewayd.errors import GatewayError, IssuerUnreachable, RegistrarRefused
from gatewayd.pki import pem
from gatewayd.services.registrar import LIFETIME, RENEWED_BEFORE, Registrar
from tests.support.plant import GATEWAY, Plant, Someone


@dataclass
class Entra:
    """Knows the certificates that a person has uploaded."""

    known: set[x509.Certificate]
    asked: list[x509.Certificate]
    away: bool = False

    def tokens(self, key: object, certificate: x509.Certificate) -> Tokens:
        return Tokens(self, certificate)


@dataclass
class Tokens:
    entra: Entra
    certificate: x509.Certificate

    async def token(self, scope: str) -> str:
        self.entra.asked.append(self.certificate)
        if self.entra.away:
            raise IssuerUnreachable("away")
        if self.certificate not in self.entra.known:
            raise RegistrarRefused("AADSTS700027")
        return f"{scope} for {self.certificate.serial_number}"


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        yield plant


def registrar(plant: Plant, entra: Entra) -> Registrar:
    made = Registrar(store=plant.store, clock=plant.clock, keys=plant.keys, device_id=GATEWAY, make_tokens=entra.tokens)
    plant.registrar = plant.operations._registrar = made
    return made


async def waits(plant: Plant) -> list[str]:
    status: dict[str, Any] = await plant.operations.status()
    return [each["remedy"] for each in status["waiting"] if each["error"] == "RegistrarCertificateEnds"]


async def upload(plant: Plant, entra: Entra) -> x509.Certificate:
    certificate = pem.certificate(await plant.operations.registrar_certificate(Someone()))
    entra.known.add(certificate)
    return certificate


async def test_the_next_certificate_waits_for_a_person_and_the_present_one_is_used_until_it_works(plant: Plant) -> None:
    entra = Entra(set(), [])
    one = registrar(plant, entra)
    first = await upload(plant, entra)
    plant.clock.advance(days=(LIFETIME - RENEWED_BEFORE).days - 1)
    await one.token("scope")
    assert await waits(plant) == []
    plant.clock.advance(days=2)
    assert await one.token("scope") == f"scope for {first.serial_number}"
    (remedy,) = await waits(plant)
    assert "gatewayctl registrar certificate" in remedy
    asked = len(entra.asked)
    await one.token("scope")
    assert entra.asked[asked:] == [first]  # the next one is tried now and then only
    await plant.restart()
    one = registrar(plant, entra)
    assert len(await waits(plant)) == 1
    second = await upload(plant, entra)
    assert second != first
    assert second.public_key() == first.public_key()
    assert await one.token("scope") == f"scope for {second.serial_number}"
    assert await waits(plant) == []
    assert await one.certificate() == second
    await plant.restart()
    one = registrar(plant, entra)
    assert await one.certificate() == second
    assert pem.certificate(await plant.operations.registrar_certificate(Someone())) == second


async def test_a_next_one_that_nobody_uploads_takes_over_at_the_end(plant: Plant) -> None:
    entra = Entra(set(), [])
    one = registrar(plant, entra)
    await upload(plant, entra)
    plant.clock.advance(days=LIFETIME.days - 1)
    await one.token("scope")
    following = await one.to_upload()
    plant.clock.advance(days=2)
    with pytest.raises(RegistrarRefused):
        await one.token("scope")
    assert await one.certificate() == following
    entra.known.add(following)
    assert await one.token("scope") == f"scope for {following.serial_number}"


async def test_entra_away_costs_nothing_but_the_moment(plant: Plant) -> None:
    entra = Entra(set(), [])
    one = registrar(plant, entra)
    first = await upload(plant, entra)
    plant.clock.advance(days=LIFETIME.days - 10)
    await one.token("scope")
    second = await upload(plant, entra)
    entra.away = True
    with pytest.raises(GatewayError):
        await one.token("scope")
    assert await one.certificate() == first
    entra.away = False
    assert await one.token("scope") == f"scope for {first.serial_number}"
    plant.clock.advance(hours=1)
    assert await one.token("scope") == f"scope for {second.serial_number}"


def test_a_person_has_time() -> None:
    assert timedelta(days=30) <= RENEWED_BEFORE < LIFETIME / 2
