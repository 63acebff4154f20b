"""OCSP: the live certificates, one after the other, each asked about at the responder that it names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from ssl import SSLContext

from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus

from ..ca.http import exchange
from ..core.learning import Standing, Statement, standing
from ..errors import RevocationDataUnusable
from ..pki import certificates, ocsp
from ..pki.ocsp import Answer
from ..store.base import Store, Tx
from .clock import Clock
from .learning import Learner
from .own import Own, OwnCertificates
from .watch import Looked

_LIMIT = 64 * 1024
_WITHIN = 15.0
_PACE = timedelta(seconds=1)
"""Between two questions: a responder is not to be flooded."""


class OcspSource:
    """Implements ``watch.Source``. With more live certificates than fit into one look, the next look goes on where this
    one has ended."""

    kind = "ocsp"
    name = "OCSP"

    def __init__(
        self,
        store: Store,
        clock: Clock,
        own: OwnCertificates,
        learner: Learner,
        tls: SSLContext,
        interval: Callable[[], timedelta],
    ) -> None:
        self._interval = interval
        self._store = store
        self._clock = clock
        self._own = own
        self._learner = learner
        self._tls = tls
        self._asked: dict[Own, float] = {}
        """When, as a Unix time."""

    async def look(self) -> Looked:
        candidates = [each for each in self._own.all() if each.responder is not None]
        known = set(candidates)
        self._asked = {each: at for each, at in self._asked.items() if each in known}
        candidates.sort(key=lambda each: self._asked.get(each, 0.0))
        at_most = max(self._interval() // _PACE, 1)
        turn = await self._store.read(
            lambda tx: list(islice((each for each in candidates if _is_live(tx, each)), at_most))
        )
        settled, held, failure = True, [], None
        for number, own in enumerate(turn):
            if number:
                await asyncio.sleep(_PACE.total_seconds())
            self._asked[own] = self._clock.now().timestamp()  # also of one that fails: the others have their turn first
            try:
                said = await self._ask(own)
            except RevocationDataUnusable as error:
                failure = error
                continue
            if said is not None:
                settled &= await self._learner.learn(self.kind, [said])
                if said.standing is Standing.HELD:
                    held.append(said.device_id)
        detail = f"{len(turn)} asked about"
        return Looked(held=tuple(held), detail=detail, settled=settled, error=failure)

    async def _ask(self, own: Own) -> Statement | None:
        """None when the certificate is good. Raises IssuerUnreachable, RevocationDataUnusable."""
        credential = await self._store.read(lambda tx: tx.credentials.get(own.device_id, own.generation))
        if credential is None or credential.certificate is None or own.responder is None:
            return None
        certificate = x509.load_der_x509_certificate(credential.certificate)
        # By its signature: a CA that has changed its key goes by one name with two.
        issuer = next(iter(certificates.chain_of(certificate, self._own.issuers())), None)
        if issuer is None:
            raise RevocationDataUnusable(f"The issuer of {own.device_id}'s certificate is not known.")
        nonce = os.urandom(16)
        answer = await exchange(
            "POST",
            own.responder,
            tls=self._tls,
            within=_WITHIN,
            limit=_LIMIT,
            headers={"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"},
            body=ocsp.request(certificate, issuer, nonce),
        )
        if answer.status != 200:
            raise RevocationDataUnusable(f"The OCSP responder answers HTTP {answer.status}.", device=own.device_id)
        found = ocsp.read(answer.body, certificate, issuer, nonce, self._clock.now())
        if found.status is OCSPCertStatus.UNKNOWN:
            raise RevocationDataUnusable(
                f"The OCSP responder does not know the certificate of {own.device_id}.", device=own.device_id
            )
        return _statement(own, found) if found.status is OCSPCertStatus.REVOKED else None


def _is_live(tx: Tx, own: Own) -> bool:
    device = tx.devices.get(own.device_id)
    return device is not None and device.current == own.generation


def _statement(own: Own, answer: Answer) -> Statement:
    kind, reason = standing(answer.reason.value if answer.reason else None)
    return Statement(
        device_id=own.device_id,
        generation=own.generation,
        standing=kind,
        reason=reason,
        revoked_at=answer.revoked_at,
        evidence=f"OCSP answer of {answer.this_update:%Y-%m-%dT%H:%M:%SZ} says that it is revoked",
    )
