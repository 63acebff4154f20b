"""The package on a machine that boots, for each Debian release: install, configure, the story, a crash, a reboot, an
upgrade, a purge, as an administrator would see them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.lab.cloud import Lab
from gatewayd.lab.demo.leaf import Leaf

from .machine import Machine, wait_for
from .package import SUITES, build_package, lintian, overlay, tree

ADDRESS = "127.66.0.1"
PIN = "24681357"
OWNER = "c81e728d-9d4c-4f63-af06-7f89cc1c0a04"
APPLICATION = {
    "client_id": "0d6d4a52-5d3c-4f0e-8a44-1f0c6c1f0a02",
    "object_id": "b7a3c1d8-93a4-4a34-9d8e-55f2f60f0a03",
}


@pytest.fixture(scope="module", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def package(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package(suite, tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module")
def machine(suite: str) -> Iterator[Machine]:
    with overlay(tree(suite)) as root, Machine(root, f"gatewayd-{suite}") as machine:
        yield machine


def ctl(machine: Machine, *arguments: str, stdin: str | None = None) -> Any:
    return json.loads(machine.output("gatewayctl", *arguments, "--json", stdin=stdin))


def connected(machine: Machine) -> bool:
    done = machine.run("gatewayctl", "status", "--json", check=False)
    return '"state": "connected"' in done


def test_the_package_is_the_same_when_built_again(suite: str, package: Path, tmp_path: Path) -> None:
    assert build_package(suite, tmp_path).read_bytes() == package.read_bytes()


def test_lintian_finds_nothing_that_is_not_explained(package: Path) -> None:
    assert lintian(package) == ""


def test_the_life_of_a_gateway(machine: Machine, package: Path, tmp_path: Path) -> None:
    _installed_but_not_started(machine, package)
    lab = Lab(tmp_path / "cloud", ADDRESS)
    machine.enter_network()
    with lab:
        for name in ("entra", "hub", "ezca"):
            lab.start(name)
        _configured(machine, lab)
        assert machine.run("systemctl", "is-active", "gatewayd").strip() == "active"
        _bootstrapped(machine, lab)
        code = ctl(machine, "device", "add", "leaf-1")["code"]
        leaf = Leaf(tmp_path / "leaf-1", "leaf-1", f"https://{ADDRESS}:9443", lab.web_root, {"PATH": "/usr/bin:/bin"})
        leaf.make_key()
        leaf.fetch_anchors(lab.ca_root)
        leaf.enroll(code)
        assert leaf.hub_client(ADDRESS).connect() == 0

        _hardened(machine)
        _reloaded(machine)
        _survives(machine, "kill", "--signal=SIGKILL", "gatewayd")
        machine.run("systemctl", "restart", "dbus")
        wait_for(lambda: connected(machine), "the daemon after the bus")
        _killed_for_want_of_memory(machine)
        with on_a_disk_of_its_own(machine, tmp_path / "disk") as disk:
            _survives_a_full_disk(machine)
            _survives_a_disk_that_turns_read_only(machine, disk)

        machine.leave_network()
        known = [each["device_id"] for each in ctl(machine, "device", "list")]
        for name in ("entra", "hub", "ezca"):
            lab.stop(name)
        machine.reboot()
        machine.enter_network()
        for name in ("entra", "hub", "ezca"):
            lab.start(name)
        wait_for(lambda: connected(machine), "the daemon after a reboot", within=90)
        assert [each["device_id"] for each in ctl(machine, "device", "list")] == known

        _upgraded(machine, package, tmp_path)
        done = ctl(machine, "revoke", "leaf-1", "--reason", "keyCompromise", "--yes")
        assert done["state"] == "done"
        assert leaf.hub_client(ADDRESS).connect() == 5
        _refuses_a_newer_database(machine)
    _purged(machine)


def _installed_but_not_started(machine: Machine, package: Path) -> None:
    shutil.copy(package, machine.root / "root" / "gatewayd.deb")
    said = machine.run("dpkg", "-i", "/root/gatewayd.deb")
    assert "installed and not started: it is not configured yet" in said
    assert machine.run("systemctl", "is-active", "gatewayd", check=False).strip() == "inactive"
    assert machine.run("systemctl", "is-enabled", "gatewayd").strip() == "enabled"
    assert machine.output("stat", "-c", "%U %a", "/var/lib/gatewayd").split() == ["gatewayd", "700"]
    assert machine.exit_code("gatewayd", "check") == 78
    assert "CPython" not in machine.run("gatewayctl", "status", check=False), "no traceback"


def _configured(machine: Machine, lab: Lab) -> None:
    etc = machine.root / "etc" / "gatewayd"
    shutil.copy(lab.web_root, etc / "web-root.pem")
    (etc / "web-root.pem").chmod(0o644)
    ezca, hub, entra = (lab.ready(name) for name in ("ezca", "hub", "entra"))
    (etc / "gatewayd.toml").write_text(f"""\
