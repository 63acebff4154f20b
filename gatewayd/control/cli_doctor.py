"""gatewayctl doctor: everything that can be wrong, looked at now, each with what to do.

What takes the daemon's rights, its network and what it knows the daemon looks at itself (Diagnose): whether it reaches
a peer is not what a shell can tell. What comes before the daemon is looked at here: the configuration that its next
start reads, and the groups; and where the daemon does not answer, all else that another process can see.
"""

from __future__ import annotations

import asyncio
import grp
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import RELEASED
from ..core import clock, doctor
from ..core.doctor import Area, Finding, Verdict
from ..errors import ConfigInvalid, DaemonUnreachable, GatewayError, NotAuthorized
from .app import App, as_json, rendering

if TYPE_CHECKING:
    from ..config import Settings
    from .base import Data

DEFAULT = "/etc/gatewayd/gatewayd.toml"
GROUPS = ("gatewayd-operators", "gatewayd-technicians")


@click.command("doctor")
@click.option(
    "--config",
    metavar="FILE",
    help=f"The daemon's configuration; unless given, the file that it runs with, or {DEFAULT}.",
)
@as_json
@click.pass_obj
def command(app: App, config: str | None) -> None:
    """Look at everything that can be wrong, and say what to do about it.

    Works when the daemon is down, too, and then says what could not be checked. The exit status is 0 when there is no
    problem, else that of the first class with one (gatewayctl(1)).
    """
    answer = _asked(app)
    settings, found = _configuration(Path(config or _in_use(app, answer)))
    found += _groups()
    if isinstance(answer, GatewayError):
        if settings is None:
            found += _unknown_peers(found[0])
        else:
            found += asyncio.run(_outside(settings))
        found += [_daemon(answer), *_unseen(answer)]
        answer = []
    seen = [*(_data(each, "gatewayctl") for each in found), *answer]
    order = [str(each) for each in Area]
    seen.sort(key=lambda each: order.index(each["area"]))
    problems = [Finding(Area(each["area"]), "", Verdict(each["verdict"]), "") for each in seen]
    code = doctor.exit_code(problems)
    app.show({"findings": seen, "exit_status": code}, lambda: rendering().findings(seen))
    raise click.exceptions.Exit(code)


def _asked(app: App) -> list[Data] | GatewayError:
    """What the daemon has found, or why it does not say."""
    try:
        findings: list[Data] = app.client.call("Diagnose")
    except GatewayError as error:
        return error
    return [each | {"seen_by": "gatewayd"} for each in findings]


def _in_use(app: App, answer: list[Data] | GatewayError) -> str:
    """The configuration that the daemon runs with, if it answers."""
    if isinstance(answer, GatewayError):
        return DEFAULT
    try:
        status: Data = app.client.call("GetStatus")
    except GatewayError:
        return DEFAULT
    return str(status["configuration"].get("file", DEFAULT))


def _configuration(path: Path) -> tuple[Settings | None, list[Finding]]:
    from .. import config

    if not _may_read(path):
        why = f"{path} is not readable by you."
        return None, [doctor.unknown(Area.CONFIGURATION, "file", why, "Run this as root.")]
    try:
        settings = config.load(path)
    except ConfigInvalid as error:
        remedy = "Correct it ('gatewayd check' looks at it alone); a running daemon goes on with what it has read."
        return None, [Finding(Area.CONFIGURATION, "file", Verdict.PROBLEM, f"{error.message}.", remedy)]
    return settings, [Finding(Area.CONFIGURATION, "file", Verdict.FINE, f"{path} is well-formed.")]


def _may_read(path: Path) -> bool:
    """What else may be wrong with it is told by whoever reads it."""
    try:
        path.open().close()
    except OSError as error:
        return not isinstance(error, PermissionError)
    return True


def _groups() -> list[Finding]:
    """Without them polkit lets nobody but root through."""
    known = {each.gr_name for each in grp.getgrall()}
    missing = [name for name in GROUPS if name not in known]
    if not missing:
        return [Finding(Area.PERMISSIONS, "groups", Verdict.FINE, f"The groups {' and '.join(GROUPS)} exist.")]
    what = f"There is no group {' and no group '.join(missing)}: only root may call gatewayd."
    remedy = "'systemd-sysusers' makes what the package describes."
    return [Finding(Area.PERMISSIONS, "groups", Verdict.WARNING, what, remedy)]


def _daemon(error: GatewayError) -> Finding:
    if isinstance(error, DaemonUnreachable):
        remedy = "'systemctl status gatewayd'; 'gatewayctl logs --explain --lines 20' says why it does not run."
        return Finding(Area.DAEMON, "daemon", Verdict.PROBLEM, f"{error.message}.", remedy)
    verdict = Verdict.UNKNOWN if isinstance(error, NotAuthorized) else Verdict.PROBLEM
    return Finding(Area.DAEMON, "daemon", verdict, f"gatewayd does not say: {error.message.rstrip('.')}.", error.remedy)


async def _outside(settings: Settings) -> list[Finding]:
    from .. import kernel_clock
    from ..checkup import checks, probes

    now = datetime.now(UTC)
    synchronised = kernel_clock.synchronised()
    verdict = clock.judge(now, synchronised, clock.KnownTime(RELEASED))
    found = [doctor.time_of_day(verdict, synchronised, now), *checks.disk(settings)]
    found += checks.permissions(settings, uid=probes.uid_of(checks.USER), environ={})
    found += checks.trusted(settings, now)
    try:
        tls = ssl.create_default_context(cafile=settings.trust.bundle)
    except (OSError, ssl.SSLError):
        return found  # ``trusted`` has said so
    return found + await checks.network(settings, tls)


def _unknown_peers(configuration: Finding) -> list[Finding]:
    """What the configuration would tell, of which it is known what is wrong with it."""
    why = "Whom gatewayd talks to is in its configuration, which cannot be read."
    unreadable = configuration.verdict is Verdict.UNKNOWN
    fix = configuration.remedy if unreadable else "Correct the configuration first."
    return [doctor.unknown(area, "configured", why, fix) for area in (Area.DISK, Area.NAMES, Area.CA, Area.HUB)]


def _unseen(error: GatewayError) -> list[Finding]:
    start = "It is checked once gatewayd runs: 'systemctl start gatewayd'."
    if not isinstance(error, DaemonUnreachable):
        start = error.remedy
    return [
        doctor.unknown(Area.TOKEN, "token", "Whether the token works only the daemon can tell.", start),
        doctor.unknown(Area.HUB, "link", "Whether the hub lets the gateway in only the daemon can tell.", start),
        doctor.unknown(Area.EXPIRY, "certificates", "When certificates end is in the daemon's database.", start),
    ]


def _data(finding: Finding, seen_by: str) -> Data:
    known = {"area": str(finding.area), "check": finding.check, "verdict": str(finding.verdict), "what": finding.what}
    return {**known, **({"remedy": finding.remedy} if finding.remedy else {}), "seen_by": seen_by}
