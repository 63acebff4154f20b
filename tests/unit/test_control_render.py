"""What a person reads: control.words and control.render."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import segno
from rich.console import RenderableType

from gatewayd.control import qr, render, words
from gatewayd.errors import InvalidArgument
from tests.support.fake_operations import FakeOperations, device, revocation

NOW = datetime(2031, 5, 1, 12, 0, 0, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))


def shown(renderable: RenderableType) -> str:
    console = render.console()
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d12h", 129600)])
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert words.duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "2 hours", "h", "-1h", "1h1d", "1.5h", "9999999d"])
def test_wrong_lengths_of_time(text: str) -> None:
    with pytest.raises(InvalidArgument, match="length of time"):
        words.duration(text)


def test_times_are_local_with_their_offset() -> None:
    assert words.local("2031-05-01T12:00:00Z", EAST) == "2031-05-01 14:00:00 +0200"
    assert words.local("9999-12-31T23:59:59Z", EAST) == "9999-12-31 23:59:59 +0000"
    assert words.clock("2031-05-01T12:00:00Z", EAST) == "14:00:00"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2031-05-21T12:00:00Z", "in 20 days"),
        ("2031-05-01T14:30:00Z", "in 2 h"),
        ("2031-05-01T11:57:00Z", "3 min ago"),
        ("2031-05-01T12:00:00Z", "0 s ago"),
    ],
)
def test_distances(text: str, read: str) -> None:
    assert words.distance(text, NOW) == read


async def test_status_says_what_waits_and_how_far_each_revocation_is() -> None:
    operations = FakeOperations()
    operations.devices["leaf-1"] = device("leaf-1", state="new")
    operations.revocations = [revocation("leaf-2", 2, "HubUnreachable: the hub is away")]
    operations.waiting = [
        {"what": "the PIN was refused", "device_id": "gw-1", "error": "PinRefused", "remedy": "Correct the PIN."}
    ]
    text = shown(render.status(await operations.status()))
    assert "in 31 days" in text
    assert "1 new" in text
    assert "the PIN was refused" in text
    assert "→ Correct the PIN." in text
    assert "revoked at the CA — proof of revoked-at-ca" in text
    assert "reported upstream — tried 3 times" in text
    assert "HubUnreachable: the hub is away" in text
    assert "· verified as disabled" in text


async def test_a_daemon_that_has_nothing_yet_is_shown_as_such() -> None:
    operations = FakeOperations()
    operations.devices = {"gw-1": device("gw-1", "gateway", state="new")}
    status = await operations.status()
    status |= {"issuer": {"name": "ezca"}, "est": {"listening": False}, "clock": {"sane": False}}
    status["hub"] = {"host": "hub.example", "state": "off", "registry": {}}
    text = shown(render.status(status))
    assert "none yet" in text
    assert "not listening" in text
    assert "not trusted" in text


async def test_device_show_is_complete() -> None:
    operations = FakeOperations()
    operations.devices["leaf-1"] = device("leaf-1", sans=["dns:leaf-1.example"])
    operations.revocations = [revocation("leaf-1", 5)]
    text = shown(render.device(await operations.device_show("leaf-1")))
    for word in ("dns:leaf-1.example", "serial 1a2b", "current", "keyCompromise", "proof of verified", "uid:0"):
        assert word in text


def test_a_peer_cannot_write_on_the_terminal() -> None:
    step = {
        "step": "revoked-at-ca",
        "state": "done",
        "at": "2031-05-01T12:00:00Z",
        "detail": "\x1b[2J[bold]\r\u202egone",
    }
    text = shown(render.step(step))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\u202e" not in text
    assert "[bold]" in text


def test_a_qr_is_drawn_whole_and_dark_on_light() -> None:
    url = "https://leaf-7:VFSD-9ASC-5SWE-HV3S@gw-1.example:8443"
    drawn = qr.drawn(url)
    halves = {cell: pair for pair, cell in qr._HALVES.items()}
    rows = []
    for line in drawn.plain.split("\n"):
        pairs = [halves[cell] for cell in line]
        rows += [[top for top, _ in pairs], [bottom for _, bottom in pairs]]
    modules = [list(row) for row in segno.make_qr(url, error="m").matrix_iter(border=4)]
    assert rows[: len(modules)] == modules
    assert not any(map(any, rows[len(modules) :]))
    assert str(drawn.style) == "#000000 on #ffffff"


async def test_status_is_one_screen_however_much_there_is() -> None:
    operations = FakeOperations()
    complete = [revocation(f"done-{number}", 5) for number in range(10)]
    operations.revocations = [revocation(f"leaf-{number}", 1) for number in range(100)] + complete
    operations.waiting = [
        {"what": f"{number} is over", "error": "CertificateExpired", "remedy": f"'gatewayctl device code {number}'"}
        for number in range(30)
    ]
    lines = shown(render.status(await operations.status())).splitlines()
    assert len(lines) < 75
    assert sum("refused here" in line for line in lines) == 3
    assert "  and 20 more: 'gatewayctl status --json'" in lines
    assert "  and 90 more: 'gatewayctl status --json'" in lines
    assert any("leaf-9" in line and "not yet revoked at the CA" in line for line in lines)
    assert sum("complete" in line for line in lines) == 3
    assert "'gatewayctl doctor'" in lines[-1]  # one of the revocation sources has failed


def test_what_the_doctor_finds_has_a_mark_and_what_to_do() -> None:
    found = [
        {"area": "disk", "check": "space", "verdict": "problem", "what": "3 MB\x1b are free.", "remedy": "Make room."},
        {"area": "token", "check": "token", "verdict": "fine", "what": "It works."},
    ]
    lines = shown(render.findings(found)).splitlines()
    assert lines[0].startswith("✗ disk")
    assert "\x1b" not in lines[0]
    assert lines[1].strip() == "→ Make room."
    assert lines[-1] == "1 fine · 1 wrong"
