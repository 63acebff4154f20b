"""Years of renewals in a real token: what is left is the live key and the one before it.

``ROUNDS`` says how many; ``make test-token`` plays 1,000.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gatewayd.core.inventory import GRACE, Role, key_label
from gatewayd.core.model import CredentialState, KeyAlgorithm
from gatewayd.errors import IssuerRejected, IssuerUnreachable
from gatewayd.keys.token import Pkcs11KeyStore
from tests.support.plant import GATEWAY, Plant, Someone
from tests.support.softhsm import SoftHsm

ROUNDS = int(os.environ.get("ROUNDS", "20"))


async def renew(plant: Plant) -> None:
    work = await plant.operations.renew(Someone(), GATEWAY, "")
    with suppress(IssuerRejected, IssuerUnreachable):
        await work(lambda step, state, detail="": None)


async def test_rounds_leave_the_live_and_the_previous_key(
    keys: Pkcs11KeyStore, softhsm: SoftHsm, tmp_path: Path
) -> None:
    """One renewal in five is refused by the CA, one in seven gets no answer, and one in ten is followed by a crash."""
    foreign = await keys.generate(b"somebody's", "not of gatewayd", KeyAlgorithm.EC_P256)
    async with Plant(tmp_path / "state", keys=keys) as plant:
        await plant.bootstrap()
        for number in range(1, ROUNDS + 1):
            plant.clock.advance(hours=6)
            await plant.settle()
            plant.clock.advance(minutes=1)
            if number % 5 == 0:
                plant.faults("issuer").fail("renew", IssuerRejected("Not this one."))
            elif number % 7 == 0:
                plant.faults("issuer").fail("renew", IssuerUnreachable("No answer."), after=number % 2 == 0)
            await renew(plant)
            if number % 10 == 0:
                await plant.restart()
            await plant.inventory.collect()
        plant.clock.advance(seconds=GRACE.total_seconds())
        await plant.inventory.collect()

        records = await plant.credentials()
        kept = [each for each in records if each.state in (CredentialState.CURRENT, CredentialState.PREVIOUS)]
        ((token,), missing) = await plant.inventory.list()
        private = [(item, claim) for item, claim in token.objects if item.kind == "private-key"]
        assert {item.label for item, claim in private if claim.role is not Role.FOREIGN} == {
            key_label(GATEWAY, each.generation) for each in kept
        }
        assert sorted(claim.role for _, claim in private) == [Role.FOREIGN, Role.LIVE, Role.PREVIOUS]
        assert len(token.objects) == 6  # a public half for each
        assert missing == {}
        assert len(records) > ROUNDS
    assert await keys.find(foreign) is not None
    assert softhsm.tool("--list-objects", "--type", "privkey", login=True).count("Private Key Object") == 3
