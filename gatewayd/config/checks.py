"""What a type does not say: bounds, forms, and which settings go together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..core.enrollment import DEVICE_ID
from ..core.model import IdentitySource, UpstreamWay
from ..errors import ConfigInvalid
from .schema import HookSettings, ManufacturerSettings, PolicySettings, Settings


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


def check(settings: Settings) -> None:
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
        ("upstream.deadline", settings.upstream.deadline, 1, 21600),
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
    _check_metrics(settings.metrics.listen)
    _check_manufacturers(settings.manufacturers)
    if settings.log.level not in ("debug", "info", "warning", "error"):
        raise ConfigInvalid(f"log.level must be debug, info, warning or error, not {settings.log.level!r}")


def _check_metrics(listen: str) -> None:
    """What they tell is for this machine: nothing keeps strangers from a port that others can reach."""
    if not listen or re.fullmatch(r"/[^\0]{1,106}", listen):
        return
    try:
        url = urlsplit(f"//{listen}")
        if url.port and url.netloc == listen and ip_address(url.hostname or "").is_loopback:
            return
    except ValueError:
        pass
    raise ConfigInvalid(
        f"metrics.listen must be a UNIX socket by its absolute path, or a loopback address with a port, not {listen!r}"
    )


NEEDED = {"ezca": ("ezca.ca_id", "ezca.template_id"), "est": ("est_issuer.url",)}
"""What each kind of issuer cannot do without; the kinds themselves are ca.issuers'."""
_REGISTRAR = ("entra.tenant_id", "entra.client_id", "entra.object_id")


def _check_complete(settings: Settings) -> None:
    """Tables that only some configurations need must be whole where they are needed."""
    if (kind := settings.issuer.kind) not in NEEDED:
        raise ConfigInvalid(f"issuer.kind must be one of {', '.join(NEEDED)}, not {kind!r}")
    needed = NEEDED[kind]
    if kind == "ezca" or UpstreamWay.REGISTRY in (settings.upstream.way, settings.upstream.fallback):
        needed += _REGISTRAR
    for name in needed:
        table, _, key = name.partition(".")
        if not getattr(getattr(settings, table), key):
            raise ConfigInvalid(f"[{table}] {key} is missing")


def _check_manufacturers(manufacturers: tuple[ManufacturerSettings, ...]) -> None:
    for index, each in enumerate(manufacturers):
        where = f"manufacturers[{index}]"
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", each.name):
            raise ConfigInvalid(f"{where}.name must be 1 to 64 of A-Z a-z 0-9 . _ -, not {each.name!r}")
        if each.name in (other.name for other in manufacturers[:index]):
            raise ConfigInvalid(f"{where}.name {each.name!r} is there twice")
        if (each.identity is IdentitySource.HARDWARE_MODULE) != bool(each.hardware_type):
            raise ConfigInvalid(f'{where}.hardware_type goes with identity = "hardware-module", and only there')
        if each.hardware_type and not re.fullmatch(r"(0|1|2)\.[0-3]?[0-9](\.(0|[1-9][0-9]*))+", each.hardware_type):
            raise ConfigInvalid(f"{where}.hardware_type must be an OID, not {each.hardware_type!r}")
        if not each.uses:
            raise ConfigInvalid(f"{where}.uses is empty: its certificates would be good for nothing")
        if each.device and each.device.count("{serial}") != 1:
            raise ConfigInvalid(f'{where}.device must hold "{{serial}}" once, not {each.device!r}')


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
