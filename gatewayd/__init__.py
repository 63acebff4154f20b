"""gatewayd: device keys in a PKCS#11 token; certificates that renew by themselves and, once revoked, stay dead."""

__version__ = "0.1.0"
