"""The door as the package builds it: each method and each property, called by root, an operator, a technician and a
stranger, against the one table (gatewayd/control/access.py)."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from gatewayd.control.access import GATEWAY, GROUPS, JOB, MANAGER, TABLE, Action
from gatewayd.control.wrapper import PROPERTIES, interfaces
from tests.support.calls import CALLS
from tests.support.control_daemon import Daemon
from tests.support.door import ROOT, USERS, Caller, Door, door

FIRST_JOB = f"{ROOT}/jobs/1"
PATHS = {GATEWAY: ROOT, MANAGER: ROOT, JOB: FIRST_JOB}
BUS_DENIES = "org.freedesktop.DBus.Error.AccessDenied"
DENIED = "org.gatewayd.Error.NotAuthorized"
ALLOW_INTERACTION = 2  # Gio.DBusCallFlags

HAS: Mapping[str, frozenset[Action]] = {
    "root": frozenset(Action),
    "door-operator": GROUPS["gatewayd-operators"],
    "door-technician": GROUPS["gatewayd-technicians"],
}
STRANGER = "door-stranger"
EVERYBODY = (*HAS, STRANGER)


@pytest.fixture(scope="module")
def house() -> Iterator[Door]:
    assert os.geteuid() == 0, "users, groups and mounts of its own: this test has to be run by root"
    with door() as made:
        made.start_polkitd()
        yield made


@pytest.fixture(scope="module")
def daemon(house: Door) -> Iterator[Daemon]:
    with house.daemon() as running:
        yield running


@pytest.fixture(scope="module")
def callers(house: Door, daemon: Daemon) -> Iterator[dict[str, Caller]]:
    """All of them there before the first job, which they look at, begins."""
    made = {user: Caller(house.within(user), house.bus.address) for user in EVERYBODY}
    assert not any(each.heard() for each in made.values())
    assert made["root"].call(GATEWAY, "Renew", "", "{}", types=["s", "a{sv}"])[0] is None
    yield made
    for each in made.values():
        each.close()


def methods(interface: str) -> dict[str, list[str]]:
    """Each with the types of its arguments."""
    (described,) = interfaces(interface)
    return {method.name: [arg.signature for arg in method.in_args] for method in described.methods}


def properties(interface: str) -> list[str]:
    (described,) = interfaces(interface)
    return [each.name for each in described.properties]


METHODS = [(interface, name) for interface in TABLE for name in methods(interface)]


def expected(user: str, action: Action) -> str | None:
    """The error that this user gets, if any."""
    if user == STRANGER:
        return BUS_DENIES
    return None if action in HAS[user] else DENIED


def test_the_table_has_all_that_is_offered_and_nothing_else() -> None:
    for interface, rows in TABLE.items():
        assert set(rows) == {*methods(interface), *properties(interface)}
    assert set(CALLS) == set(methods(GATEWAY))


@pytest.mark.parametrize("user", EVERYBODY)
@pytest.mark.parametrize(("interface", "method"), METHODS)
def test_a_method_is_for_whom_the_table_says(
    callers: dict[str, Caller], user: str, interface: str, method: str
) -> None:
    arguments = CALLS.get(method, [])
    if method == "AddDevice":
        arguments = [f"leaf-of-{user}", "{}"]
    error, words = callers[user].call(interface, method, *arguments, types=methods(interface)[method])
    assert error == expected(user, TABLE[interface][method]), words
    if error == DENIED:
        assert TABLE[interface][method] in words


@pytest.mark.parametrize("user", EVERYBODY)
@pytest.mark.parametrize("interface", TABLE)
def test_a_property_is_for_whom_the_table_says(callers: dict[str, Caller], user: str, interface: str) -> None:
    caller, path = callers[user], PATHS[interface]
    actions = {TABLE[interface][name] for name in properties(interface)}
    for name in properties(interface):
        error, words = caller.call(PROPERTIES, "Get", interface, name, types=["s", "s"], path=path)
        assert error == expected(user, TABLE[interface][name]), words
        error, words = caller.call(PROPERTIES, "Set", interface, name, "<'x'>", types=["s", "s", "v"], path=path)
        assert error == (BUS_DENIES if user == STRANGER else "org.freedesktop.DBus.Error.InvalidArgs"), words
    error, words = caller.call(PROPERTIES, "GetAll", interface, types=["s"], path=path)
    denied = {expected(user, each) for each in {Action.VIEW, *actions}} - {None}
    assert error == (denied.pop() if denied else None), words


@pytest.mark.parametrize("user", EVERYBODY)
@pytest.mark.parametrize("path", ["/", "/org/gatewayd", ROOT, f"{ROOT}/jobs", FIRST_JOB])
def test_whom_the_bus_lets_through_may_introspect(callers: dict[str, Caller], user: str, path: str) -> None:
    for interface, member in (("Introspectable", "Introspect"), ("Peer", "Ping"), ("Peer", "GetMachineId")):
        error, words = callers[user].call(f"org.freedesktop.DBus.{interface}", member, types=[], path=path)
        assert error == (BUS_DENIES if user == STRANGER else None), words


def test_a_stranger_hears_nothing(callers: dict[str, Caller]) -> None:
    for user in HAS:
        wanted = {(ROOT, "InterfacesAdded"), (FIRST_JOB, "Finished"), (ROOT, "DeviceChanged")}
        deadline = time.monotonic() + 10
        while not wanted <= callers[user].heard():
            assert time.monotonic() < deadline, callers[user].heard()
            time.sleep(0.05)
    assert callers[STRANGER].heard() == set()


def test_a_stranger_gets_in_under_no_other_name(house: Door, callers: dict[str, Caller]) -> None:
    ask = ["busctl", f"--address={house.bus.address}", "--json=short", "call"]
    bus = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"]
    asked = subprocess.run([*ask, *bus, "GetNameOwner", "s", GATEWAY], capture_output=True, text=True, check=True)
    (unique,) = json.loads(asked.stdout)["data"]
    for call in ([GATEWAY, "GetStatus"], ["org.freedesktop.DBus.Introspectable", "Introspect"]):
        command = [*house.within(STRANGER), *ask, unique, ROOT, *call]
        assert "Access denied" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_a_stranger_does_not_get_the_name(house: Door) -> None:
    request = ["--object-path=/org/freedesktop/DBus", "--method=org.freedesktop.DBus.RequestName", GATEWAY, "4"]
    command = ["gdbus", "call", f"--address={house.bus.address}", "--dest=org.freedesktop.DBus", *request]
    for user in ("door-operator", "door-technician", STRANGER):
        asked = subprocess.run([*house.within(user), *command], capture_output=True, text=True, check=False)
        assert "AccessDenied" in asked.stderr


@pytest.mark.parametrize(
    "command",
    [
        f"busctl --address=BUS introspect {GATEWAY} {ROOT}",
        f"busctl --address=BUS tree {GATEWAY}",
        f"busctl --address=BUS call {GATEWAY} {ROOT} {GATEWAY} GetDevice s gw-1",
        f"busctl --address=BUS get-property {GATEWAY} {ROOT} {GATEWAY} DeviceId",
        f"gdbus introspect --address=BUS --dest={GATEWAY} --object-path={ROOT} --recurse",
        f"gdbus call --address=BUS --dest={GATEWAY} --object-path={ROOT} --method={GATEWAY}.GetStatus",
    ],
)
def test_the_usual_tools_work_for_a_technician(house: Door, callers: dict[str, Caller], command: str) -> None:
    words = command.replace("BUS", house.bus.address).split()
    done = subprocess.run([*house.within("door-technician"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gw-1" in done.stdout or FIRST_JOB in done.stdout


def gatewayctl(house: Door, user: str, *command: str) -> subprocess.CompletedProcess[str]:
    ctl = [*house.python(user), "-m", "gatewayd.control", "--bus", house.bus.address, *command]
    return subprocess.run(ctl, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_a_technician_swaps_hardware_and_sees_it_end(house: Door, callers: dict[str, Caller]) -> None:
    swapped = gatewayctl(house, "door-technician", "device", "replace", "gw-1", "--yes")
    assert swapped.returncode == 0, swapped.stderr
    assert "id enabled in the hub" in swapped.stdout


@pytest.mark.parametrize(
    ("user", "command", "words"),
    [
        (
            "door-technician",
            ["renew"],
            f"the user with uid {USERS['door-technician']} lacks org.gatewayd.operate, which root and the members of "
            "gatewayd-operators have\n"
            "Ask an administrator to add you to gatewayd-operators (gpasswd -a YOU GROUP), then log in again.",
        ),
        (
            "door-operator",
            ["clock", "trust"],
            f"the user with uid {USERS['door-operator']} lacks org.gatewayd.administer, which root has\n"
            "Call as root, or ask an administrator to.",
        ),
        (
            STRANGER,
            ["page", "close"],
            "this user lacks org.gatewayd.replace, which root and the members of gatewayd-technicians and "
            "gatewayd-operators have\n"
            "Ask an administrator to add you to gatewayd-technicians or gatewayd-operators (gpasswd -a YOU GROUP), "
            "then log in again.",
        ),
    ],
    ids=["technician", "operator", "stranger"],
)
def test_gatewayctl_says_what_is_missing_who_has_it_and_what_to_do(
    house: Door, callers: dict[str, Caller], user: str, command: list[str], words: str
) -> None:
    done = gatewayctl(house, user, *command)
    assert done.stderr == f"gatewayctl: {words}\n"
    assert done.returncode == 77


def test_without_an_agent_nobody_is_asked(callers: dict[str, Caller]) -> None:
    words = ["e30.e30.e30", "{}"]
    error, _ = callers["door-operator"].call(GATEWAY, "Adopt", *words, types=["s", "a{sv}"], flags=ALLOW_INTERACTION)
    assert error == DENIED


def test_without_polkit_root_alone_comes_in(house: Door, callers: dict[str, Caller]) -> None:
    house.stop_polkitd()
    try:
        error, words = callers["door-operator"].call(GATEWAY, "GetStatus", types=[])
        assert error == DENIED
        assert "polkit" in words
        assert callers["root"].call(GATEWAY, "GetStatus", types=[])[0] is None
    finally:
        house.start_polkitd()
    assert callers["door-operator"].call(GATEWAY, "GetStatus", types=[])[0] is None


def test_a_polkit_that_hangs_holds_up_those_it_is_asked_about_and_not_root(
    house: Door, callers: dict[str, Caller]
) -> None:
    crowd = [Caller(house.within("door-operator"), house.bus.address) for _ in range(6)]
    with ThreadPoolExecutor(len(crowd)) as aside:
        with house.frozen_polkitd():
            waiting = [aside.submit(each.call, GATEWAY, "GetStatus", types=[]) for each in crowd]
            assert gatewayctl(house, "root", "device", "list").returncode == 0
            assert not any(each.done() for each in waiting)
        assert {each.result()[0] for each in waiting} == {None}
    for each in crowd:
        each.close()
