"""The TPM simulator, seen with OpenSC and tpm2-tools."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tpm_sim import TpmSimError, main

from tests.support.tpm import TpmToken, create


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[TpmToken]:
    token = create(tmp_path / "tpm")
    token.tool("--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "one", login=True)
    yield token
    token.sim.stop()


def sign(tpm: TpmToken, directory: Path) -> bytes:
    data, signature = directory / "digest", directory / "signature"
    data.write_bytes(bytes(32))
    arguments = ("--sign", "--mechanism", "ECDSA", "--id", "01", "-i", str(data), "-o", str(signature))
    tpm.tool(*arguments, login=True)
    return signature.read_bytes()


def test_the_same_tpm_comes_back_after_it_was_switched_off_and_after_it_was_killed(
    tpm: TpmToken, tmp_path: Path
) -> None:
    for ends in (tpm.sim.stop, tpm.sim.kill):
        ends()
        with pytest.raises(TpmSimError):
            tpm.sim.tool("tpm2_getrandom", "--hex", "8")
        tpm.sim.start()
        assert len(sign(tpm, tmp_path)) == 64


def test_clients_share_it_as_if_each_had_it_alone_and_leave_nothing_behind(tpm: TpmToken, tmp_path: Path) -> None:
    def one(number: int) -> int:
        directory = tmp_path / str(number)
        directory.mkdir()
        return len(sign(tpm, directory))

    with ThreadPoolExecutor(max_workers=4) as pool:
        assert list(pool.map(one, range(8))) == [64] * 8
    assert tpm.sim.tool("tpm2_getcap", "handles-transient") == ""
    assert tpm.sim.tool("tpm2_getcap", "handles-loaded-session") == ""


def test_a_frozen_tpm_answers_once_it_is_thawed(tpm: TpmToken) -> None:
    tpm.sim.freeze()
    with subprocess.Popen(["tpm2_getrandom", "--hex", "8"], env=tpm.env, stdout=subprocess.PIPE, text=True) as asking:
        with pytest.raises(subprocess.TimeoutExpired):
            asking.wait(0.5)
        tpm.sim.thaw()
        answer, _ = asking.communicate(timeout=10)
    assert len(answer) == 16


def test_a_slow_tpm_takes_its_time_with_each_command(tpm: TpmToken) -> None:
    tpm.sim.slow(300)
    began = time.monotonic()
    tpm.sim.tool("tpm2_getrandom", "--hex", "8")
    assert time.monotonic() - began > 0.3
    tpm.sim.slow(0)


def test_the_command_line_makes_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = ["--dir", str(tmp_path / "state")]
    assert main([*directory, "start"]) == 0
    assert "export TPM2_PKCS11_STORE=" in capsys.readouterr().out
    assert main([*directory, "stop"]) == 0
    assert main([*directory, "freeze"]) == 1
    assert capsys.readouterr().err == "tpm_sim.py: swtpm does not run\n"


def test_a_full_tpm_takes_no_more_until_it_is_cleared(tpm: TpmToken, tmp_path: Path) -> None:
    tpm.sim.fill()
    with pytest.raises(TpmSimError, match="NV"):
        tpm.sim.tool("tpm2_nvdefine", "-C", "o", "-s", "64")
    assert len(sign(tpm, tmp_path)) == 64
    tpm.sim.clear()
    tpm.sim.tool("tpm2_nvdefine", "-C", "o", "-s", "64")
    with pytest.raises(subprocess.CalledProcessError):
        sign(tpm, tmp_path)
