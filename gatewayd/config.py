"""gatewayd.toml → typed, validated settings.

The dataclasses below are the schema: a table for each class, a key for each field, the field's comment its meaning.
What the file may not hold: a PIN, a token or any other secret. An unknown key is an error that names the nearest
known one; the whole file is checked before anything starts.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from .core.enrollment import DEVICE_ID
from .core.model import KeyAlgorithm, San, UpstreamWay
from .errors import ConfigInvalid


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    device_id: str
    """The gateway's device id in the hub, and its certificate's CN."""
    key_algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256
    """Of the gateway's own keys; each renewal makes a new one."""
    sans: tuple[San, ...] = ()
    """Names under which leaves reach the EST server, such as "dns:gw-1.plant.example" or "ip:192.0.2.7"."""
    state_directory: Path = Path("/var/lib/gatewayd")
    """The database lies here; mode 0700, the daemon's alone."""


@dataclass(frozen=True, slots=True)
class TokenSettings:
    module: Path = Path("/usr/lib/softhsm/libsofthsm2.so")
    """The PKCS#11 module. For a TPM that is tpm2-pkcs11's, /usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1; what it
    needs, such as TPM2_PKCS11_STORE (a directory of mode 0700), it takes from gatewayd's environment."""
    uri: str = "pkcs11:token=gatewayd"
    """RFC 7512; token, serial and module-path count. A PIN in it (pin-value, pin-source) is refused."""
    pin_credential: str = "token-pin"
    """Name of the systemd credential that holds the PIN."""
    pin_file: Path | None = None
    """A file that holds the PIN instead, readable by its owner alone (0400)."""
    timeout: float = 15.0
    """Seconds that one call into the token may take."""


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """A person or group that owns the domains at EZCA; applications are refused there."""

    object_id: str
    friendly_name: str


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Fractions of a certificate's lifetime."""

    opens: float = 1 / 2
    """Fraction of a certificate's lifetime after which its renewal may begin; each device has a place of its own in
    the window."""
    closes: float = 2 / 3
    """Fraction after which it has begun."""
    emergency: float = 1 / 10
    """With less than this fraction left, a renewal is tried at the shortest interval."""


@dataclass(frozen=True, slots=True)
class DevicePolicySettings(PolicySettings):
    device: str = ""
    """A device id, or a shell-style pattern."""


@dataclass(frozen=True, slots=True)
class RenewalSettings(PolicySettings):
    """What holds where neither the device nor its CA has a policy of its own."""

    devices: tuple[DevicePolicySettings, ...] = ()
    """What holds for some devices; device is an id, or a pattern such as "pump-*"; the first that matches holds."""
    paced: bool = True
    """Whether leaves' renewals go to the CA one by one (docs/renewal.md); false: as they come, as fast as the CA may be
    asked."""


@dataclass(frozen=True, slots=True)
class EzcaSettings:
    """With [issuer] kind = "ezca", ``ca_id`` and ``template_id`` must be given."""

    ca_id: str = ""
    """CAID, as GetAvailableSSLCAs lists it."""
    template_id: str = ""
    """TemplateID, likewise."""
    url: str = "https://portal.ezca.io"
    """The instance: https://eu.ezca.io, https://au.ezca.io, or a private one."""
    est_url: str = ""
    """https://est.ezca.io/EST/{guid}/{guid}/{region}/.well-known/est: the way to renew EC keys."""
    scope: str = "https://management.core.windows.net/.default"
    """Of the Entra token for EZCA; US Gov: https://management.core.usgovcloudapi.net/.default."""
    owners: tuple[OwnerSettings, ...] = ()
    """Who owns the domains: people or groups, for EZCA refuses applications."""
    lifetime_days: int = 30
    """Asked for the gateway's certificate."""
    leaf_lifetime_days: int = 30
    """Asked for leaves' certificates."""
    timeout: float = 30.0
    """Seconds for one call."""
    requests_per_second: float = 10.0
    """At most, of all devices and of every kind."""
    renewal: PolicySettings | None = None
    """For certificates of this CA, instead of [renewal]."""


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    kind: str = "ezca"
    """Which CA issues: "ezca" (table [ezca]) or "est" (table [est_issuer]); docs/issuers.md."""


