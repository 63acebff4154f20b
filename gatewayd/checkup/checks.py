"""What can be checked by any process that has the configuration: the daemon, or gatewayctl in its place.

A check is a small function: facts from probes.py into a verdict of core.doctor.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from ..config import Settings
from ..core import doctor
from ..core.doctor import Area, Endpoint, FileFacts, Finding, Verdict
from ..core.model import UpstreamWay
from ..errors import ConfigInvalid
from ..pki import pem
from . import probes

USER = "gatewayd"
"""Who runs the daemon where its own unit does."""
MQTT_PORT = 8883
_TPM = Path("/dev/tpmrm0")


def endpoints(settings: Settings) -> list[Endpoint]:
    """Whom gatewayd connects to, as it is configured; each host and port once."""
    named: list[tuple[Area, str, str, str]] = []
    registrar = settings.issuer.kind == "ezca"
    if registrar:
        named.append((Area.CA, "EZCA", "[ezca] url", settings.ezca.url))
        named.append((Area.CA, "EZCA's EST server", "[ezca] est_url", settings.ezca.est_url))
    else:
        named.append((Area.CA, "the CA", "[est_issuer] url", settings.est_issuer.url))
        named.append((Area.CA, "the leaves' CA", "[est_issuer] leaf_url", settings.est_issuer.leaf_url))
    named.append((Area.HUB, "the hub", "[hub] host", f"mqtts://{settings.hub.host}:{MQTT_PORT}"))
    if UpstreamWay.REGISTRY in (settings.upstream.way, settings.upstream.fallback):
        registrar = True
        url = settings.hub.registry_url or f"https://{settings.hub.host}"
        named.append((Area.HUB, "the hub's registry", "[hub] registry_url", url))
    if registrar:
        named.append((Area.CA, "Entra", "[entra] authority", settings.entra.authority))
    found: dict[tuple[str, int], Endpoint] = {}
    for area, name, setting, url in named:
        parts = urlsplit(url)
        if parts.hostname:
            key = (parts.hostname, parts.port or 443)
            found.setdefault(key, Endpoint(area, name, setting, *key))
    return list(found.values())


async def network(settings: Settings, tls: ssl.SSLContext) -> list[Finding]:
    """All at once: it takes as long as the slowest."""
    asked = endpoints(settings)
    contacts = await asyncio.gather(*(probes.contact(each.host, each.port, tls) for each in asked))
    has_bundle = settings.trust.bundle is not None
    found = [
        finding
        for endpoint, contact in zip(asked, contacts, strict=True)
        for finding in doctor.peer(endpoint, contact, has_bundle=has_bundle)
    ]
    return list(dict.fromkeys(found))  # a name that several peers have is said to be fine once


def disk(settings: Settings) -> list[Finding]:
    path = settings.gateway.state_directory
    if (found := probes.space(path)) is None:
        return [doctor.unknown(Area.DISK, "space", f"How much room {path} has cannot be told.", "Look with 'df'.")]
    return [doctor.disk(str(path), *found)]


def permissions(
    settings: Settings, *, uid: int | None, owner: str = USER, environ: Mapping[str, str] = os.environ
) -> list[Finding]:
    """``uid``: the daemon's, None when it is not known; ``environ``: its, empty when another process looks."""
    state = settings.gateway.state_directory
    found = [
        _file("state directory", state, lambda facts: doctor.private_directory(str(state), facts, owner, uid)),
    ]
    for name, token in settings.tokens.items():
        check = f"{name}'s PIN"
        if token.pin_file is not None:
            file = token.pin_file
            found.append(_file(check, file, partial(doctor.secret_file, check, str(file), uid=uid)))
        elif directory := environ.get("CREDENTIALS_DIRECTORY"):
            given = os.access(Path(directory) / token.pin_credential, os.R_OK)
            found.append(doctor.credential(check, token.pin_credential, given))
        if "tpm2" in token.module.name and not os.access(_TPM, os.R_OK | os.W_OK):
            what = f"{_TPM} cannot be used by uid {os.geteuid()}."
            remedy = "Is there a TPM ('ls /dev/tpm*'), is its user in the group tss, and DeviceAllow= in the unit?"
            found.append(Finding(Area.PERMISSIONS, f"{name}'s TPM", Verdict.PROBLEM, what, remedy))
    if (export := settings.revocation.export_directory) is not None and not os.access(export, os.W_OK):
        what = f"Verified CRLs cannot be written to {export}."
        remedy = f"'install -d -o {owner} {export}', and ReadWritePaths={export} in a drop-in of the unit."
        found.append(Finding(Area.PERMISSIONS, "export directory", Verdict.PROBLEM, what, remedy))
    return found


def metrics(settings: Settings) -> list[Finding]:
    """For the daemon alone: its runtime directory is there while it runs."""
    socket = settings.metrics.address()
    if not isinstance(socket, Path) or os.access(socket.parent, os.W_OK):
        return []
    what = f"The metrics' socket cannot be made in {socket.parent}."
    remedy = "The unit lets it be made in /run/gatewayd: [metrics] listen = '/run/gatewayd/metrics.sock'."
    return [Finding(Area.PERMISSIONS, "metrics", Verdict.PROBLEM, what, remedy)]


def _file(check: str, path: Path, judge: Callable[[FileFacts | None], Finding]) -> Finding:
    try:
        return judge(probes.file_facts(path))
    except PermissionError:
        what = f"{path} may not be looked at by this user."
        return doctor.unknown(Area.PERMISSIONS, check, what, "Run this as root.")


def trusted(settings: Settings, now: datetime) -> list[Finding]:
    """The anchors that the configuration names."""
    found: list[Finding] = []
    for where, path in (("bundle", settings.trust.bundle), ("issuer_anchors", settings.trust.issuer_anchors)):
        if path is None:
            continue
        try:
            certificates = pem.bundle(path)
        except ConfigInvalid as error:
            remedy = f"Correct [trust] {where}."
            found.append(Finding(Area.CONFIGURATION, where, Verdict.PROBLEM, error.message, remedy))
        else:
            found += anchors(where, certificates, now, f"Put its successor into {path} ([trust] {where}) beside it.")
    return found


def anchors(check: str, certificates: Iterable[x509.Certificate], now: datetime, remedy: str) -> list[Finding]:
    """The earliest, and every other that needs a look."""
    judged = [
        doctor.anchor(
            check, each.subject.rfc4514_string() or "A CA without a name", each.not_valid_after_utc, now, remedy
        )
        for each in sorted(certificates, key=lambda each: each.not_valid_after_utc)
    ]
    return judged[:1] + [each for each in judged[1:] if each.verdict is not Verdict.FINE]
