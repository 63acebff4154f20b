"""How each method of org.gatewayd.Gateway1 is called with success on the fake operations."""

from __future__ import annotations

from .fake_operations import PEM

CALLS = {
    "GetStatus": [],
    "ListDevices": ["{}"],
    "GetDevice": ["gw-1"],
    "AddDevice": ["leaf-1", "{}"],
    "NewCode": ["gw-1", "{}"],
    "ReplaceDevice": ["gw-1", "{}"],
    "CancelReplacement": ["gw-1"],
    "BindDevice": ["gw-1", "{}"],
    "Bootstrap": ["eyJ.x.y"],
    "BootstrapWithCertificate": [PEM],
    "Renew": ["", "{}"],
    "Revoke": ["gw-1", "keyCompromise", "{}"],
    "Diagnose": [],
    "VerifyAudit": [],
    "Export": [],
    "Adopt": ["e30.e30.e30", "{}"],
    "TrustClock": [],
    "GetRegistrarCertificate": [],
    "ListTokenObjects": [],
    "UnlockToken": ["right", "{}"],
    "InitializeToken": ["1234", "{}"],
    "Attest": ["00112233445566ff"],
    "ActivateCredential": ["utzA3gAAAAE="],
    "Reload": [],
    "Backup": ["1"],  # a descriptor of gdbus' own: its standard output
    "OpenPage": ["{'lifetime': <600>}"],
    "ClosePage": [],
}
"""Arguments as gdbus takes them: a string as it is, everything else in GVariant's text format."""