@dataclass(frozen=True, slots=True)
class EstIssuerSettings:
    """A CA that speaks EST (RFC 7030)."""

    url: str = ""
    """https://ca.example/.well-known/est, with a label after it where the CA has several."""
    leaf_url: str = ""
    """The same for the leaves' certificates, where the CA has another label for them; empty: ``url``."""
    reenroll: bool = True
    """Whether the CA has simplereenroll; without, renewals go to simpleenroll."""
    accepts_expired: bool = False
    """Whether the CA takes an expired certificate as proof of who asks: then a gateway that was off for too long comes
    back by itself."""
    revocable: bool = True
    """Whether the CA publishes what it has revoked (CRL, OCSP). EST cannot revoke: that is done at the CA by its own
    means, and seen there; with false, a revocation does not wait for it."""
    timeout: float = 30.0
    """Seconds for one call."""
    requests_per_second: float = 10.0
    """At most, of all devices and of every kind."""
    renewal: PolicySettings | None = None
    """For certificates of this CA, instead of [renewal]."""


@dataclass(frozen=True, slots=True)
class EntraSettings:
    """Needed where the gateway is registrar: with EZCA, and to write to the hub's registry. Then all three ids must be
    given."""

    tenant_id: str = ""
    """The directory that the application is in."""
    client_id: str = ""
    """The gateway's own application."""
    object_id: str = ""
    """Object id of that application's service principal: it is the requester of the domains at EZCA."""
    authority: str = "https://login.microsoftonline.com"
    """Where tokens are fetched; other clouds have others."""
    timeout: float = 30.0
    """Seconds for one call."""


@dataclass(frozen=True, slots=True)
class HubSettings:
    host: str
    """<hub>.azure-devices.net"""
    registry_url: str = ""
    """Empty: https://<host>"""
    scope: str = "https://iothubs.azure.net/.default"
    """Of the Entra token for the hub's registry."""
    timeout: float = 30.0
    """Seconds for one call or connect."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    way: UpstreamWay = UpstreamWay.REPORT
    """How revoked devices are disabled in the hub: "report", "registry" or "ca" (docs/upstream.md)."""
    fallback: UpstreamWay | None = None
    """With "ca", and only there: the way ("report" or "registry") by which the outcome is looked at, and which is
    gone when the CA's link has not disabled the device in time."""
    deadline: float = 60.0
    """Seconds after which a responder that has not answered is asked again, and after which the CA's link is not
    waited for any longer."""


@dataclass(frozen=True, slots=True)
class TrustSettings:
    bundle: Path | None = None
    """PEM anchors for TLS to the CA, Entra and the hub; absent: the system's."""
    issuer_anchors: Path | None = None
    """PEM roots that issued certificates must chain to, and the issuing CAs below them; absent: those that the issuer
    itself names at bootstrap. ``gatewayctl adopt`` comes before that and needs them."""


@dataclass(frozen=True, slots=True)
class EstSettings:
    address: str = "0.0.0.0"  # noqa: S104 - leaves come from the plant's network
    """Where the EST server listens."""
    port: int = 8443
    """Its TCP port."""
    answer_within: float = 10.0
    """Seconds that a leaf waits for its certificate before it is told 202 and to come back."""
    max_concurrent: int = 64
    """Enrollments under way at once; more are told 429 and to come back."""
    labels: tuple[str, ...] = ()
    """CA labels (RFC 7030, 3.2.2) under which leaves may ask, too: /.well-known/est/<label>/…"""


@dataclass(frozen=True, slots=True)
class PageSettings:
    """The technician's page (docs/page.md)."""

    enabled: bool = False
    """Whether it is served."""
    address: str = "0.0.0.0"  # noqa: S104 - technicians come from the plant's network
    """Where it listens."""
    port: int = 8444
    """Its TCP port."""


