"""gatewayctl attest: a TPM's word that the gateway's key is in it, for others to check (docs/attestation.md)."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InvalidArgument
from . import arguments
from .app import App, as_json

if TYPE_CHECKING:
    from .base import Data


@click.command()
@click.option("--nonce", metavar="HEX", help="The verifier's nonce: 8 to 32 random bytes.")
@click.option("--output", metavar="DIR", help="Where to write the files for tpm2-tools; the directory is made.")
@click.option("--activate", metavar="FILE", help="Answer this credential challenge instead; '-' is standard input.")
@as_json
@click.pass_obj
def attest(app: App, nonce: str | None, output: str | None, activate: str | None) -> None:
    """Have the TPM say that the key of the gateway's certificate is in it, and answer for itself.

    With --nonce and --output, writes what a CA or an auditor checks with tpm2-tools and openssl. With --activate,
    prints (in hex) the secret that tpm2_makecredential has put into a challenge for this TPM.
    """
    if activate is not None:
        if nonce is not None or output is not None:
            raise InvalidArgument("--activate goes with neither --nonce nor --output")
        challenge = arguments.challenge(b64encode(_read(activate)).decode())
        data = app.client.call("ActivateCredential", "(s)", b64encode(challenge).decode())
        app.show(data, lambda: data["secret"])
        return
    if nonce is None or (output is None and not app.as_json):
        raise InvalidArgument("give --nonce with --output or --json, or --activate")
    arguments.nonce(nonce)
    if output is not None and Path(output).exists():
        raise InvalidArgument(f"{output} is there already: the files of two attestations are not to be mixed")
    data = app.client.call("Attest", "(s)", nonce)
    if output is not None:
        _write(Path(output), data)
    app.show(data, lambda: f"{len(data['files'])} files are in {output}; docs/attestation.md says how to check them.")


def _read(file: str) -> bytes:
    try:
        if file == "-":
            return sys.stdin.buffer.read(arguments.MAX_CHALLENGE + 1)
        with Path(file).open("rb") as opened:
            return opened.read(arguments.MAX_CHALLENGE + 1)
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from None


def _write(directory: Path, data: Data) -> None:
    try:
        directory.mkdir()
        for name, content in data["files"].items():
            (directory / Path(name).name).write_bytes(b64decode(content))
    except OSError as error:
        raise InvalidArgument(f"{directory} cannot be written: {error.strerror}") from None
