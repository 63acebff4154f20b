"""Where the PIN comes from, and that it does not show."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from gatewayd.errors import PinMissing
from gatewayd.keys import pin


def pipe(content: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


@pytest.mark.parametrize("content", [b"4711", b"4711\n", b"4711\r\n"])
def test_the_pin_is_read_from_a_descriptor_which_is_then_closed(content: bytes) -> None:
    fd = pipe(content)
    assert pin.from_fd(fd).reveal() == "4711"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("content", [b"", b"\n", b"4711\n4712\n", b"\xff\xfe", b"9" * 256, b"47\x0011"])
def test_what_is_no_pin_is_refused_without_showing_it(content: bytes) -> None:
    with pytest.raises(PinMissing) as caught:
        pin.from_fd(pipe(content))
    assert "47" not in caught.value.message


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    for fd in (987, -1):
        with pytest.raises(PinMissing):
            pin.from_fd(fd)


def test_the_pin_is_read_from_a_systemd_credential(tmp_path: Path) -> None:
    (tmp_path / "token-pin").write_text("pässword\n", encoding="utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert pin.from_credential("token-pin", environ).reveal() == "pässword"
    for name in ("other", "../token-pin", "", ".."):
        with pytest.raises(PinMissing):
            pin.from_credential(name, environ)
    with pytest.raises(PinMissing, match="CREDENTIALS_DIRECTORY"):
        pin.from_credential("token-pin", {})


def test_the_pin_is_read_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text("4711\n", encoding="utf-8")
    file.chmod(0o400)
    assert pin.from_file(file).reveal() == "4711"
    for mode in (0o600, 0o440, 0o404, 0o500):
        file.chmod(mode)
        with pytest.raises(PinMissing, match=f"has mode {mode:04o}: it must be 0400"):
            pin.from_file(file)
    file.chmod(0o400)
    os.chown(file, 65534, -1)
    with pytest.raises(PinMissing, match="belongs to uid 65534"):
        pin.from_file(file)
    link = tmp_path / "link"
    link.symlink_to(file)
    os.mkfifo(tmp_path / "fifo", 0o400)
    for path, words in (
        (link, "could not be read"),
        (tmp_path / "fifo", "is not a regular file"),
        (tmp_path / "missing", "No such file"),
    ):
        with pytest.raises(PinMissing, match=words):
            pin.from_file(path)


def test_the_pin_does_not_show() -> None:
    secret = pin.Pin("4711")
    assert "4711" not in f"{secret} {secret!r} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
