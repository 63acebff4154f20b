"""What a line of the log is to the journal, and that the catalog has a word on each kind."""

from __future__ import annotations

import ast
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd import journald, messages
from gatewayd.core.lifecycle import Action
from gatewayd.core.model import JournalEntry, Milestone
from gatewayd.errors import CodeRefused, HubUnreachable, all_errors
from gatewayd.services.events import Events
from tests.support.fakes import START

REPOSITORY = Path(__file__).parents[2]


def fields_of(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    return journald.fields(caplog.records[-1])


def test_an_event_names_its_device_its_certificate_and_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Events().publish(JournalEntry(START, "leaf-1", "gatewayd", "switch", "done", serial="1a2b"))
    assert fields_of(caplog) == {
        "MESSAGE_ID": messages.Message("event:switch", "", "").id.hex,
        "DEVICE_ID": "leaf-1",
        "CERT_SERIAL": "1a2b",
        "GATEWAYD_EVENT": "switch",
        "GATEWAYD_OUTCOME": "done",
    }


@pytest.mark.parametrize("detail", ["HubUnreachable: no answer.", "gateway: HubUnreachable: no answer."])
def test_a_failure_is_searched_for_by_what_has_failed_it(caplog: pytest.LogCaptureFixture, detail: str) -> None:
    Events().publish(JournalEntry(START, "leaf-1", "gatewayd", "accept", "failed", detail))
    found = fields_of(caplog)
    assert found["MESSAGE_ID"] == messages.of_error(HubUnreachable).id.hex
    assert (found["GATEWAYD_EVENT"], found["GATEWAYD_ERROR"]) == ("accept", "HubUnreachable")


def test_an_error_among_the_arguments_of_a_line_says_whose_it_is(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("gatewayd.x").error("the door: %s", CodeRefused("no such code", device="leaf-1"))
    assert fields_of(caplog) == {
        "MESSAGE_ID": messages.of_error(CodeRefused).id.hex,
        "GATEWAYD_ERROR": "CodeRefused",
        "DEVICE_ID": "leaf-1",
    }


def test_what_was_not_expected_is_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("gatewayd.x").exception("it failed")
    assert fields_of(caplog) == {"MESSAGE_ID": messages.of_life("defect").id.hex}


def test_a_line_about_nothing_in_particular_has_no_fields(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("gatewayd.x").error("%s of %d", "one", 2)
    assert fields_of(caplog) == {}


def test_every_message_id_has_its_entry_in_the_catalog_and_no_other() -> None:
    catalog = re.findall(r"^-- ([0-9a-f]{32})$", (REPOSITORY / "packaging" / "gatewayd.catalog").read_text(), re.M)
    expected = [each.id.hex for each in messages.everything()]
    assert sorted(catalog) == sorted(expected)
    assert len(set(expected)) == len(expected)
    assert {f"error:{name}" for name in all_errors() if not name.startswith("_")} <= {
        each.name for each in messages.everything()
    }


def test_whatever_is_written_down_has_a_message_id() -> None:
    """What the code names in so many words, and what it takes from a table."""
    named = {str(each) for each in (*Milestone, Action.MAKE_KEY, Action.REQUEST, Action.ACCEPT, Action.SWITCH)}
    for file in (REPOSITORY / "gatewayd").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name("JournalEntry"), args=[_, _, _, ast.Constant(value=str(what)), *_]):
                    named.add(what)
    assert "revocation" in named
    for what in (*named, "hook mosquitto", "simpleenroll from 192.0.2.1", "bootstrap from a certificate"):
        assert messages.of_event(what), what


def test_journald_takes_the_catalog(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (folder / "gatewayd.catalog").write_bytes((REPOSITORY / "packaging/gatewayd.catalog").read_bytes())
    subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"], check=True, capture_output=True)
    listed = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--list-catalog"], check=True, capture_output=True, text=True
    ).stdout
    assert len(listed.splitlines()) == len(messages.everything())


def test_standard_error_is_the_journal_only_when_it_is_what_systemd_has_made_of_it() -> None:
    with Path(os.devnull).open("w") as stream:
        facts = os.fstat(stream.fileno())
        named = f"{facts.st_dev}:{facts.st_ino}"
        assert journald.goes_to_journal(stream, {"JOURNAL_STREAM": named})
        assert not journald.goes_to_journal(stream, {"JOURNAL_STREAM": "1:1"})
        assert not journald.goes_to_journal(stream, {})


_IN_THE_JOURNALS_PLACE = """
import logging, os, pathlib, socket, sys
place = pathlib.Path("/run/systemd/journal/socket")
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
    place.parent.mkdir(parents=True, exist_ok=True)
    ear.bind(str(place))
    stderr = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{stderr.st_dev}:{stderr.st_ino}"
    from gatewayd import journald
    from gatewayd.errors import PinRefused
    journald.set_up("info")
    logging.getLogger("gatewayd.keys").error("the token: %s", PinRefused("no\\nsecond line", device="gw-1"))
    sys.stdout.buffer.write(ear.recv(65536))
"""


def test_the_journal_is_spoken_to_in_its_own_protocol(tmp_path: Path) -> None:
    script = f"mount -t tmpfs none /run && exec {sys.executable} -c '{_IN_THE_JOURNALS_PLACE}'"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, cwd=REPOSITORY, timeout=30)
    assert done.returncode == 0, done.stderr
    assert b"\nPRIORITY=3\n" in done.stdout
    assert b"\nDEVICE_ID=gw-1\n" in done.stdout
    assert f"\nMESSAGE_ID={messages.of_error(all_errors()['PinRefused']).id.hex}\n".encode() in b"\n" + done.stdout
    assert done.stdout.startswith(b"MESSAGE\n")  # several lines: told by their length
    assert done.stderr == b""
