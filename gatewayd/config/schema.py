"""The schema of gatewayd.toml: a table for each class, a key for each field, the string after it its meaning.

What the file may not hold: a PIN, a token or any other secret. gatewayd.toml(5) is written from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..core.model import IdentitySource, KeyAlgorithm, ManufacturerUse, San, UpstreamWay
from ..core.renewal import RenewalPolicies, RenewalPolicy


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

    def policy(self) -> RenewalPolicy:
        return RenewalPolicy(self.opens, self.closes, self.emergency)


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
class ManufacturerSettings:
    """Leaves may enroll with the certificate that their manufacturer has put into them (IEEE 802.1AR: IDevID) instead
    of a one-time code (docs/manufacturers.md)."""

    name: str
    """In the status and the history; another one for each manufacturer."""
    anchors: Path
    """PEM: the manufacturer's CAs. Each of them is an anchor by itself."""
    identity: IdentitySource = IdentitySource.SERIAL_NUMBER
    """What tells one piece of hardware from another: "serial-number" (of the subject), "common-name", or
    "hardware-module" (hwSerialNum in the alternative names)."""
    hardware_type: str = ""
    """With "hardware-module", and only there: the hwType (an OID) whose serial numbers these are."""
    uses: tuple[ManufacturerUse, ...] = (ManufacturerUse.ENROLL, ManufacturerUse.EXPIRED)
    """What its certificate is good for: "enroll" (the first certificate of a device, or of its new hardware),
    "re-enroll-expired" (a new one for a device whose certificate is over). Never while the present one is valid."""
    device: str = ""
    """Which device a piece of hardware is that nobody has bound, such as "pump-{serial}"; the device must be known here
    all the same. Empty: none."""
    with_code: bool = False
    """Whether a one-time code has to come along."""


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
    code_lifetime: int = 86400
    """Seconds that a one-time enrollment code lives."""


@dataclass(frozen=True, slots=True)
class ClockSettings:
    trust_kernel: bool = True
    """Whether the kernel's word on being synchronised is believed; false where it is about another clock, as in a
    container with a time of its own."""


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
class MetricsSettings:
    """For Prometheus (docs/metrics.md)."""

    listen: str = ""
    """Where GET /metrics is answered: a UNIX socket by its absolute path, for the daemon's user and group, or a
    loopback address with its port, such as "127.0.0.1:9464". Empty: nowhere, and nothing is measured."""

    def address(self) -> Path | tuple[str, int] | None:
        """None where they are off."""
        if not self.listen:
            return None
        if self.listen.startswith("/"):
            return Path(self.listen)
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


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
    manufacturers: tuple[ManufacturerSettings, ...] = ()
    hooks: tuple[HookSettings, ...] = ()
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)

    @property
    def tokens(self) -> dict[str, TokenSettings]:
        """By whose keys they hold: ``gateway``, and ``registrar`` where that one has a token of its own."""
        return {"gateway": self.token} | ({"registrar": self.registrar_token} if self.registrar_token else {})

    @property
    def policies(self) -> RenewalPolicies:
        """Of the CA that issues, where it has one of its own, else those of [renewal]."""
        own = {"ezca": self.ezca.renewal, "est": self.est_issuer.renewal}[self.issuer.kind]
        by_device = [(each.device, each.policy()) for each in self.renewal.devices]
        return RenewalPolicies((own or self.renewal).policy(), by_device)
