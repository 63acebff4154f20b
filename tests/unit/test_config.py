"""gatewayd.toml: what is taken, and the one line that says what is wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.config import EzcaSettings, HubSettings, Settings, TokenSettings, load, parse
from gatewayd.core.model import KeyAlgorithm, ManufacturerUse, San
from gatewayd.errors import ConfigInvalid

TABLES = {
    "gateway": 'device_id = "gw-1"',
    "ezca": 'ca_id = "ca"\ntemplate_id = "template"',
    "entra": 'tenant_id = "tenant"\nclient_id = "client"\nobject_id = "object"',
    "hub": 'host = "hub.azure-devices.net"',
}


def document(**extra: str) -> str:
    """The least that is needed, with lines added to tables."""
    names = [*TABLES, *(name for name in extra if name not in TABLES)]
    return "\n".join(f"[{name}]\n{TABLES.get(name, '')}\n{extra.get(name, '')}" for name in names)


def refusal(text: str) -> str:
    with pytest.raises(ConfigInvalid) as refused:
        parse(text)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_the_least_that_is_needed() -> None:
    settings = parse(document())
    assert settings.gateway.device_id == "gw-1"
    assert settings.gateway.key_algorithm is KeyAlgorithm.EC_P256
    assert settings.gateway.state_directory == Path("/var/lib/gatewayd")
    assert settings.trust.bundle is None


def test_everything_is_typed() -> None:
    settings = parse(
        document(
            gateway='sans = ["dns:gw-1.plant.example", "ip:192.0.2.7"]\nkey_algorithm = "rsa-2048"',
            ezca='timeout = 5\n[[ezca.owners]]\nobject_id = "id"\nfriendly_name = "Plant team"',
            trust='bundle = "/etc/gatewayd/web.pem"',
        )
    )
    assert settings.gateway.sans == (San.parse("dns:gw-1.plant.example"), San.parse("ip:192.0.2.7"))
    assert settings.gateway.key_algorithm is KeyAlgorithm.RSA_2048
    assert isinstance(settings.ezca.timeout, float)
    assert settings.ezca.owners[0].friendly_name == "Plant team"
    assert settings.trust.bundle == Path("/etc/gatewayd/web.pem")


@pytest.mark.parametrize(
    ("extra", "names", "nearest"),
    [
        ({"hub": 'hots = "x"'}, "[hub] hots", "'host'"),
        ({"ezca": "lifetime = 30"}, "[ezca] lifetime", "'lifetime_days'"),
        ({"ezca": '[[ezca.owners]]\nobject_id = "id"\nfriendlyName = "x"'}, "friendlyName", "'friendly_name'"),
        ({"tokens": ""}, "[tokens]", "'token'"),
        ({"gateway": 'zzz = ""'}, "[gateway] zzz", "'"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(extra: dict[str, str], names: str, nearest: str) -> None:
    message = refusal(document(**extra))
    assert names in message
    assert f"nearest known one is {nearest}" in message


KNOWN = {each.name for each in fields(HubSettings)}


@given(st.from_regex(r"[A-Za-z0-9_-]{1,30}", fullmatch=True).filter(lambda key: key not in KNOWN))
def test_any_unknown_key_is_refused_with_a_suggestion(key: str) -> None:
    message = refusal(document(hub=f"{key} = 1"))
    assert f"[hub] {key};" in message
    assert any(f"{known!r}" in message for known in KNOWN)


@given(st.sampled_from([each.name for each in fields(EzcaSettings)]), st.data())
def test_a_slip_of_one_letter_is_recognised(key: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(key)))
    slip = f"{key[:position]}q{key[position:]}"
    table = f"[ezca]\n{slip} = 1\n"
    assert f"{key!r}" in refusal(document().replace("[ezca]\n", table))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[gateway", "not valid TOML"),
        ("", "[gateway] is missing"),
        ("[gateway]\n", "[gateway] device_id is missing"),
        (document().replace("ca_id", "#"), "[ezca] ca_id is missing"),
        ("gateway = 1", "[gateway] must be a table"),
        (document(gateway='sans = "dns:gw"'), "gateway.sans must be a list"),
        (document(gateway='sans = ["gw.example"]'), "gateway.sans[0]: 'gw.example' is not of the form kind:value"),
        (document(gateway='sans = ["mail:gw"]'), "gateway.sans[0]: 'mail' is not a kind"),
        (document(gateway='key_algorithm = "ed25519"'), "must be one of ec-p256"),
        (document(gateway="state_directory = 1"), "gateway.state_directory must be text"),
        (document(token="timeout = true"), "token.timeout must be a number"),
        (document(token='timeout = "15"'), "token.timeout must be a number"),
        (document(est="port = 8443.0"), "est.port must be a whole number"),
        (document(est="labels = [1]"), "est.labels[0] must be text"),
        (document(ezca="owners = [1]"), "[ezca.owners[0]] must be a table"),
    ],
)
def test_what_is_not_of_the_right_form(text: str, says: str) -> None:
    assert says in refusal(text)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"gateway": ""}, "device_id"),
        ({"ezca": 'url = "http://portal.ezca.io"'}, "ezca.url must be an https URL"),
        ({"ezca": 'est_url = "https://"'}, "ezca.est_url must be an https URL"),
        ({"entra": 'authority = "https://login.example?x"'}, "entra.authority must be an https URL"),
        ({"ezca": 'url = "https://me:secret@portal.ezca.io"'}, "ezca.url must not carry a user or a password"),
        ({"revocation": 'crl_urls = ["http://me@pki.example/a"]'}, "crl_urls must not carry a user or a password"),
        ({"hub": 'registry_url = "hub"'}, "hub.registry_url must be an https URL"),
        ({"token": 'uri = "pkcs11:token=t?pin-value=1234"'}, "must not carry a PIN"),
        ({"token": 'uri = "pkcs11:token=t?pin-source=file:/x"'}, "must not carry a PIN"),
        ({"registrar_token": 'uri = "pkcs11:token=t?pin-value=1234"'}, "registrar_token.uri must not carry a PIN"),
        ({"registrar_token": "timeout = 0"}, "registrar_token.timeout must be from"),
        ({"registrar_token": "pin = 1234"}, "unknown key [registrar_token] pin"),
        ({"token": "pin_file = 1"}, "token.pin_file must be text"),
        ({"renewal": "opens = 0.7"}, "renewal: "),
        ({"renewal": "closes = 0.95"}, "renewal: "),
        ({"renewal": "opens = nan"}, "renewal: "),
        ({"est": "port = 0"}, "est.port"),
        ({"est": "port = 65536"}, "est.port"),
        ({"est": "answer_within = -1"}, "est.answer_within must be from 0 to"),
        ({"control": "code_lifetime = 59"}, "control.code_lifetime must be from 60 to"),
        ({"ezca": "lifetime_days = 0"}, "ezca.lifetime_days must be from 1 to"),
        ({"revocation": "interval = 0"}, "revocation.interval must be from 1 to"),
        ({"revocation": 'crl_urls = ["ldap://pki.example/a"]'}, "revocation.crl_urls must be http or https URLs"),
        ({"revocation": 'export_mode = "rw-r--r--"'}, "revocation.export_mode must be octal"),
        ({"log": 'level = "verbose"'}, "log.level must be debug"),
    ],
)
def test_what_makes_no_sense(extra: dict[str, str], says: str) -> None:
    text = document(**extra)
    if says == "device_id":
        text = text.replace("gw-1", "gw 1")
    assert says in refusal(text)


@pytest.mark.parametrize(
    "extra",
    [
        {"token": "timeout = nan"},
        {"hub": "timeout = inf"},
        {"ezca": f"timeout = {'9' * 400}"},
        {"ezca": "lifetime_days = 4000000"},
        {"ezca": "leaf_lifetime_days = 99999999999"},
        {"control": "code_lifetime = 99999999999999"},
        {"est": "answer_within = 86400.0"},
    ],
)
def test_a_number_that_could_not_be_waited_for(extra: dict[str, str]) -> None:
    ((table, line),) = extra.items()
    assert f"{table}.{line.split()[0]} " in refusal(document(**extra))


def test_the_registrars_key_may_have_a_token_of_its_own() -> None:
    assert list(parse(document()).tokens) == ["gateway"]
    settings = parse(document(registrar_token='uri = "pkcs11:token=registrar"\npin_file = "/etc/gatewayd/pin"'))
    assert settings.tokens["gateway"] == TokenSettings()
    assert settings.tokens["registrar"].uri == "pkcs11:token=registrar"
    assert settings.tokens["registrar"].pin_file == Path("/etc/gatewayd/pin")


def test_a_pin_in_the_uri_is_not_repeated() -> None:
    assert "1234" not in refusal(document(token='uri = "pkcs11:token=t?pin-value=1234"'))


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"\xff", "is not UTF-8"), (b"[gateway]", "device_id is missing")]
)
def test_what_is_wrong_with_a_file_names_the_file(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "gatewayd.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=str(path)) as refused:
        load(path)
    assert says in refused.value.message
    assert refused.value.exit_code == 78


def test_a_good_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "gatewayd.toml"
    path.write_text(document(), encoding="utf-8")
    assert isinstance(load(path), Settings)


ACME = 'name = "acme"\nanchors = "/etc/acme.pem"\n'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('uses = ["renew"]', "must be one of enroll, re-enroll-expired"),
        ("uses = []", "uses is empty"),
        ('device = "pump"', 'must hold "{serial}" once'),
        ('hardware_type = "1.2.3"', "hardware_type goes with"),
        ('identity = "hardware-module"', "hardware_type goes with"),
        ('identity = "hardware-module"\nhardware_type = "1.2.x"', "must be an OID"),
        ("[[manufacturers]]\n" + ACME, "is there twice"),
    ],
)
def test_a_manufacturer_that_makes_no_sense(line: str, says: str) -> None:
    assert says in refusal(f"{document()}\n[[manufacturers]]\n{ACME}{line}")


def test_a_manufacturer() -> None:
    (acme,) = parse(f'{document()}\n[[manufacturers]]\n{ACME}device = "pump-{{serial}}"').manufacturers
    assert (acme.name, acme.anchors, acme.device) == ("acme", Path("/etc/acme.pem"), "pump-{serial}")
    assert set(acme.uses) == set(ManufacturerUse)
