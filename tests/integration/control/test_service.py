"""The service as other programs on the bus see it."""

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pydbus
import pytest
from gi.repository import Gio

from gatewayd.config import ControlSettings
from gatewayd.control.client import Client
from gatewayd.control.service import ControlService
from gatewayd.core.listing import HubState, Order, Shown, Wanted
from gatewayd.core.model import DeviceKind
from gatewayd.errors import DaemonUnreachable, GatewayError
from tests.support.bus import Bus, as_user, gdbus
from tests.support.calls import CALLS
from tests.support.door import Caller
from tests.support.fake_operations import FakeOperations

GATEWAY1 = "org.gatewayd.Gateway1"
NOBODY = 65534
"""A user that is on every Debian."""


async def call(bus: Bus, method: str, *arguments: str, uid: int | None = None) -> str:
    return await asyncio.to_thread(gdbus, bus.address, f"{GATEWAY1}.{method}", *arguments, uid=uid)


async def refused(bus: Bus, method: str, *arguments: str, uid: int | None = None) -> str:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        await call(bus, method, *arguments, uid=uid)
    words: str = failed.value.stderr
    assert "Traceback" not in words
    assert ".py" not in words
    return words


async def test_the_daemons_user_may_call_and_others_not_while_there_is_no_polkit(
    bus: Bus, service: ControlService, operations: FakeOperations
) -> None:
    assert await call(bus, "GetStatus")
    for method in ("GetStatus", "AddDevice"):
        words = await refused(bus, method, *CALLS[method], uid=NOBODY)
        assert "org.gatewayd.Error.NotAuthorized: polkit cannot be asked (is polkitd installed?)" in words
    assert operations.calls == []


class Authority:
    """polkit, where nobody may anything without a password, and where whoever is asked for it knows it."""

    dbus = """<node><interface name="org.freedesktop.PolicyKit1.Authority"><method name="CheckAuthorization">
      <arg type="(sa{sv})" direction="in"/> <arg type="s" direction="in"/> <arg type="a{ss}" direction="in"/>
      <arg type="u" direction="in"/> <arg type="s" direction="in"/> <arg type="(bba{ss})" direction="out"/>
    </method></interface></node>"""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    def CheckAuthorization(
        self, subject: tuple[str, dict[str, str]], action: str, details: dict[str, str], flags: int, cancellation: str
    ) -> tuple[bool, bool, dict[str, str]]:
        self.asked.append((subject[0], action, flags))
        return flags == 1, flags == 0, {}


@pytest.mark.parametrize("interactive", [False, True])
async def test_a_password_is_asked_for_only_where_the_message_allows_it(
    bus: Bus, service: ControlService, operations: FakeOperations, interactive: bool
) -> None:
    authority = Authority()
    polkit = pydbus.connect(bus.address)
    polkit.publish("org.freedesktop.PolicyKit1", ("Authority", authority))
    stranger = Caller(as_user(NOBODY), bus.address)
    flags = Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else Gio.DBusCallFlags.NONE
    error, _ = await asyncio.to_thread(stranger.call, GATEWAY1, "TrustClock", types=[], flags=int(flags))
    await asyncio.to_thread(stranger.close)
    polkit.con.close_sync(None)
    assert authority.asked == [("system-bus-name", "org.gatewayd.administer", each) for each in range(1 + interactive)]
    assert error == (None if interactive else "org.gatewayd.Error.NotAuthorized")
    assert operations.calls == ([("clock_trust", NOBODY)] if interactive else [])


