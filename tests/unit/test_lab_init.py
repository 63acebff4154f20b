"""``python -m gatewayd.lab init`` and the command line around it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from gatewayd.lab import init
from gatewayd.lab.__main__ import main


def test_a_lab_is_made_once_and_its_secrets_are_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "lab"
    assert main(["init", "--dir", str(directory), "--address", "127.9.9.9"]) == 0
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert directory.stat().st_mode & 0o777 == 0o700
    for path in directory.iterdir():
        secret = b"PRIVATE KEY" in path.read_bytes() or path.name == "hub-key"
        assert path.stat().st_mode & 0o777 == (0o600 if secret else 0o644), path.name

    assert main(["init", "--dir", str(directory)]) == 73
    assert "holds a lab already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_the_web_certificate_is_for_the_address_that_was_named(tmp_path: Path) -> None:
    init.make(tmp_path / "lab", "127.9.9.9")
    web = x509.load_pem_x509_certificate((tmp_path / "lab" / "web-cert.pem").read_bytes())
    names = web.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.9.9.9", "127.0.0.1"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    root = x509.load_pem_x509_certificate((tmp_path / "lab" / "web-root.pem").read_bytes())
    web.verify_directly_issued_by(root)
    ssl.create_default_context(cafile=tmp_path / "lab" / "web-root.pem")


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ezcaa"]) == 64
    assert "ezca,entra,hub" in capsys.readouterr().err
    assert main(["--help"]) == 0


@pytest.mark.parametrize("command", ["ezca", "entra"])
def test_a_stand_in_without_a_lab_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--dir", str(tmp_path / "nowhere")]) == 69
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "cannot start" in captured.err
    assert captured.err.count("\n") == 1
