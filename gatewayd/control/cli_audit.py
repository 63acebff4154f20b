"""gatewayctl audit: whether what was written down is still what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import AuditTrailBroken, GatewayError, InvalidArgument
from . import arguments, words
from .app import App, as_json, read

if TYPE_CHECKING:
    from cryptography import x509

    from .base import Data


_MAX_HEAD = 256 * 1024
"""Characters; a twin is shorter."""


@click.group()
def audit() -> None:
    """The tamper-evident audit trail: who did what, when, and what came of it."""


@audit.command()
@click.option("--database", metavar="FILE", help="Verify a copy of gatewayd.db, without the daemon.")
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    metavar="FILE",
    help="The registrar's certificate (PEM), as it was uploaded to Entra; with --database.",
)
@click.option("--head", metavar="FILE", help="A head that was published earlier: the gateway's twin, as JSON.")
@as_json
@click.pass_obj
def verify(app: App, database: str | None, certificates: tuple[str, ...], head: str | None) -> None:
    """Verify every record of the audit trail, and the heads that the token has signed.

    Says which record was changed, is missing or was moved; the exit status is 65 then.

    Whoever can write to the file can cut off its end, and the heads behind it. Therefore the newest head is published
    in the gateway's twin in the hub (reported property gatewayd.audit): a copy that is verified with --head must hold
    all that was signed there.
    """
    if (database is None) != (not certificates):
        raise InvalidArgument("--database and --certificate go together")
    if head is not None and database is None:
        raise InvalidArgument("--head is for a copy: give --database and --certificate, too")
    data = app.client.call("VerifyAudit") if database is None else _verify_copy(Path(database), certificates, head)
    app.show(data, lambda: _rendered(data))
    if not data["intact"]:
        raise AuditTrailBroken("the audit trail is not as it was written")


def _verify_copy(database: Path, files: tuple[str, ...], head: str | None) -> Data:
    from ..core.audit import Verification, report
    from ..pki import heads, pem
    from ..store.journal import copy_of

    known: list[x509.Certificate] = []
    for file in files:
        try:
            known += pem.certificates(arguments.certificate(read(file, arguments.MAX_PEM)))
        except GatewayError as error:
            raise InvalidArgument(f"{file}: {error.message}") from None
    with copy_of(database) as journal:
        all_heads, written = journal.heads(), journal.written()
        if head is not None:
            try:
                all_heads = [*all_heads, heads.from_published(json.loads(read(head, _MAX_HEAD)), known)]
            except ValueError as error:
                raise InvalidArgument(f"{head}: {error}") from None
        verification = Verification(all_heads, heads.trusted_by(known))
        first = 1
        while records := journal.records(first, 1000):
            verification.take(records)
            first = records[-1].seq + 1
    return report(verification, all_heads, written)


def _rendered(data: Data) -> str:
    signed = f"signed up to record {data['signed_up_to']}" if data["signed_up_to"] else "nothing signed yet"
    if "signed_at" in data:
        signed += f" ({words.local(data['signed_at'])})"
    lines = [f"{data['records']} records, {signed}"]
    for each in data["findings"]:
        first, last = each["first"], each["last"]
        which = f"record {first}" if first == last else f"records {first} to {last}"
        lines.append(f"{which}: {words.clean(each['fault'])} ({words.clean(each['detail'])})")
    return "\n".join([*lines, "intact" if data["intact"] else "NOT intact"])