async def test_arguments_arrive_as_they_were_sent(
    bus: Bus, service: ControlService, operations: FakeOperations
) -> None:
    await call(bus, "AddDevice", "leaf-1", "{'sans': <['dns:x', 'ip:192.0.2.1']>, 'code_lifetime': <7200>}")
    await call(bus, "Renew", "", "{'key_algorithm': <'rsa-2048'>}")
    await call(bus, "Bootstrap", "eyJ.x.y")
    await call(bus, "UnlockToken", "right", "{'token': <'registrar'>, 'final_try': <true>}")
    assert operations.calls == [
        ("device_add", 0, "leaf-1", ["dns:x", "ip:192.0.2.1"], 7200),
        ("renew", 0, "gw-1", "rsa-2048"),
        ("bootstrap", 0, "eyJ.x.y"),
        ("token_unlock", 0, "registrar", "right", True),
    ]


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("GetDevice", ["nobody"], "org.gatewayd.Error.DeviceUnknown: there is no device nobody"),
        ("GetDevice", ["x" * 65], "org.gatewayd.Error.InvalidArgument"),
        ("UnlockToken", ["", "{}"], "org.gatewayd.Error.InvalidArgument: the PIN is empty"),
        ("UnlockToken", ["1234", "{'token': <'third'>}"], "option 'token' must be gateway or registrar"),
        ("GetDevice", ["a b"], "org.gatewayd.Error.InvalidArgument"),
        ("GetDevice", [""], "org.gatewayd.Error.InvalidArgument"),
        ("AddDevice", ["gw-1", "{}"], "org.gatewayd.Error.DeviceExists"),
        ("AddDevice", ["leaf", "{'san': <['dns:x']>}"], "org.gatewayd.Error.InvalidArgument: 'san' is not an option"),
        ("AddDevice", ["leaf", "{'sans': <'dns:x'>}"], "org.gatewayd.Error.InvalidArgument: option 'sans'"),
        (
            "NewCode",
            ["gw-1", "{'code_lifetime': <'2h'>}"],
            "org.gatewayd.Error.InvalidArgument: option 'code_lifetime'",
        ),
        ("Renew", ["", "{'key_algorithm': <'dsa'>}"], "org.gatewayd.Error.InvalidArgument: option 'key_algorithm'"),
        ("Revoke", ["gw-1", "because", "{}"], "org.gatewayd.Error.InvalidArgument: 'because' is not a reason"),
        ("Revoke", ["gw-1", "keyCompromise", "{'yes': <true>}"], "org.gatewayd.Error.InvalidArgument: 'yes'"),
        ("Bootstrap", ["secret token"], "org.gatewayd.Error.InvalidArgument: the token"),
        ("BootstrapWithCertificate", ["x"], "org.gatewayd.Error.InvalidArgument: this is not a certificate"),
        ("Revoke", ["gw-1"], "org.freedesktop.DBus.Error.InvalidArgs"),
        ("Nonsense", [], "org.freedesktop.DBus.Error.UnknownMethod"),
    ],
)
async def test_errors_have_names(
    bus: Bus, service: ControlService, operations: FakeOperations, method: str, arguments: list[str], words: str
) -> None:
    assert words in await refused(bus, method, *arguments)
    assert not [each for each in operations.calls if each[0] != "device_add"]


async def test_a_defect_is_internal_and_says_no_more(
    bus: Bus, service: ControlService, operations: FakeOperations, caplog: pytest.LogCaptureFixture
) -> None:
    operations.defect = RuntimeError("the secret of the house")
    words = await refused(bus, "GetStatus")
    assert "org.gatewayd.Error.Internal" in words
    assert "secret" not in words
    assert "the secret of the house" in caplog.text


async def test_more_than_the_bus_takes_is_refused_and_the_daemon_stays_on_it(
    bus: Bus, service: ControlService, operations: FakeOperations
) -> None:
    operations.devices["gw-1"]["detail"] = "x" * 40_000_000
    assert "AnswerTooLarge: the answer has 38 MB" in await refused(bus, "ListDevices", "{}")
    del operations.devices["gw-1"]["detail"]
    assert "gw-1" in await call(bus, "ListDevices", "{}")


async def test_twenty_slow_calls_hold_up_neither_each_other_nor_a_quick_one(
    bus: Bus, service: ControlService, operations: FakeOperations
) -> None:
    operations.slow = 1.0
    client = Client(bus.address)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(21) as pool:
        begun = time.monotonic()
        slow = [loop.run_in_executor(pool, client.call, "GetStatus") for _ in range(20)]
        await asyncio.sleep(0.3)
        pinged = time.monotonic()
        await loop.run_in_executor(pool, client.call, "ListDevices", "(a{sv})", {})
        quick = time.monotonic() - pinged
        await asyncio.gather(*slow)
        assert time.monotonic() - begun < 2.0
        assert quick < 0.3