@dataclass(frozen=True, slots=True)
class RevocationSettings:
    """Where to learn which certificates the CA has revoked."""

    interval: float = 3600.0
    """Seconds in which each source is looked at once, at least."""
    crl_urls: tuple[str, ...] = ()
    """CRLs to fetch beside those that the certificates name; http or https."""
    distribution_points: bool = True
    """Fetch the CRLs that the certificates name."""
    ocsp: bool = True
    """Ask the responder that a live certificate names about it, one after the other."""
    ca_list: bool = True
    """Read the CA's own list of certificates, as registrar."""
    timeout: float = 120.0
    """Seconds for one CRL."""
    largest_crl: int = 256 * 1024 * 1024
    """Bytes."""
    export_directory: Path | None = None
    """Where the verified CRLs are put, in PEM, for other services of this machine; absent: nowhere."""
    export_mode: str = "0644"
    """Of the exported files, octal."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    bus: str = "system"
    """"system", or a D-Bus address such as unix:path=/run/…"""
    admin_group: str = ""
    """Members may change things; root and the daemon's own user always may."""
    code_lifetime: int = 86400
    """Seconds that a one-time enrollment code lives."""


@dataclass(frozen=True, slots=True)
class ClockSettings:
    trust_kernel: bool = True
    """Whether the kernel's word on being synchronised is believed; false where it is about another clock, as in a
    container with a time of its own. The daemon's unit lets it hear systemd-timesyncd only: for another NTP client add
    a drop-in with ProtectClock=no and SystemCallFilter=adjtimex clock_adjtime."""


@dataclass(frozen=True, slots=True)
class HookSettings:
    """What is done on this machine when the gateway has a new certificate, and once when the hook is new: files are
    written, then the command is run. It may be done twice for one certificate, after a crash. A failure is in the
    status, and it is tried again; no renewal waits for it."""

    name: str
    """In the status and the history; another one for each hook."""
    command: tuple[str, ...] = ()
    """Program and arguments, such as ["systemctl", "reload", "mosquitto"]; there is no shell. GATEWAYD_DEVICE_ID and
    GATEWAYD_CERTIFICATE (the path below) are in its environment, and little else."""
    user: str = ""
    """Who runs it; empty: the daemon's own user. Another one takes rights that the daemon does not have when it runs as
    its own unit has it: there let polkit allow the daemon's user to reload the unit."""
    timeout: float = 30.0
    """Seconds; then it is killed, and whatever it has started."""
    certificate: Path | None = None
    """Where the gateway's certificate and its chain are put, in PEM, by atomic rename. Never a key: that is in the
    token. The daemon's unit can write here only with the directory in ReadWritePaths= of a drop-in."""
    chain: Path | None = None
    """The same for the chain alone."""
    mode: str = "0644"
    """Of these files, octal."""
    owner: str = ""
    """Of these files: "user", "user:group" or ":group"; empty: the daemon's."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = "info"
    """debug, info, warning or error."""


@dataclass(frozen=True, slots=True)
class Settings:
    gateway: GatewaySettings
    hub: HubSettings
    issuer: IssuerSettings = field(default_factory=IssuerSettings)
    ezca: EzcaSettings = field(default_factory=EzcaSettings)
    est_issuer: EstIssuerSettings = field(default_factory=EstIssuerSettings)
    entra: EntraSettings = field(default_factory=EntraSettings)
    token: TokenSettings = field(default_factory=TokenSettings)
    registrar_token: TokenSettings | None = None
    """Where the registrar's key lives, when not in the same token as the gateway's keys."""
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)
    est: EstSettings = field(default_factory=EstSettings)
    page: PageSettings = field(default_factory=PageSettings)
    renewal: RenewalSettings = field(default_factory=RenewalSettings)
    revocation: RevocationSettings = field(default_factory=RevocationSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    clock: ClockSettings = field(default_factory=ClockSettings)
    hooks: tuple[HookSettings, ...] = ()
    log: LogSettings = field(default_factory=LogSettings)

    @property
    def tokens(self) -> dict[str, TokenSettings]:
        """By whose keys they hold: ``gateway``, and ``registrar`` where that one has a token of its own."""
        return {"gateway": self.token} | ({"registrar": self.registrar_token} if self.registrar_token else {})


def load(path: Path) -> Settings:
    """Read and check the file. Raises ConfigInvalid with one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigInvalid(f"{path}: {reason}") from None
    try:
        return parse(text)
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{path}: {error.message}") from None


def parse(text: str) -> Settings:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"not valid TOML: {error}") from None
    settings = typing.cast(Settings, _table(Settings, document, ""))
    _check(settings)
    return settings


