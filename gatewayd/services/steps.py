"""How the gateway and a leaf take the steps of a credential's life. The engine decides when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from ssl import SSLContext
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..ca.base import CertificateRequest, Holder, Issued, Issuer, Working
from ..core.inventory import key_label
from ..core.model import Credential, Device, DeviceKind, DeviceState, KeyRef
from ..errors import (
    CertificateUnacceptable,
    HubRefused,
    Internal,
    IssuerRejected,
    IssuerUnconfigured,
    NewKeyNeeded,
    NotBootstrapped,
    RegistrarRefused,
)
from ..keys.base import KeyStore
from ..pki import certificates, csr
from ..store.base import Store
from ..upstream.base import LinkCredential, Way
from .anchors import Anchors
from .clock import Clock, require
from .health import Health
from .pins import Pins

log = logging.getLogger(__name__)

FACTORY = "factory-certificate"
"""The setting that holds a factory-made certificate to start from."""

ClientContext = Callable[[LinkCredential], SSLContext]
"""A TLS client context with this credential bound to it."""


class LinkSwitch(Protocol):
    async def switch(self, credential: LinkCredential) -> None:
        """Connect to the hub with it; when that fails, go back to the present one and raise."""


class CommonSteps:
    """What both kinds share: looking for what was minted, and checking what was issued."""

    def __init__(self, *, store: Store, clock: Clock, health: Health, issuer: Issuer, anchors: Anchors) -> None:
        self._store = store
        self._clock = clock
        self._health = health
        self._issuer = issuer
        self._anchors = anchors

    async def find(self, device: Device, credential: Credential) -> Issued | None:
        return await self._find(self._issuer, self._certificate_request(device, credential))

    async def _find(self, issuer: Issuer, request: CertificateRequest) -> Issued | None:
        if not issuer.can_find:
            return None
        with self._health.watch(self._health.issuer):
            try:
                found = await issuer.find(request)
            except IssuerRejected as error:
                # That is no answer to the request itself, which would end it.
                raise IssuerUnconfigured(error.message, device=request.device_id) from error
        if found is None:
            return None
        thumbprint = certificates.thumbprint(found.certificate)
        # A renewal with the same key finds the certificate before it: that one is on record already.
        known = await self._store.read(lambda tx: tx.credentials.by_thumbprint(thumbprint))
        return None if known else found

    async def check(self, device: Device, credential: Credential, issued: Issued, replaces: Credential | None) -> None:
        if credential.public_key_sha256 is None:
            raise Internal("A credential without a public key was asked for.", device=device.device_id)
        require(self._clock)  # a good certificate must not be rejected because of a wrong clock
        certificates.check_issued(
            issued.certificate,
            issued.chain,
            self._anchors.known(),
            device_id=device.device_id,
            sans=device.sans,
            public_key_sha256=credential.public_key_sha256,
            server_auth=device.kind is DeviceKind.GATEWAY,
            now=self._clock.now(),
            replaces=replaces,
        )
        await self._anchors.adopt(issued)

    def _certificate_request(self, device: Device, credential: Credential) -> CertificateRequest:
        if credential.csr is None:
            raise Internal("A certificate was asked for without a CSR.", device=device.device_id)
        return CertificateRequest(
            device_id=device.device_id,
            csr=credential.csr,
            sans=device.sans,
            server_auth=device.kind is DeviceKind.GATEWAY,
            lifetime=self._lifetime(),
        )

    def _lifetime(self) -> timedelta | None:
        return None


class LeafSteps(CommonSteps):
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        health: Health,
        issuer: Issuer,
        anchors: Anchors,
        way: Way,
        pins: Pins,
        lifetime: timedelta | None,
    ) -> None:
        super().__init__(store=store, clock=clock, health=health, issuer=issuer, anchors=anchors)
        self._way = way
        self._pins = pins
        self._leaf_lifetime = lifetime

    def _lifetime(self) -> timedelta | None:
        return self._leaf_lifetime

    async def make_key(self, device: Device, credential: Credential) -> Credential:
        raise Internal("A leaf's key is made by the leaf.", device=device.device_id)

    async def request(self, device: Device, credential: Credential) -> Issued | Working:
        request = self._certificate_request(device, credential)
        if credential.attempts and (found := await self._find(self._issuer, request)):
            return found
        with self._health.watch(self._health.issuer):
            return await self._issuer.issue(request)

    async def accept(self, device: Device, credential: Credential) -> None:
        if await self._pins.place(device, credential) or device.in_hub:
            return
        with self._health.watch(self._health.registry):
            await self._way.ensure(device.device_id, credential.serial or "")


class GatewaySteps(CommonSteps):
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        health: Health,
        issuer: Issuer,
        anchors: Anchors,
        way: Way,
        keys: KeyStore,
        link: LinkSwitch,
        pins: Pins,
        client_context: ClientContext,
        lifetime: timedelta | None,
    ) -> None:
        super().__init__(store=store, clock=clock, health=health, issuer=issuer, anchors=anchors)
        self._way = way
        self._keys = keys
        self._link = link
        self._pins = pins
        self._client_context = client_context
        self._gateway_lifetime = lifetime
        self.bootstrap: Issuer | None = None
        """The CA as seen with a person's token, while a bootstrap is under way."""
        self.factory: LinkCredential | None = None
        """A factory-made certificate to renew from, when there is no own one yet."""

    def _lifetime(self) -> timedelta | None:
        return self._gateway_lifetime

    async def make_key(self, device: Device, credential: Credential) -> Credential:
        assert credential.key is not None
        label = key_label(device.device_id, credential.generation)
        public_key = await self._keys.generate(credential.key.id, label, credential.key.algorithm)
        key = self._keys.private_key(credential.key, public_key)
        request = await asyncio.to_thread(csr.build, key, device.device_id, device.sans)
        return replace(credential, csr=request, public_key_sha256=csr.public_key_sha256(public_key))

    async def request(self, device: Device, credential: Credential) -> Issued | Working:
        request = self._certificate_request(device, credential)
        await self._check_key(device, credential)
        await self._pins.wait_for_old_hardware(device)
        holder = await self._holder(device)
        # A person's token first: while a bootstrap is under way, the registrar's application may not be known yet.
        registrar = self.bootstrap or self._issuer
        if credential.attempts:
            try:
                if found := await self._find(registrar, request):
                    return found
            except (RegistrarRefused, IssuerUnconfigured) as error:
                # Without a registrar nobody can look. Renewing goes before accounting: the service must live.
                log.warning("cannot look for an earlier certificate of %s: %s", device.device_id, error)
        with self._health.watch(self._health.issuer):
            if holder is not None:
                answer = await self._issuer.renew(request, holder)
            elif self.bootstrap is not None or device.current is not None or device.state is DeviceState.REPLACING:
                answer = await registrar.issue(request)
            else:
                raise NotBootstrapped(f"{device.device_id} has no certificate yet.", device=device.device_id)
        return answer

    async def _check_key(self, device: Device, credential: Credential) -> None:
        """A token may have been cleared since the key was made: nothing is to be minted for a key that is gone."""
        public_key = x509.load_der_x509_csr(credential.csr).public_key() if credential.csr else None
        if (
            not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
            or await self._keys.find(public_key) is None
        ):
            raise NewKeyNeeded(
                f"The key of generation {credential.generation} is gone from the token.", device=device.device_id
            )

    async def check(self, device: Device, credential: Credential, issued: Issued, replaces: Credential | None) -> None:
        await self._anchors.learn(issued)
        await super().check(device, credential, issued, replaces)

    async def _holder(self, device: Device) -> Holder | None:
        """The present certificate, or the factory's; None once it has expired, or its key is lost: the registrar then
        asks anew."""
        present = await self.live(device) or self.factory
        if present is None or present.certificate.not_valid_after_utc <= self._clock.now():
            return None
        if not await self.has_key(present):
            log.warning("the token does not hold the key of the certificate that %s would renew", device.device_id)
            return None
        return Holder(present.certificate, present.private_key, lambda: self._client_context(present))

    async def has_key(self, credential: LinkCredential) -> bool:
        """Whether its key is in the token. Raises TokenError when the token does not say."""
        return await self._keys.find(credential.private_key.public_key()) is not None

    async def live(self, device: Device) -> LinkCredential | None:
        """The current credential as TLS takes it."""
        current = await self._store.read(lambda tx: tx.credentials.current(device.device_id))
        return self.as_link(current) if current is not None and current.certificate is not None else None

    def as_link(self, credential: Credential) -> LinkCredential:
        assert credential.certificate is not None
        assert credential.key is not None
        return self.with_key(
            x509.load_der_x509_certificate(credential.certificate),
            tuple(x509.load_der_x509_certificate(each) for each in credential.chain),
            credential.key,
        )

    def with_key(
        self, certificate: x509.Certificate, chain: tuple[x509.Certificate, ...], ref: KeyRef
    ) -> LinkCredential:
        public_key = certificate.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise CertificateUnacceptable("The certificate's key is neither EC nor RSA.")
        return LinkCredential(certificate, chain, self._keys.private_key(ref, public_key))

    async def accept(self, device: Device, credential: Credential) -> None:
        if credential.certificate is None:
            raise CertificateUnacceptable("There is no certificate to accept.", device=device.device_id)
        await self._check_key(device, credential)
        new = self.as_link(credential)
        await self._pins.place(device, credential, lambda: self._introduce(new, device, credential))
        try:
            await self._link.switch(new)
        except HubRefused:
            if device.in_hub:
                raise
            # The first time the identity may be missing. Connecting comes first: a gateway whose identity an
            # administrator has made needs no rights on the registry.
            with self._health.watch(self._health.registry):
                await self._way.ensure(device.device_id, credential.serial or "")
            await self._link.switch(new)

    async def _introduce(self, new: LinkCredential, device: Device, credential: Credential) -> None:
        """Connect as new hardware that has to ask for its pin over this very link."""
        try:
            await self._link.switch(new)
        except HubRefused as error:
            raise HubRefused(
                f"The hub does not let the new hardware of {device.device_id} in, so that it cannot ask for its pin "
                f"({error.message}). Somebody with rights on the hub has to set the identity's authentication to X.509 "
                f"self-signed with the thumbprint {credential.thumbprint} in both places, and enable it.",
                device=device.device_id,
            ) from error
