"""What Prometheus is told of a plant, and that the alerts ask for nothing else."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gatewayd.config import MetricsSettings
from gatewayd.core.model import JournalEntry
from gatewayd.errors import IssuerUnreachable, StoreBroken
from gatewayd.services.meters import Meters
from gatewayd.services.metrics import Metrics
from gatewayd.services.metrics_server import MetricsServer
from gatewayd.services.monitoring import Monitoring
from tests.support.fakes import START
from tests.support.plant import GATEWAY, Plant, request

REPOSITORY = Path(__file__).parents[2]
RULES = REPOSITORY / "packaging" / "prometheus"
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        yield plant


def metrics_of(plant: Plant, meters: Meters | None = None) -> Metrics:
    return Metrics(
        meters or Meters(GATEWAY),
        status=plant.reader,
        store=plant.store,
        clock=plant.clock,
        anchors=lambda: plant.anchors.known(),
        waiting=lambda: [("gateway-token", 3)],
    )


def read(text: bytes) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


async def test_a_plant_in_figures(plant: Plant) -> None:
    meters = Meters(GATEWAY)
    plant.events.listen(meters.happened)
    await plant.bootstrap()
    await plant.enrollments.enroll(request(await plant.add_leaf()))
    await plant.add_leaf("leaf-2")
    await plant.settle()
    meters.token_called("gateway", "sign", 0.02, False)
    meters.token_called("gateway", "open", 3.0, True)
    found = read(await metrics_of(plant, meters).exposition())
    live = await plant.store.read(lambda tx: tx.devices.overview(GATEWAY))
    assert live is not None
    assert live.live is not None
    assert live.live.not_after is not None
    mine = (("device_id", GATEWAY),)
    assert found["gatewayd_certificate_not_after_timestamp_seconds"] == {mine: live.live.not_after.timestamp()}
    assert found["gatewayd_certificates"][(("left", "more"),)] == 2
    assert found["gatewayd_devices"][(("state", "new"),)] == 1
    assert found["gatewayd_renewals_total"][(("kind", "leaf"), ("outcome", "done"))] == 1
    assert found["gatewayd_renewals_total"][(("kind", "gateway"), ("outcome", "done"))] == 1
    assert found["gatewayd_token_call_failures_total"] == {(("call", "open"), ("token", "gateway")): 1}
    assert found["gatewayd_token_call_seconds_count"][(("call", "sign"), ("token", "gateway"))] == 1
    assert found["gatewayd_queue_depth"][(("queue", "gateway-token"),)] == 3
    assert found["gatewayd_clock_sane"] == {(): 1}
    assert "gatewayd_revocations_open" not in found
    assert found["gatewayd_audit_records"][()] > 0
    assert not any("leaf-1" in str(labels) for samples in found.values() for labels in samples)


async def test_a_revocation_is_counted_by_what_it_lacks_and_since_when(plant: Plant) -> None:
    await plant.bootstrap()
    await plant.enrollments.enroll(request(await plant.add_leaf()))
    await plant.settle()
    plant.issuer.faults.fail("revoke", IssuerUnreachable("away"))
    known = plant.clock.now()
    await plant.revoke()
    await plant.settle()
    found = read(await metrics_of(plant).exposition())
    assert found["gatewayd_revocations_open"] == {(("missing", "revoked-at-ca"),): 1}
    oldest = found["gatewayd_revocations_open_oldest_timestamp_seconds"]
    assert oldest == {(("missing", "revoked-at-ca"),): pytest.approx(known.timestamp(), abs=2)}


async def test_what_is_left_of_lives_is_seen_before_they_end(plant: Plant) -> None:
    await plant.bootstrap()
    live = await plant.store.read(lambda tx: tx.devices.overview(GATEWAY))
    assert live is not None
    assert live.live is not None
    assert live.live.not_before is not None
    assert live.live.not_after is not None
    life = live.live.not_after - live.live.not_before
    seen = []
    for gone in (0.5, 0.7, 0.95, 1.01):
        plant.clock.time = live.live.not_before + gone * life
        samples = read(await metrics_of(plant).exposition())["gatewayd_certificates"]
        seen += [labels[0][1] for labels, count in samples.items() if count]
    assert seen == ["more", "under-a-third", "under-a-tenth", "expired"]


def test_failures_and_waits_are_outcomes_and_a_tampered_trail_is_a_fault() -> None:
    meters = Meters(GATEWAY)
    for device, what, outcome in (
        (GATEWAY, "request", "failed"),
        ("leaf-1", "accept", "waiting"),
        ("leaf-1", "accept", "done"),  # a step of one that comes into use with its switch
        ("leaf-1", "revocation", "done"),
        (GATEWAY, "audit", "failed"),
    ):
        meters.happened(JournalEntry(START, device, "gatewayd", what, outcome))
    value = meters.registry.get_sample_value
    assert value("gatewayd_renewals_total", {"kind": "gateway", "outcome": "failed"}) == 1
    assert value("gatewayd_renewals_total", {"kind": "leaf", "outcome": "waiting"}) == 1
    assert value("gatewayd_renewals_total", {"kind": "leaf", "outcome": "done"}) == 0
    assert value("gatewayd_audit_faults_total") == 1


async def test_promtool_the_document_and_the_alerts_agree_on_the_names(plant: Plant) -> None:
    await plant.bootstrap()
    meters = Meters(GATEWAY)
    meters.token_called("gateway", "sign", 0.1, True)
    text = await metrics_of(plant, meters).exposition()
    command = ["promtool", "check", "metrics"]
    checked = await asyncio.to_thread(subprocess.run, command, input=text, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    offered = {re.sub(r"_(bucket|count|sum)$", "", name) for name in read(text) if name.startswith("gatewayd_")}
    # Those that are there only when there is something to tell.
    offered |= {"gatewayd_outbox_oldest_timestamp_seconds", "gatewayd_audit_signed_timestamp_seconds"}
    families = text_string_to_metric_families(text.decode())
    offered |= {each.name for each in families if each.name.startswith("gatewayd_") and each.type == "gauge"}
    documented = set(re.findall(r"`(gatewayd_\w+)`", (REPOSITORY / "docs" / "metrics.md").read_text()))
    assert documented == offered
    asked = set(re.findall(r"gatewayd_\w+", (RULES / "gatewayd.rules.yml").read_text()))
    assert {re.sub(r"_bucket$", "", name) for name in asked} <= offered


def test_every_alert_is_proved_to_fire_in_time() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "gatewayd.test.yml"], cwd=RULES, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = re.findall(r"- alert: (\w+)", (RULES / "gatewayd.rules.yml").read_text())
    tests = re.split(r"- alertname: ", (RULES / "gatewayd.test.yml").read_text())[1:]
    assert {test.split()[0] for test in tests if "exp_alerts" in test} == set(alerts)


async def ask(settings: MetricsSettings, path: str = "/metrics") -> tuple[int, str]:
    address = settings.address()
    connector = aiohttp.UnixConnector(str(address)) if isinstance(address, Path) else None
    host = "gatewayd" if isinstance(address, Path) else settings.listen
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://{host}{path}") as answer:
        return answer.status, await answer.text()


async def reachable(settings: MetricsSettings, path: str = "/metrics") -> tuple[int, str]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await ask(settings, path)
            except OSError:
                await asyncio.sleep(0.01)


async def test_the_socket_is_for_the_daemons_user_and_group(tmp_path: Path) -> None:
    async def exposition() -> bytes:
        if broken:
            raise StoreBroken("the disk is gone")
        return b"up 1\n"

    broken = False
    settings = MetricsSettings(listen=str(tmp_path / "metrics.sock"))
    (tmp_path / "metrics.sock").touch()  # in the way: it goes on trying, and nothing else is held up
    serving = asyncio.create_task(MetricsServer(exposition, settings).run())
    await asyncio.sleep(0.05)
    assert not serving.done()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    (tmp_path / "metrics.sock").unlink()
    serving = asyncio.create_task(MetricsServer(exposition, settings).run())
    assert await reachable(settings) == (200, "up 1\n")
    assert (tmp_path / "metrics.sock").stat().st_mode & 0o777 == 0o660
    assert (await ask(settings, "/"))[0] == 404
    broken = True
    assert (await ask(settings))[0] == 503
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_where_metrics_are_off_there_is_nothing(plant: Plant) -> None:
    off = Monitoring(MetricsSettings(), GATEWAY)
    parts = {"status": plant.reader, "store": plant.store, "clock": plant.clock}
    assert list(off.loops(**parts, anchors=lambda: (), queues={})) == []  # type: ignore[arg-type]
    off.token_calls("gateway")("sign", 0.1, False)
    off.happened(JournalEntry(START, GATEWAY, "gatewayd", "switch", "done"))
