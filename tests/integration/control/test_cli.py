"""The real gatewayctl, as a process, against the real service."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.bus import Bus
from tests.support.control_daemon import Daemon
from tests.support.fake_operations import PEM

GATEWAYCTL = [sys.executable, "-m", "gatewayd.control"]
ENVIRONMENT = {**os.environ, "TZ": "Europe/Berlin", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def daemon(bus: Bus) -> Iterator[Daemon]:
    with Daemon(bus.address) as running:
        yield running


class Ctl:
    def __init__(self, address: str) -> None:
        self.environment = {**ENVIRONMENT, "GATEWAYD_BUS": address}

    def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> tuple[str, str]:
        """(stdout, stderr); fails when the exit status is not ``code`` or anything looks like a traceback."""
        finished = subprocess.run(
            [*GATEWAYCTL, *arguments], input=stdin, capture_output=True, text=True, timeout=30, env=self.environment
        )
        assert finished.returncode == code, finished.stderr
        assert "Traceback" not in finished.stderr
        return finished.stdout, finished.stderr


@pytest.fixture
def ctl(bus: Bus, daemon: Daemon) -> Ctl:
    return Ctl(bus.address)


def test_status_is_one_screen_in_local_time(ctl: Ctl) -> None:
    out, _ = ctl("status")
    assert "gw-1 · active" in out
    assert "until 2031-06-01 14:00:00 +0200" in out
    assert "connected · hub.example" in out
    assert len(out.splitlines()) < 25


@pytest.mark.parametrize("command", [["device", "list"], ["device", "list", "--json"], ["job", "1", "--json"]])
def test_a_full_disk_under_standard_output_is_no_defect(ctl: Ctl, command: list[str]) -> None:
    if command[0] == "job":
        ctl("renew", "--no-wait")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*GATEWAYCTL, *command], stdout=full, stderr=subprocess.PIPE, text=True, env=ctl.environment, timeout=30
        )
    assert done.returncode == 74
    assert done.stderr.startswith("gatewayctl: the answer cannot be written: No space left on device\n")
    assert len(done.stderr.splitlines()) == 2


def test_a_file_is_written_whole_or_not_at_all(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    file, partial = tmp_path / "kept", tmp_path / "kept.partial"
    partial.symlink_to(tmp_path / "somebody-elses")
    for command in ("export", "backup"):
        ctl(command, str(file))
        assert file.stat().st_mode & 0o777 == 0o600
        assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    before = file.read_bytes()
    none = ["prlimit", "--fsize=0", *GATEWAYCTL]  # no byte goes into a file
    full = subprocess.run([*none, "export", str(file)], capture_output=True, text=True, env=ctl.environment)
    assert full.returncode == 74
    assert full.stderr.startswith(f"gatewayctl: {file} cannot be written: File too large\n")
    daemon.tell("fail OutputLost")
    ctl("backup", str(file), code=74)
    assert "cannot be written" in ctl("export", str(tmp_path / "no" / "such"), code=64)[1]
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert file.read_bytes() == before


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
def test_a_closed_stream_changes_nothing_for_the_others(ctl: Ctl, closed: str) -> None:
    """As cron and some supervisors start what they start."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *GATEWAYCTL, "device", "show", "nope", "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ctl.environment)
    assert done.returncode == 66
    assert "Traceback" not in done.stderr
    assert ("DeviceUnknown" in done.stdout) is ("1>" not in closed)
    assert done.stderr.startswith("gatewayctl: ") is ("2>" not in closed)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (["status"], "waiting"),
        (["device", "show", "gw-1"], "credentials"),
        (["device", "code", "gw-1"], "code"),
        (["device", "add", "leaf-9"], "expires_at"),
        (["registrar", "certificate"], "certificate"),
        (["renew"], "result"),
        (["token", "status"], "token"),
        (["token", "objects"], "missing"),
        (["page", "open"], "url"),
        (["page", "close"], "ended"),
    ],
)
def test_json_is_what_the_daemon_says(ctl: Ctl, command: list[str], key: str) -> None:
    out, err = ctl(*command, "--json")
    assert key in json.loads(out)
    assert err == ""


