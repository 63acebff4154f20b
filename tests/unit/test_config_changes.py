"""Of a new configuration what is live is taken up, what is not is named, and nothing is passed over."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gatewayd.config import Settings, changes, parse

LEAST = """
[gateway]
device_id = "gw-1"
[ezca]
ca_id = "c"
template_id = "t"
[entra]
tenant_id = "t"
client_id = "c"
object_id = "o"
[hub]
host = "hub.example"
"""


def settings(more: str = "") -> Settings:
    return parse(LEAST + more)


@pytest.mark.parametrize(
    ("more", "applied", "needs_restart"),
    [
        ("", (), ()),
        ('[log]\nlevel = "debug"', ("log.level",), ()),
        ("[est]\nport = 9000", (), ("est.port",)),
        ("[renewal]\nopens = 0.4\npaced = false", ("renewal.opens", "renewal.paced"), ()),
        ("[ezca.renewal]\nopens = 0.4", ("ezca.renewal",), ()),
        ('[[hooks]]\nname = "a"\ncommand = ["true"]', ("hooks",), ()),
        ('[registrar_token]\nuri = "pkcs11:token=other"', (), ("registrar_token",)),
        (
            '[revocation]\ninterval = 60\nocsp = false\n[control]\ncode_lifetime = 600\nbus = "unix:path=/x"',
            ("revocation.interval", "control.code_lifetime"),
            ("revocation.ocsp", "control.bus"),
        ),
    ],
)
def test_each_change_is_either_in_force_or_named(
    more: str, applied: tuple[str, ...], needs_restart: tuple[str, ...]
) -> None:
    change = changes.decide(settings(), settings(more))
    assert (change.applied, change.needs_restart) == (applied, needs_restart)


def test_what_needs_a_restart_is_named_until_then_and_not_mixed_in() -> None:
    old, new = settings(), settings('[est]\nport = 9000\n[log]\nlevel = "debug"')
    first = changes.decide(old, new)
    assert first.settings.log.level == "debug"
    assert first.settings.est.port == old.est.port
    again = changes.decide(first.settings, new)
    assert again == changes.Change(first.settings, (), ("est.port",))
    back = changes.decide(first.settings, settings('[log]\nlevel = "debug"'))
    assert back == changes.Change(first.settings, (), ())


def test_every_live_name_is_that_of_a_setting() -> None:
    for name in changes.LIVE:
        value: Any = settings("[ezca.renewal]\n[est_issuer.renewal]")
        for part in name.split("."):
            assert part in {each.name for each in dataclasses.fields(value)}
            value = getattr(value, part)