def _table(cls: type[Any], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigInvalid(f"[{where}] must be a table")
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            what = f"[{where}] {key}" if where else f"[{key}]"
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.0)
            raise ConfigInvalid(f"unknown key {what}; the nearest known one is {near[0]!r}")
    values: dict[str, Any] = {}
    for name, item in fields.items():
        inner = f"{where}.{name}" if where else name
        if name in table:
            values[name] = _value(hints[name], table[name], inner)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ConfigInvalid(f"[{where}] {name} is missing" if where else f"table [{name}] is missing")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint is not San:
        return _table(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigInvalid(f"{where} must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, each, f"{where}[{index}]") for index, each in enumerate(value))
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ConfigInvalid(f"{where} is too large a number") from None
    if hint in (int, float, bool, str):
        if type(value) is not hint:
            raise ConfigInvalid(f"{where} must be {_NAMES[hint]}, not {value!r}")
        return value
    if not isinstance(value, str):
        raise ConfigInvalid(f"{where} must be text, not {value!r}")
    if hint is Path:
        return Path(value)
    if hint is San:
        try:
            return San.parse(value)
        except ValueError as error:
            raise ConfigInvalid(f"{where}: {error}") from None
    if issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            known = ", ".join(str(each.value) for each in hint)
            raise ConfigInvalid(f"{where} must be one of {known}, not {value!r}") from None
    raise AssertionError(hint)


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _policies(settings: Settings) -> Iterator[tuple[str, PolicySettings]]:
    yield "renewal", settings.renewal
    if settings.ezca.renewal is not None:
        yield "ezca.renewal", settings.ezca.renewal
    if settings.est_issuer.renewal is not None:
        yield "est_issuer.renewal", settings.est_issuer.renewal
    for index, each in enumerate(settings.renewal.devices):
        where = f"renewal.devices[{index}]"
        if not each.device:
            raise ConfigInvalid(f"{where}: device is missing")
        yield where, each


def _check(settings: Settings) -> None:
    if not DEVICE_ID.fullmatch(settings.gateway.device_id):
        raise ConfigInvalid(f"gateway.device_id {settings.gateway.device_id!r} is not a device id that the hub takes")
    urls = (
        ("ezca.url", settings.ezca.url),
        ("ezca.est_url", settings.ezca.est_url),
        ("entra.authority", settings.entra.authority),
        ("hub.registry_url", settings.hub.registry_url),
        ("est_issuer.url", settings.est_issuer.url),
        ("est_issuer.leaf_url", settings.est_issuer.leaf_url),
    )
    for where, url in (*urls, *(("revocation.crl_urls", each) for each in settings.revocation.crl_urls)):
        if "@" in url.partition("://")[2].partition("/")[0]:  # it would be shown to all, in the status and in errors
            raise ConfigInvalid(f"{where} must not carry a user or a password")
    for where, url in urls:
        if url and not re.fullmatch(r"https://[^/\s?#]+(/[^\s?#]*)?", url):
            raise ConfigInvalid(f"{where} must be an https URL, not {url!r}")
    for url in settings.revocation.crl_urls:
        if not re.fullmatch(r"https?://[^/\s?#]+(/\S*)?", url):
            raise ConfigInvalid(f"revocation.crl_urls must be http or https URLs, not {url!r}")
    if not re.fullmatch(r"0?[0-7]{3}", settings.revocation.export_mode):
        raise ConfigInvalid(
            f'revocation.export_mode must be octal, such as "0644", not {settings.revocation.export_mode!r}'
        )
    for where, token in (("token", settings.token), ("registrar_token", settings.registrar_token)):
        if token is not None and re.search(r"pin-(value|source)", token.uri):
            raise ConfigInvalid(f"{where}.uri must not carry a PIN: give it as a systemd credential or in a file")
    for where, policy in _policies(settings):
        if not 0 < policy.opens < policy.closes < 1 - policy.emergency < 1:
            raise ConfigInvalid(f"{where}: 0 < opens < closes < 1 - emergency < 1 must hold")
    for where, number, least, most in (
        ("token.timeout", settings.token.timeout, 0.1, 3600),
        ("registrar_token.timeout", (settings.registrar_token or settings.token).timeout, 0.1, 3600),
        ("ezca.timeout", settings.ezca.timeout, 0.1, 3600),
        ("est_issuer.timeout", settings.est_issuer.timeout, 0.1, 3600),
        ("est_issuer.requests_per_second", settings.est_issuer.requests_per_second, 0.01, 1000),
        ("entra.timeout", settings.entra.timeout, 0.1, 3600),
        ("hub.timeout", settings.hub.timeout, 0.1, 3600),
        ("upstream.deadline", settings.upstream.deadline, 1, 86400),
        ("ezca.requests_per_second", settings.ezca.requests_per_second, 0.01, 1000),
        ("ezca.lifetime_days", settings.ezca.lifetime_days, 1, 36500),
        ("ezca.leaf_lifetime_days", settings.ezca.leaf_lifetime_days, 1, 36500),
        ("est.port", settings.est.port, 1, 65535),
        ("page.port", settings.page.port, 1, 65535),
        ("est.answer_within", settings.est.answer_within, 0, 600),
        ("est.max_concurrent", settings.est.max_concurrent, 1, 65535),
        ("revocation.interval", settings.revocation.interval, 1, 7 * 86400),
        ("revocation.timeout", settings.revocation.timeout, 0.1, 3600),
        ("revocation.largest_crl", settings.revocation.largest_crl, 1024, 4 * 1024**3 - 1),
        ("control.code_lifetime", settings.control.code_lifetime, 60, 366 * 86400),
    ):
        if not least <= number <= most:  # nan is outside, too
            raise ConfigInvalid(f"{where} must be from {least} to {most}, not {number}")
    upstream = settings.upstream
    if upstream.way is not UpstreamWay.CA and upstream.fallback is not None:
        raise ConfigInvalid('upstream.fallback goes with upstream.way = "ca" only')
    if upstream.way is UpstreamWay.CA and upstream.fallback not in (UpstreamWay.REPORT, UpstreamWay.REGISTRY):
        raise ConfigInvalid('upstream.way = "ca" needs upstream.fallback = "report" or "registry"')
    _check_complete(settings)
    _check_hooks(settings.hooks)
    if settings.log.level not in ("debug", "info", "warning", "error"):
        raise ConfigInvalid(f"log.level must be debug, info, warning or error, not {settings.log.level!r}")


_NEEDED = {"ezca": ("ezca.ca_id", "ezca.template_id"), "est": ("est_issuer.url",)}
"""What each kind of issuer cannot do without; the kinds themselves are ca.issuers'."""
_REGISTRAR = ("entra.tenant_id", "entra.client_id", "entra.object_id")


def _check_complete(settings: Settings) -> None:
    """Tables that only some configurations need must be whole where they are needed."""
    if (kind := settings.issuer.kind) not in _NEEDED:
        raise ConfigInvalid(f"issuer.kind must be one of {', '.join(_NEEDED)}, not {kind!r}")
    needed = _NEEDED[kind]
    if kind == "ezca" or UpstreamWay.REGISTRY in (settings.upstream.way, settings.upstream.fallback):
        needed += _REGISTRAR
    for name in needed:
        table, _, key = name.partition(".")
        if not getattr(getattr(settings, table), key):
            raise ConfigInvalid(f"[{table}] {key} is missing")


def _check_hooks(hooks: tuple[HookSettings, ...]) -> None:
    for index, hook in enumerate(hooks):
        where = f"hooks[{index}]"
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", hook.name):
            raise ConfigInvalid(f"{where}.name must be 1 to 64 of A-Z a-z 0-9 . _ -, not {hook.name!r}")
        if hook.name in (each.name for each in hooks[:index]):
            raise ConfigInvalid(f"{where}.name {hook.name!r} is there twice")
        if not hook.command and hook.certificate is None and hook.chain is None:
            raise ConfigInvalid(f"{where} does nothing: it needs command, certificate or chain")
        if any("\0" in each for each in hook.command) or (hook.command and not hook.command[0]):
            raise ConfigInvalid(f"{where}.command is not one that can be run")
        if not re.fullmatch(r"0?[0-7]{3}", hook.mode):
            raise ConfigInvalid(f'{where}.mode must be octal, such as "0644", not {hook.mode!r}')
        if not 0.1 <= hook.timeout <= 3600:
            raise ConfigInvalid(f"{where}.timeout must be from 0.1 to 3600, not {hook.timeout}")
        for path in (hook.certificate, hook.chain):
            if path is not None and not path.is_absolute():
                raise ConfigInvalid(f"{where}: {path} must be an absolute path")
