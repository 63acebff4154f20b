"""What happens, from the daemon's signals: devices that come or look different, jobs and their steps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from queue import Empty

from ..errors import DaemonUnreachable, GatewayError
from .access import GATEWAY, JOB, MANAGER
from .base import Data
from .client import BACK, LEFT, LOST, Client, Heard, job_data

_WANTED = (
    (GATEWAY, "DeviceChanged", None),
    (MANAGER, "InterfacesAdded", None),
    (JOB, "Progress", None),
    (JOB, "Finished", None),
)


def happenings(client: Client, pause: float) -> Iterator[Data | None]:
    """Each as docs/json.md has it (gatewayctl watch), from now on and without end; None after ``pause`` seconds in
    which nothing has happened. A daemon that goes away is waited for. Raises DaemonUnreachable when the bus is gone."""
    jobs: dict[str, Data] = {}
    with client.listening(*_WANTED) as news:
        while True:
            try:
                heard = news.get(timeout=pause)
            except Empty:
                yield None
                continue
            if heard.member == LOST:
                raise DaemonUnreachable("the connection to the bus is lost")
            if (found := _told(client, heard, jobs)) is not None:
                yield {"at": _now(), **found}


def _told(client: Client, heard: Heard, jobs: dict[str, Data]) -> Data | None:
    """``jobs``: what is known of those under way, by path."""
    if heard.member in (LEFT, BACK):
        jobs.clear()
        return {"event": "daemon", "running": heard.member == BACK}
    if heard.member == "DeviceChanged":
        return {"event": "device", "device": heard.values[1]}
    if heard.member == "InterfacesAdded":
        path, interfaces = heard.values
        if JOB not in interfaces:
            return None
        jobs[path] = job_data(path, interfaces[JOB])  # as it was then: it may be over already
        return {"event": "job", "job": jobs[path]}
    if heard.member == "Finished":
        ended = _job(client, heard.path, jobs)
        jobs.pop(heard.path, None)
        return ended
    step, state, detail = heard.values
    if heard.path not in jobs and _job(client, heard.path, jobs) is None:
        return None
    about = {key: jobs[heard.path][key] for key in ("job", "kind", "device_id")}
    return {"event": "step", **about, "step": step, "state": state, **({"detail": detail} if detail else {})}


def _job(client: Client, path: str, jobs: dict[str, Data]) -> Data | None:
    try:
        jobs[path] = client.job(path)
    except GatewayError:  # it is gone already, or the daemon is: which is told by itself
        return None
    return {"event": "job", "job": jobs[path]}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