async def test_those_who_look_in_a_crowd_are_refused_while_those_who_act_are_heard(
    bus: Bus, service: ControlService, operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.control.wrapper.MAX_READS", 3)
    operations.slow = 1.0
    client = Client(bus.address)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(5) as pool:
        slow = [loop.run_in_executor(pool, client.call, "GetStatus") for _ in range(3)]
        await asyncio.sleep(0.2)
        assert "org.gatewayd.Error.TooManyRequests" in await refused(bus, "ListDevices", "{}")
        assert await call(bus, "GetRegistrarCertificate")
        await asyncio.gather(*slow)


async def test_the_name_cannot_be_had_twice(
    bus: Bus, service: ControlService, settings: ControlSettings, caplog: pytest.LogCaptureFixture
) -> None:
    second = ControlService(FakeOperations(), settings, "gw-2")
    task = asyncio.create_task(second.start())
    async with asyncio.timeout(5):
        while "another process owns org.gatewayd.Gateway1" not in caplog.text:  # noqa: ASYNC110 - the log is the event
            await asyncio.sleep(0.02)
    assert "gw-1" in await call(bus, "GetStatus")
    task.cancel()
    await second.stop()


async def test_a_bus_that_dies_and_comes_back_is_found_again(
    bus: Bus, service: ControlService, operations: FakeOperations
) -> None:
    operations.gate = asyncio.Event()
    await call(bus, "Revoke", "gw-1", "keyCompromise", "{}")
    bus.kill()
    with pytest.raises(DaemonUnreachable):
        Client(bus.address)
    operations.gate.set()  # the job goes on without a bus
    await asyncio.sleep(0.1)
    bus.start()
    async with asyncio.timeout(10):
        while True:
            try:
                job = await asyncio.to_thread(lambda: Client(bus.address).job("/org/gatewayd/Gateway1/jobs/1"))
                break
            except GatewayError:
                await asyncio.sleep(0.05)
    assert job["state"] == "done"
    assert [each["step"] for each in job["steps"]][-1] == "verified"


async def test_a_start_without_a_bus_does_not_hold_up_the_daemon(
    bus: Bus, operations: FakeOperations, settings: ControlSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.control.service.START_WITHIN", 0.2)
    bus.kill()
    service = ControlService(operations, settings, "gw-1")
    begun = time.monotonic()
    await service.start()
    assert time.monotonic() - begun < 1
    bus.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await asyncio.to_thread(lambda: Client(bus.address).call("GetStatus"))
                break
            except GatewayError:
                await asyncio.sleep(0.05)
    await service.stop()
    with pytest.raises(DaemonUnreachable):
        await asyncio.to_thread(lambda: Client(bus.address).call("GetStatus"))


def test_connections_that_come_and_go_never_bring_the_process_to_a_stand(bus: Bus) -> None:
    command = [sys.executable, "-m", "tests.support.bus_churn", bus.address, "1500"]
    churned = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert churned.stdout == "done\n", churned.stderr


async def test_a_list_is_asked_for_by_what_its_devices_are(
    bus: Bus, service: ControlService, operations: FakeOperations
) -> None:
    given = "{'id': <'pump-*'>, 'kind': <'leaf'>, 'states': <['active', 'expired']>, 'hub_states': <['present']>"
    await call(bus, "ListDevices", given + ", 'expiring_within': <int64 3600>, 'sort': <'expiry'>, 'limit': <int64 5>}")
    assert operations.wanted == Wanted(
        id="pump-*",
        kind=DeviceKind.LEAF,
        states=frozenset({Shown.ACTIVE, Shown.EXPIRED}),
        hub_states=frozenset({HubState.PRESENT}),
        expiring_within=timedelta(hours=1),
        order=Order.EXPIRY,
        limit=5,
    )


@pytest.mark.parametrize(
    "wrong",
    ["'id': <''>", "'kind': <'pump'>", "'states': <'active'>", "'states': <['x']>", "'limit': <int64 0>", "'x': <1>"],
)
async def test_a_filter_that_cannot_be_is_refused(bus: Bus, service: ControlService, wrong: str) -> None:
    assert "org.gatewayd.Error.InvalidArgument" in await refused(bus, "ListDevices", f"{{{wrong}}}")