[gateway]
device_id = "gw-1"
sans = ["dns:gw-1", "ip:{ADDRESS}"]
[ezca]
url = "{ezca["url"]}"
est_url = "{ezca["est_url"]}"
ca_id = "{ezca["ca_id"]}"
template_id = "{ezca["template_id"]}"
owners = [{{ object_id = "{OWNER}", friendly_name = "Plant Engineering" }}]
[entra]
authority = "{entra["url"]}"
tenant_id = "{entra["tenant_id"]}"
client_id = "{APPLICATION["client_id"]}"
object_id = "{APPLICATION["object_id"]}"
[hub]
host = "{ADDRESS}"
registry_url = "{hub["url"]}"
[upstream]
way = "registry"
[trust]
bundle = "/etc/gatewayd/web-root.pem"
[est]
address = "{ADDRESS}"
port = 9443
""")
    (etc / "gatewayd.toml").chmod(0o644)
    machine.run("gatewayd", "check")
    machine.run(
        *("systemd-creds", "encrypt", "--with-key=host", "--name=token-pin", "-"),
        "/etc/credstore.encrypted/token-pin",
        stdin=PIN,
    )
    as_daemon = ("runuser", "-u", "gatewayd", "--", "env", "SOFTHSM2_CONF=/etc/gatewayd/softhsm2.conf")
    assert "initialised" in machine.output(*as_daemon, "gatewayd", "--pin-fd", "0", "token-init", stdin=PIN)
    machine.run("systemctl", "start", "gatewayd")


def _bootstrapped(machine: Machine, lab: Lab) -> None:
    pem = machine.output("gatewayctl", "registrar", "certificate")
    lab.post("entra", "/lab/applications", APPLICATION | {"certificate": pem})
    token = lab.token("https://management.core.windows.net/.default", OWNER)
    assert ctl(machine, "bootstrap", "--token-file", "-", stdin=token)["state"] == "done"
    wait_for(lambda: connected(machine), "the link to the hub")


def _hardened(machine: Machine) -> None:
    """The static score, and what the kernel says of the process that runs."""
    score = machine.output("systemd-analyze", "security", "--no-pager", "gatewayd")
    exposure = re.search(r"Overall exposure level for gatewayd\.service: ([\d.]+)", score)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5, score
    pid = machine.output("systemctl", "show", "-P", "MainPID", "gatewayd").strip()
    status = Path(machine.root / "proc").exists() and machine.output("cat", f"/proc/{pid}/status")
    fields = dict(line.split(":\t", 1) for line in str(status).splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert "0" not in fields["Uid"].split()
    assert PIN not in machine.output("cat", f"/proc/{pid}/environ", f"/proc/{pid}/cmdline")


def _reloaded(machine: Machine) -> None:
    """What can be taken up is; a bad file changes nothing, and 'systemctl reload' and the journal say so."""
    file = machine.root / "etc" / "gatewayd" / "gatewayd.toml"
    good = file.read_text()
    pid, since = main_pid(machine), ctl(machine, "status")["hub"]["since"]
    file.write_text(f'{good}[log]\nlevel = "debug"\n')
    machine.run("systemctl", "reload", "gatewayd")
    file.write_text(f"{good}[lgo]\n")
    assert machine.exit_code("systemctl", "reload", "gatewayd") != 0
    assert machine.run("systemctl", "is-active", "gatewayd").strip() == "active"
    assert "unknown key [lgo]" in machine.run("journalctl", "--no-pager", "--unit=gatewayd", "--lines=20")
    assert "unknown key [lgo]" in machine.output("systemctl", "show", "-P", "StatusText", "gatewayd")
    file.write_text(good)
    machine.run("systemctl", "reload", "gatewayd")
    assert (main_pid(machine), ctl(machine, "status")["hub"]["since"]) == (pid, since)


def main_pid(machine: Machine) -> str:
    return machine.output("systemctl", "show", "-P", "MainPID", "gatewayd").strip()


def _killed_for_want_of_memory(machine: Machine) -> None:
    """By the kernel, as it is in want of memory: MemoryMax= of the unit is not enforced in this container, so that the
    limit is the outer machine's."""
    before = main_pid(machine)
    with machine.starving(int(before)) as killed:

        def asked_for_more() -> bool:
            machine.run("gatewayctl", "backup", "/root/backup", check=False)
            return main_pid(machine) not in (before, "0")

        wait_for(asked_for_more, "the daemon after it was killed")
        assert killed() > 0
    wait_for(lambda: connected(machine), "the daemon after a want of memory")