def test_the_pin_comes_from_standard_input_and_shows_nowhere(ctl: Ctl) -> None:
    out, err = ctl("token", "unlock", stdin="right\n")
    assert "ready" in out
    assert "right" not in out + err
    out, err = ctl("token", "unlock", stdin="wrong-pin\n", code=77)
    assert "gatewayctl: the token refused the PIN" in err
    assert "wrong-pin" not in out + err
    assert "the PIN is empty" in ctl("token", "unlock", code=64)[1]
    assert "ready" in ctl("token", "init", stdin="1234\n")[0]
    assert "live" in ctl("token", "objects")[0]


def test_a_device_from_its_code_to_its_revocation(ctl: Ctl) -> None:
    out, _ = ctl("device", "add", "leaf-1", "--san", "dns:leaf-1.example", "--code-lifetime", "2h")
    assert "https://gw-1.example:8443/.well-known/est" in out
    assert "2031-05-02 14:00:00 +0200" in out
    (listed,) = [each for each in json.loads(ctl("device", "list", "--json")[0]) if each["device_id"] == "leaf-1"]
    assert listed["sans"] == ["dns:leaf-1.example"]
    assert "leaf-1" in ctl("device", "list")[0]
    ctl("device", "list", "leaf-*", "--state", "new", "--hub", "absent", "--kind", "leaf", "--sort", "expiry")
    assert "dns:leaf-1.example" in ctl("device", "show", "leaf-1")[0]
    out, _ = ctl("revoke", "leaf-1", "--reason", "keyCompromise", "--yes")
    lines = out.splitlines()
    assert [line[0] for line in lines[:5]] == ["✓"] * 5
    assert lines[1].endswith("revoked at the CA — proof of revoked-at-ca")
    assert lines[5] == "leaf-1 is revoked, and verified as disabled in the hub."


def test_a_device_is_bound_to_its_hardware(ctl: Ctl) -> None:
    ctl("device", "add", "leaf-1", "--manufacturer-serial", "4711", "--manufacturer", "acme")
    assert "acme · 4712" in ctl("device", "bind", "leaf-1", "--manufacturer-serial", "4712")[0]
    assert "hardware" not in json.loads(ctl("device", "bind", "leaf-1", "--none", "--json")[0])


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["device", "show", "nobody"], 66, "there is no device nobody"),
        (["device", "add", "gw-1"], 73, "there is a device gw-1 already"),
        (["device", "add", "a b"], 64, "is not a device id"),
        (["device", "add", "leaf", "--san", "x"], 64, "kind:value"),
        (["device", "add", "leaf", "--code-lifetime", "soon"], 64, "length of time"),
        (["device", "add", "leaf", "--code-lifetime", "1s"], 64, "--code-lifetime takes from 60s to 90d, not '1s'"),
        (["device", "list", "--expiring", "9999d"], 64, "--expiring takes from 0s to 3650d, not '9999d'"),
        (["device", "bind", "gw-1"], 64, "--manufacturer-serial, or --none"),
        (["device", "add", "leaf", "--manufacturer", "acme"], 64, "goes with --manufacturer-serial"),
        (["device", "add", "leaf", "--manufacturer-serial", "x" * 129], 64, "at most 128 characters"),
        (["revoke", "gw-1", "--reason", "because", "--yes"], 64, "keyCompromise"),
        (["revoke", "gw-1", "--reason", "superseded"], 64, "--yes"),
        (["job", "99"], 66, "there is no job"),
        (["job", "nonsense"], 64, "is not a job"),
        (["nonsense"], 64, "nonsense"),
        (["status", "--nonsense"], 64, "--nonsense"),
        (["bootstrap", "--certificate", "/nowhere"], 64, "/nowhere cannot be read"),
        (["page", "open", "--for", "2d"], 64, "--for takes from 60s to 1d"),
        (["bootstrap", "--token-file", "/dev/null"], 64, "the token is empty"),
    ],
)
def test_errors_are_two_lines_and_an_exit_status(ctl: Ctl, command: list[str], code: int, words: str) -> None:
    out, err = ctl(*command, code=code)
    message, remedy = err.splitlines()
    assert message.startswith("gatewayctl: ")
    assert words in message
    assert remedy
    assert out == ""


