"""gatewayd.toml → typed, validated settings: schema.py says what there is, reader.py reads it, checks.py bounds it.

The whole file is checked before anything starts.
"""

from .reader import load, parse
from .schema import (
    ClockSettings,
    ControlSettings,
    DevicePolicySettings,
    EntraSettings,
    EstIssuerSettings,
    EstSettings,
    EzcaSettings,
    GatewaySettings,
    HookSettings,
    HubSettings,
    IssuerSettings,
    LogSettings,
    ManufacturerSettings,
    MetricsSettings,
    OwnerSettings,
    PageSettings,
    PolicySettings,
    RenewalSettings,
    RevocationSettings,
    Settings,
    TokenSettings,
    TrustSettings,
    UpstreamSettings,
)

__all__ = [
    "ClockSettings",
    "ControlSettings",
    "DevicePolicySettings",
    "EntraSettings",
    "EstIssuerSettings",
    "EstSettings",
    "EzcaSettings",
    "GatewaySettings",
    "HookSettings",
    "HubSettings",
    "IssuerSettings",
    "LogSettings",
    "ManufacturerSettings",
    "MetricsSettings",
    "OwnerSettings",
    "PageSettings",
    "PolicySettings",
    "RenewalSettings",
    "RevocationSettings",
    "Settings",
    "TokenSettings",
    "TrustSettings",
    "UpstreamSettings",
    "load",
    "parse",
]
