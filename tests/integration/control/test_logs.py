"""gatewayctl logs on a real journal, made of what the daemon would have sent."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd import journald
from gatewayd.core.model import JournalEntry
from gatewayd.errors import HubUnreachable
from tests.support.fakes import START

GATEWAYCTL = [sys.executable, "-m", "gatewayd.control", "logs"]


def exported(sequence: int, message: str, fields: dict[str, str]) -> str:
    """An entry in the journal's export format, as journald would have it of the daemon's unit."""
    trusted = {"_SYSTEMD_UNIT": "gatewayd.service", "_BOOT_ID": "1" * 32, "_MACHINE_ID": "2" * 32}
    stamps = {"__REALTIME_TIMESTAMP": str(1_900_000_000_000_000 + sequence), "__MONOTONIC_TIMESTAMP": str(sequence)}
    everything = {**stamps, **trusted, "PRIORITY": "6", "MESSAGE": message, **fields}
    return "".join(f"{name}={value}\n" for name, value in everything.items()) + "\n"


def record(text: str, *arguments: object, **extra: object) -> dict[str, str]:
    made = logging.makeLogRecord({"msg": text, "args": arguments, "levelno": logging.INFO, **extra})
    return journald.fields(made)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("journal")
    switch = JournalEntry(START, "leaf-1", "gatewayd", "switch", "done", serial="1a2b")
    lines = [
        exported(1, "leaf-1: switch done", record("x", entry=switch)),
        exported(2, "the hub: away", record("the hub: %s", HubUnreachable("away", device="leaf-2"))),
        exported(3, "stopping", {}),
        exported(4, "not ours", {"_SYSTEMD_UNIT": "other.service", "DEVICE_ID": "leaf-1"}),
    ]
    program = "/lib/systemd/systemd-journal-remote"
    command = [program, "-o", str(directory / "a.journal"), "-"]
    subprocess.run(command, input="".join(lines).encode(), check=True, capture_output=True, timeout=20)
    return directory


def logs(*arguments: str, code: int = 0, environment: dict[str, str] | None = None) -> tuple[str, str]:
    command = [*GATEWAYCTL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("filters", "messages"),
    [
        ([], ["leaf-1: switch done", "the hub: away", "stopping"]),
        (["--device", "leaf-1"], ["leaf-1: switch done"]),
        (["--device", "leaf-2"], ["the hub: away"]),
        (["--serial", "0x1A:2B"], ["leaf-1: switch done"]),
        (["--device", "leaf-1", "--serial", "99"], []),
        (["--lines", "1"], ["stopping"]),
        (["--since", "2031-01-01"], []),
    ],
)
def test_what_is_asked_for_is_shown_and_nothing_of_other_units(
    journal: Path, filters: list[str], messages: list[str]
) -> None:
    out, _ = logs("--directory", str(journal), "--json", *filters)
    assert [json.loads(line)["MESSAGE"] for line in out.splitlines()] == messages


def test_for_eyes_it_is_what_journalctl_prints(journal: Path) -> None:
    out, _ = logs("--directory", str(journal), "--device", "leaf-2")
    assert out.rstrip().endswith("the hub: away")


@pytest.mark.parametrize("wrong", [["--device", "a b"], ["--serial", "xyz"], ["--lines", "0"]])
def test_a_filter_that_cannot_be_is_refused(journal: Path, wrong: list[str]) -> None:
    out, err = logs("--directory", str(journal), *wrong, code=64)
    assert out == ""
    assert len(err.splitlines()) == 2


def test_where_there_is_no_journal_it_says_so(tmp_path: Path) -> None:
    out, err = logs(code=69, environment={"PATH": str(tmp_path)})
    assert out == ""
    assert err.splitlines()[0] == "gatewayctl: There is no journalctl on this machine."


def test_a_refusal_in_json_is_as_of_any_other_command(journal: Path) -> None:
    out, _ = logs("--directory", str(journal), "--device", "x y", "--json", code=64)
    assert json.loads(out)["error"] == "InvalidArgument"