def test_an_error_in_json_has_the_same_name_as_everywhere(ctl: Ctl) -> None:
    out, err = ctl("device", "show", "nobody", "--json", code=66)
    assert json.loads(out)["error"] == "DeviceUnknown"
    assert "there is no device nobody" in err


def test_without_a_daemon(bus: Bus) -> None:
    ctl = Ctl(bus.address)
    assert "gatewayd is not on the bus" in ctl("status", code=69)[1]
    bus.kill()
    assert "cannot be reached" in ctl("status", code=69)[1]
    assert "cannot be reached" in ctl("--bus", "nonsense", "status", code=69)[1]


def test_a_daemon_that_was_stopped_is_not_started_by_a_look_at_it(tmp_path: Path) -> None:
    """Though the bus would, as the package's org.gatewayd.Gateway1.service tells it to."""
    started, policy = tmp_path / "started", tmp_path / "policy.conf"
    (tmp_path / "org.gatewayd.Gateway1.service").write_text(
        f"[D-BUS Service]\nName=org.gatewayd.Gateway1\nExec=/usr/bin/touch {started}\n"
    )
    policy.write_text(f"<busconfig><servicedir>{tmp_path}</servicedir></busconfig>")
    bus = Bus(tmp_path, include=[policy])
    try:
        ctl = Ctl(bus.address)
        for command in (["status"], ["watch"], ["backup", str(tmp_path / "copy")]):
            _, err = ctl(*command, code=69)
            assert "gatewayd is not on the bus" in err
        assert not started.exists()
    finally:
        bus.kill()


def test_the_token_comes_from_stdin_or_a_file_and_goes_nowhere_else(ctl: Ctl, tmp_path: Path) -> None:
    assert "new certificate" in ctl("bootstrap", stdin="eyJ.x.y\n")[0]
    assert "new certificate" in ctl("bootstrap", "--token-file", "-", stdin="eyJ.x.y\n")[0]
    file = tmp_path / "token"
    file.write_text("eyJ.x.y\n")
    assert "new certificate" in ctl("bootstrap", "--token-file", str(file))[0]
    out, err = ctl("bootstrap", stdin="two words", code=64)
    assert "two words" not in out + err
    file.write_text(PEM)
    assert "new certificate" in ctl("bootstrap", "--certificate", str(file))[0]
    file.write_text("-----BEGIN PRIVATE KEY-----\nsecret\n")
    assert "private key" in ctl("bootstrap", "--certificate", str(file), code=64)[1]


def test_a_job_that_fails_gives_its_own_exit_status(ctl: Ctl, daemon: Daemon) -> None:
    daemon.tell("fail IssuerRejected")
    out, err = ctl("renew", "--key", "rsa-2048", code=76)
    assert "✓" in out
    assert "gatewayctl: the CA said no" in err
    out, err = ctl("renew", "--json", code=76)
    assert json.loads(out)["error"]["error"] == "IssuerRejected"
    assert "gatewayctl: the CA said no" in err


def test_not_waiting_and_looking_again(ctl: Ctl, daemon: Daemon) -> None:
    daemon.tell("gate")
    path = ctl("renew", "--no-wait")[0].strip()
    assert json.loads(ctl("revoke", "gw-1", "--reason", "superseded", "--yes", "--no-wait", "--json")[0])["state"] == (
        "running"
    )
    daemon.tell("open")
    assert "certificate accepted by the hub" in ctl("job", path)[0]
    assert "gw-1 has a new certificate" in ctl("job", "1")[0]