@contextmanager
def on_a_disk_of_its_own(machine: Machine, image: Path) -> Iterator[Path]:
    """The state directory, moved to a small disk for a while."""
    state = "/var/lib/gatewayd"
    machine.run("systemctl", "stop", "gatewayd")
    with machine.disk(image, megabytes=64) as device:
        machine.run("mount", device, "/mnt")
        machine.run("cp", "-a", f"{state}/.", "/mnt")
        machine.run("umount", "/mnt")
        machine.run("mount", "-o", "errors=remount-ro", device, state)
        machine.run("systemctl", "start", "gatewayd")
        wait_for(lambda: connected(machine), "the daemon on its own disk")
        yield Path(device)
        machine.run("systemctl", "stop", "gatewayd")
        machine.run("umount", state)
        machine.run("mount", device, "/mnt")
        machine.run("sh", "-c", f"rm -rf {state}/* && cp -a /mnt/. {state}")
        machine.run("umount", "/mnt")
    machine.run("systemctl", "start", "gatewayd")
    wait_for(lambda: connected(machine), "the daemon")


def _refused_for_the_disk(machine: Machine, *words: str) -> list[str]:
    """Sooner or later nothing new is promised, it is said why, and what is there goes on. Returns the devices that were
    added before."""
    added: list[str] = []
    while True:
        device_id = f"{words[0]}-{len(added)}"
        done = machine.run("gatewayctl", "device", "add", device_id, "--json", check=False)
        failure = json.loads(done[: done.rindex("}") + 1])
        if "error" in failure:
            break
        added.append(device_id)
        assert len(added) < 200, "there seems to be room without end"
    assert failure["error"] in words, done
    assert "Traceback" not in done
    status = ctl(machine, "status")
    assert status["hub"]["state"] == "connected"
    assert failure["error"] in [each["error"] for each in status["waiting"]]
    return added


def _are_known(machine: Machine, *device_ids: str) -> None:
    assert {*device_ids} <= {each["device_id"] for each in ctl(machine, "device", "list")}


def _survives_a_full_disk(machine: Machine) -> None:
    ballast = "/var/lib/gatewayd/ballast"
    fill = f"cat /dev/zero > {ballast} || true; sync; cat /dev/zero >> {ballast} || true"
    pid = main_pid(machine)
    machine.run("sh", "-c", fill)
    added = _refused_for_the_disk(machine, "StoreFull")
    assert main_pid(machine) == pid
    machine.run("rm", ballast)
    assert ctl(machine, "device", "add", "leaf-9")["code"]
    assert "StoreFull" not in [each["error"] for each in ctl(machine, "status")["waiting"]]
    machine.run("sh", "-c", fill)
    machine.run("systemctl", "kill", "--signal=SIGKILL", "gatewayd")
    wait_for(lambda: int(machine.output("systemctl", "show", "-P", "NRestarts", "gatewayd")) > 0, "a restart")
    machine.run("rm", ballast)
    wait_for(lambda: connected(machine), "the daemon once there is room")
    _are_known(machine, *added, "leaf-9")


