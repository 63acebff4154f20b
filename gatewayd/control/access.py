"""Who may do what on the bus: the one table.

A row for each method and each property that gatewayd offers: the polkit action that it takes. ``wrapper.py`` enforces
the table, ``door.py`` asks polkit, ``scripts/dbus-page`` writes it into docs/dbus.md, and ``make test-door`` calls each
row as root, as an operator, as a technician and as a stranger and compares. What has no row is denied to everybody.

To add a method: describe it in ``interfaces/org.gatewayd.Gateway1.xml`` (the comment before it is its line in
docs/dbus.md), give it a row here and a handler in ``gateway.py``, tell ``tests/support/calls.py`` how it is called, and
run ``scripts/dbus-page``.

Which groups have which action is said by ``systemd/gatewayd.rules``, for polkit; GROUPS says the same for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from ..errors import NotAuthorized

GATEWAY = "org.gatewayd.Gateway1"
JOB = "org.gatewayd.Job1"
MANAGER = "org.freedesktop.DBus.ObjectManager"


class Action(StrEnum):
    """The actions of systemd/org.gatewayd.policy."""

    VIEW = "org.gatewayd.view"
    """See devices, jobs and how everything stands; changes nothing, and asks neither the token nor a peer."""
    REPLACE = "org.gatewayd.replace"
    """Give a leaf new hardware: what a technician in the field does."""
    OPERATE = "org.gatewayd.operate"
    """The daily business with certificates: add, renew, revoke, look for faults."""
    ADMINISTER = "org.gatewayd.administer"
    """What the gateway is, whom it trusts, and its token."""


GROUPS: Mapping[str, frozenset[Action]] = {
    "gatewayd-technicians": frozenset({Action.VIEW, Action.REPLACE}),
    "gatewayd-operators": frozenset({Action.VIEW, Action.REPLACE, Action.OPERATE}),
}
"""Root, and the user that the daemon runs as, may do everything and are not asked about."""

TABLE: Mapping[str, Mapping[str, Action]] = {
    GATEWAY: {
        "GetStatus": Action.VIEW,
        "ListDevices": Action.VIEW,
        "GetDevice": Action.VIEW,
        "AddDevice": Action.OPERATE,
        "NewCode": Action.OPERATE,
        "ReplaceDevice": Action.REPLACE,
        "CancelReplacement": Action.REPLACE,
        "BindDevice": Action.OPERATE,
        "OpenPage": Action.REPLACE,
        "ClosePage": Action.REPLACE,
        "Renew": Action.OPERATE,
        "Revoke": Action.OPERATE,
        "Diagnose": Action.OPERATE,
        "VerifyAudit": Action.OPERATE,
        "ListTokenObjects": Action.OPERATE,
        "Attest": Action.OPERATE,
        "ActivateCredential": Action.OPERATE,
        "Bootstrap": Action.ADMINISTER,
        "BootstrapWithCertificate": Action.ADMINISTER,
        "Export": Action.ADMINISTER,
        "Adopt": Action.ADMINISTER,
        "TrustClock": Action.ADMINISTER,
        "GetRegistrarCertificate": Action.ADMINISTER,
        "UnlockToken": Action.ADMINISTER,
        "InitializeToken": Action.ADMINISTER,
        "Reload": Action.ADMINISTER,
        "Backup": Action.ADMINISTER,
        "Version": Action.VIEW,
        "DeviceId": Action.VIEW,
    },
    JOB: {
        "Kind": Action.VIEW,
        "DeviceId": Action.VIEW,
        "State": Action.VIEW,
        "StartedAt": Action.VIEW,
        "FinishedAt": Action.VIEW,
        "Steps": Action.VIEW,
        "Result": Action.VIEW,
        "Error": Action.VIEW,
    },
    MANAGER: {
        "GetManagedObjects": Action.VIEW,
    },
}


def required(interface: str, member: str) -> Action:
    """What a method, or a property, takes. Raises NotAuthorized when nobody has decided."""
    try:
        return TABLE[interface][member]
    except KeyError:
        raise NotAuthorized(f"{interface}.{member} is in no table of who may: nobody may") from None


def refusal(action: Action, who: str) -> NotAuthorized:
    """``who`` is the beginning of a sentence: ``the user with uid 1000``."""
    groups = [group for group, actions in GROUPS.items() if action in actions]
    if not groups:
        return NotAuthorized(
            f"{who} lacks {action}, which root has", remedy="Call as root, or ask an administrator to."
        )
    return NotAuthorized(
        f"{who} lacks {action}, which root and the members of {' and '.join(groups)} have",
        remedy=f"Ask an administrator to add you to {' or '.join(groups)} (gpasswd -a YOU GROUP), then log in again.",
    )