def started(ctl: Ctl, *arguments: str) -> subprocess.Popen[str]:
    """A command that is left waiting for its job, which has finished its first step."""
    process = subprocess.Popen(
        [*GATEWAYCTL, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ctl.environment,
    )
    assert process.stdout is not None
    assert "✓" in process.stdout.readline()
    return process


def test_interrupted_it_says_that_the_job_goes_on(ctl: Ctl, daemon: Daemon) -> None:
    daemon.tell("gate")
    process = started(ctl, "renew")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == "The job goes on. To look at it again: gatewayctl job /org/gatewayd/Gateway1/jobs/1\n"
    daemon.tell("open")
    assert "gw-1 has a new certificate" in ctl("job", "1")[0]


def test_when_the_daemon_goes_away_it_says_so(bus: Bus) -> None:
    ctl = Ctl(bus.address)
    with Daemon(bus.address) as daemon:
        daemon.tell("gate")
        process = started(ctl, "renew")
    _, err = process.communicate(timeout=10)
    assert process.returncode == 69
    assert "gatewayd left the bus" in err


def test_a_reader_that_stops_reading_is_no_drama(ctl: Ctl, daemon: Daemon) -> None:
    daemon.tell("leaves 2000")
    command = " ".join([*GATEWAYCTL, "device", "list"])
    piped = subprocess.run(f"{command} | head -1", shell=True, capture_output=True, text=True, env=ctl.environment)
    assert piped.stdout.startswith("DEVICE")
    assert piped.stderr == ""


def test_a_list_is_filtered_sorted_and_cut_as_it_is_asked_for(ctl: Ctl, daemon: Daemon) -> None:
    daemon.tell("leaves 3")
    for options in (["--state", "active", "--hub", "present"], ["--kind", "leaf", "--sort", "expiry"], ["leaf-*"]):
        assert len(ctl("device", "list", *options)[0].splitlines()) == 5
    assert len(ctl("device", "list", "--expiring", "7d", "--sort", "state", "--limit", "2")[0].splitlines()) == 3
    assert ctl("device", "list", "--state", "new", "--json")[0] == "[]\n"
    assert "'active'" in ctl("device", "list", "--state", "gone", code=64)[1]


class TestOnATerminal:
    def run(self, ctl: Ctl, *arguments: str, types: Sequence[str], hidden: bool = False) -> tuple[str, int]:
        """What the terminal shows, and the exit status. One line is typed at each prompt; ``hidden``: once the echo is
        off, since what is typed before that is thrown away."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [*GATEWAYCTL, *arguments], stdin=slave, stdout=slave, stderr=slave, env=ctl.environment
        )
        os.close(slave)
        shown, answered, answers = b"", 0, list(types)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.05)[0]:
                try:
                    shown += os.read(master, 4096)
                except OSError:  # the other end is closed
                    break
            asks = shown[answered:].rstrip().endswith((b":", b"]:"))
            if answers and asks and hidden is not bool(termios.tcgetattr(master)[3] & termios.ECHO):
                answered = len(shown)
                os.write(master, f"{answers.pop(0)}\n".encode())
        os.close(master)
        return shown.decode(), process.wait(timeout=10)

    def test_revoke_asks(self, ctl: Ctl) -> None:
        shown, code = self.run(ctl, "revoke", "gw-1", "--reason", "superseded", types=["n"])
        assert "Revoke gw-1 (superseded)? There is no way back." in shown
        assert code == 130
        shown, code = self.run(ctl, "revoke", "gw-1", "--reason", "superseded", types=["y"])
        assert "verified as disabled in the hub" in shown
        assert code == 0

    def test_the_token_is_not_shown(self, ctl: Ctl) -> None:
        shown, code = self.run(ctl, "bootstrap", types=["eyJ.secret.y"], hidden=True)
        assert "Entra token of a registrar" in shown
        assert "secret" not in shown
        assert code == 0

    def test_a_pin_is_asked_for_and_not_shown(self, ctl: Ctl) -> None:
        shown, code = self.run(ctl, "token", "unlock", types=["right"], hidden=True)
        assert "PIN of the token (not shown):" in shown
        assert "ready" in shown
        assert "right" not in shown
        assert code == 0
        shown, code = self.run(ctl, "token", "unlock", types=["wrong-pin"], hidden=True)
        assert "the token refused the PIN" in shown
        assert "wrong-pin" not in shown
        assert code == 77

    def test_the_pin_of_a_new_token_is_asked_for_twice_until_it_is_the_same(self, ctl: Ctl, daemon: Daemon) -> None:
        typed = ["first-pin", "mistyped", "second-pin", "second-pin"]
        shown, code = self.run(ctl, "token", "init", types=typed, hidden=True)
        assert shown.count("PIN for the new token (not shown):") == 2
        assert shown.count("Repeat for confirmation:") == 2
        assert "do not match" in shown
        assert "ready" in shown
        assert not [each for each in typed if each in shown]
        assert code == 0