def _survives_a_disk_that_turns_read_only(machine: Machine, device: Path) -> None:
    """As a failing one does: ext4 finds an error and writes no more."""
    Path(f"/sys/fs/ext4/{device.name}/trigger_fs_error").write_text("1")
    added = _refused_for_the_disk(machine, "StoreReadOnly", "StoreBroken")
    machine.run("systemctl", "kill", "--signal=SIGKILL", "gatewayd")
    wait_for(lambda: main_pid(machine) == "0", "the end of the daemon")
    wait_for(lambda: machine.exit_code("umount", "/var/lib/gatewayd") == 0, "a moment between two attempts")
    assert subprocess.run(["fsck.ext4", "-p", str(device)], check=False).returncode <= 1
    machine.run("mount", str(device), "/var/lib/gatewayd")
    wait_for(lambda: connected(machine), "the daemon once the disk is whole")
    _are_known(machine, *added, "leaf-9")


def _survives(machine: Machine, *what: str) -> None:
    before = machine.output("systemctl", "show", "-P", "MainPID", "gatewayd")
    machine.run("systemctl", *what)
    wait_for(
        lambda: (
            machine.output("systemctl", "show", "-P", "MainPID", "gatewayd") not in (before, "0\n")
            and connected(machine)
        ),
        "the daemon to come back by itself",
    )


def _upgraded(machine: Machine, package: Path, tmp_path: Path) -> None:
    """The same contents under a higher version: in place, running again by itself, nothing lost."""
    shutil.copy(package, machine.root / "root" / "gatewayd.deb")
    machine.run("sh", "-c", "rm -rf /root/new && dpkg-deb -R /root/gatewayd.deb /root/new")
    machine.run("sed", "-i", "s/^Version: /Version: 1:/", "/root/new/DEBIAN/control")
    machine.run("dpkg-deb", "-b", "/root/new", "/root/new.deb")
    before = ctl(machine, "status")["gateway"]
    machine.run("dpkg", "-i", "/root/new.deb")
    wait_for(lambda: connected(machine), "the daemon after an upgrade")
    assert ctl(machine, "status")["gateway"]["serial"] == before["serial"]


def _refuses_a_newer_database(machine: Machine) -> None:
    machine.run("systemctl", "stop", "gatewayd")
    # As the daemon's user: what root would leave beside the database, the daemon could not open.
    sqlite = ("runuser", "-u", "gatewayd", "--", "sqlite3", "/var/lib/gatewayd/gatewayd.db")
    version = int(machine.output(*sqlite, "PRAGMA user_version"))
    machine.run(*sqlite, "PRAGMA user_version = 9999")
    assert machine.exit_code("systemctl", "start", "gatewayd") != 0
    said = machine.run("journalctl", "--no-pager", "--unit=gatewayd", "--lines=30")
    assert "newer" in said, said
    machine.run(*sqlite, f"PRAGMA user_version = {version}")
    machine.run("systemctl", "reset-failed", "gatewayd")
    machine.run("systemctl", "start", "gatewayd")


def _purged(machine: Machine) -> None:
    """Asked, and refused by default: the record of whose the keys are stays. Then told to: nothing is left."""
    said = machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--purge", "gatewayd")
    assert "/var/lib/gatewayd is kept" in said
    assert machine.exit_code("test", "-e", "/var/lib/gatewayd/gatewayd.db") == 0
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "-i", "/root/gatewayd.deb")
    machine.run("sh", "-c", "echo 'gatewayd gatewayd/keys-left boolean true' | debconf-set-selections")
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--purge", "gatewayd")
    for left in ("/var/lib/gatewayd", "/etc/gatewayd", "/usr/lib/gatewayd", "/usr/bin/gatewayd"):
        assert machine.exit_code("test", "-e", left) != 0, left
