"""The stand-ins of the two clouds, as tests use them."""

from gatewayd.lab.cloud import Lab, unused_address

__all__ = ["Lab", "unused_address"]
