"""The commands of an attestation (TPM 2.0 Part 3), over one connection to the TPM."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .tpm_session import PASSWORD, Session, policy, salt
from .tpm_types import NULL, SHA256, Reader, TpmError, ecdsa_signature, name, sized

ENDORSEMENT: Final = 0x4000000B
_OWNER: Final = 0x40000001
_NO_KEY: Final = 0x40000007

_PLAIN, _AUTHORIZED = 0x8001, 0x8002
"""TPM_ST of commands without and with authorizations."""

_CREATE_PRIMARY, _ACTIVATE_CREDENTIAL, _CERTIFY = 0x131, 0x147, 0x148
_NV_READ, _POLICY_SECRET, _LOAD, _QUOTE = 0x14E, 0x151, 0x157, 0x158
_UNSEAL, _FLUSH_CONTEXT, _NV_READ_PUBLIC = 0x15E, 0x165, 0x169
_READ_PUBLIC, _START_AUTH_SESSION, _PCR_READ = 0x173, 0x176, 0x17E
"""TPM_CC."""

_OWNER_MAY_READ: Final = 1 << 17
"""TPMA_NV_OWNERREAD."""
_NV_CHUNK: Final = 512
_XOR: Final = struct.pack(">HH", 0x000A, SHA256)
_NO_SCHEME: Final = struct.pack(">H", NULL)
"""The key's own."""

_HEAD: Final = struct.Struct(">HII")

Authorization = bytes | tuple[Session, bytes]
"""As it stands in the command; or a session, and the secret that it proves the knowledge of."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object in the TPM."""

    handle: int
    public: bytes
    """TPMT_PUBLIC."""

    @property
    def name(self) -> bytes:
        return name(self.public)


class Tpm:
    """Each method may raise TpmError, with the TPM's code, and what ``run`` raises."""

    def __init__(self, run: Callable[[bytes], bytes]) -> None:
        self._run = run

    # --- objects ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def primary(self, hierarchy: int, template: bytes) -> Iterator[Loaded]:
        """The key that the TPM derives from its own seed and this template (TPMT_PUBLIC), the same each time."""
        nothing = sized(b"")
        parameters = sized(nothing + nothing) + sized(template) + nothing + struct.pack(">I", 0)
        handle, answer = self._command(_CREATE_PRIMARY, [hierarchy], parameters, [PASSWORD], gives_handle=True)
        with self._until_flushed(handle):
            yield Loaded(handle, answer.sized())

    @contextlib.contextmanager
    def loaded(self, parent: Loaded, private: bytes, public: bytes, auth: tuple[Session, bytes]) -> Iterator[Loaded]:
        """``private`` and ``public`` as TPM2B_PRIVATE and TPM2B_PUBLIC; ``auth`` is the parent's."""
        handle, _ = self._command(
            _LOAD, [parent.handle], private + public, [auth], names=[parent.name], gives_handle=True
        )
        with self._until_flushed(handle):
            yield Loaded(handle, public[2:])

    def persistent(self, handle: int) -> Loaded:
        return Loaded(handle, self._command(_READ_PUBLIC, [handle])[1].sized())

    @contextlib.contextmanager
    def _until_flushed(self, handle: int) -> Iterator[None]:
        try:
            yield
        finally:
            with contextlib.suppress(TpmError):
                self._command(_FLUSH_CONTEXT, [], struct.pack(">I", handle))

    # --- sessions --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self, key: Loaded) -> Iterator[Session]:
        """``key`` is one of the TPM's that decrypts: the session's secret is encrypted for it."""
        secret, encrypted = salt(key.public)
        nonce = os.urandom(16)
        parameters = sized(nonce) + sized(encrypted) + b"\0" + _XOR + struct.pack(">H", SHA256)
        handle, answer = self._command(_START_AUTH_SESSION, [key.handle, _NO_KEY], parameters, gives_handle=True)
        with self._until_flushed(handle):
            yield Session(handle, secret, nonce, answer.sized())

    @contextlib.contextmanager
    def _endorsed(self) -> Iterator[bytes]:
        """The policy of an endorsement key: that the endorsement hierarchy's authorization, here none, is known."""
        parameters = sized(os.urandom(16)) + sized(b"") + b"\1" + struct.pack(">HH", NULL, SHA256)
        handle, _ = self._command(_START_AUTH_SESSION, [_NO_KEY, _NO_KEY], parameters, gives_handle=True)
        with self._until_flushed(handle):
            self._command(_POLICY_SECRET, [ENDORSEMENT, handle], 3 * sized(b"") + struct.pack(">i", 0), [PASSWORD])
            yield policy(handle)

    # --- secrets ---------------------------------------------------------------------------------

    def unseal(self, sealed: Loaded, auth: tuple[Session, bytes]) -> bytes:
        answer = self._command(_UNSEAL, [sealed.handle], b"", [auth], names=[sealed.name], encrypt=True)[1]
        return answer.sized()

    def activate(self, attestation_key: Loaded, endorsement_key: Loaded, credential: bytes, secret: bytes) -> bytes:
        """What the two are the answer to; ``secret`` is encrypted for the endorsement key."""
        handles = [attestation_key.handle, endorsement_key.handle]
        with self._endorsed() as endorsed:
            parameters, auths = sized(credential) + sized(secret), [PASSWORD, endorsed]
            return self._command(_ACTIVATE_CREDENTIAL, handles, parameters, auths)[1].sized()

    # --- statements ------------------------------------------------------------------------------

    def certify(
        self, key: Loaded, auth: tuple[Session, bytes], attestation_key: Loaded, nonce: bytes
    ) -> tuple[bytes, bytes]:
        """That ``key`` is in this TPM: the TPMS_ATTEST, and the attestation key's signature of it (DER)."""
        handles, names = [key.handle, attestation_key.handle], [key.name, attestation_key.name]
        answer = self._command(_CERTIFY, handles, sized(nonce) + _NO_SCHEME, [auth, PASSWORD], names=names)[1]
        return answer.sized(), ecdsa_signature(answer)

    def quote(self, attestation_key: Loaded, nonce: bytes, registers: Iterable[int]) -> tuple[bytes, bytes]:
        """What these PCRs (SHA-256) hold: the TPMS_ATTEST, and the signature of it (DER)."""
        parameters = sized(nonce) + _NO_SCHEME + _selection(registers)
        answer = self._command(_QUOTE, [attestation_key.handle], parameters, [PASSWORD])[1]
        return answer.sized(), ecdsa_signature(answer)

    def registers(self, wanted: Sequence[int]) -> list[bytes]:
        """The values of these PCRs (SHA-256), in their order. A TPM gives eight at most at a time."""
        values: list[bytes] = []
        while len(values) < len(wanted):
            answer = self._command(_PCR_READ, [], _selection(wanted[len(values) :]))[1]
            answer.take(4)  # the update counter
            for _ in range(answer.number(4)):  # the selection
                answer.take(2)
                answer.take(answer.number(1))
            found = [answer.sized() for _ in range(answer.number(4))]
            if not found:
                raise TpmError("the TPM has no SHA-256 PCRs")
            values += found
        return values

    # --- non-volatile memory ---------------------------------------------------------------------

    def stored(self, index: int) -> bytes | None:
        """What is at this NV index, if there is one that may be read without a secret."""
        try:
            description = Reader(self._command(_NV_READ_PUBLIC, [index])[1].sized())
        except TpmError:
            return None
        description.take(4 + 2)
        attributes = description.number(4)
        description.sized()
        size = description.number(2)
        reader = _OWNER if attributes & _OWNER_MAY_READ else index
        content = b""
        try:
            while len(content) < size:
                piece = struct.pack(">HH", min(_NV_CHUNK, size - len(content)), len(content))
                content += self._command(_NV_READ, [reader, index], piece, [PASSWORD])[1].sized()
        except TpmError:
            return None
        return content

    # --- one command -----------------------------------------------------------------------------

    def _command(
        self,
        code: int,
        handles: list[int],
        parameters: bytes = b"",
        auths: Sequence[Authorization] = (),
        *,
        names: list[bytes] | None = None,
        gives_handle: bool = False,
        encrypt: bool = False,
    ) -> tuple[int, Reader]:
        """The handle that it gives, or 0, and its other results. ``names`` are those of what ``handles`` stand for,
        where a session is among ``auths``; ``encrypt``: the first result is a secret."""
        area = b""
        for each in auths:
            if isinstance(each, bytes):
                area += each
            else:
                session, secret = each
                area += session.authorize(secret, code, names or [], parameters, encrypt=encrypt)
        body = b"".join(struct.pack(">I", each) for each in handles)
        body += (struct.pack(">I", len(area)) + area if auths else b"") + parameters
        tag = _AUTHORIZED if auths else _PLAIN
        answer = Reader(self._run(_HEAD.pack(tag, _HEAD.size + len(body), code) + body))
        tag, _, refusal = _HEAD.unpack(answer.take(_HEAD.size))
        if refusal:
            raise TpmError(f"TPM command 0x{code:x} was answered with 0x{refusal:x}", refusal)
        handle = answer.number(4) if gives_handle else 0
        if tag != _AUTHORIZED:
            return handle, answer
        results = answer.take(answer.number(4))
        for each in auths:
            if not isinstance(each, bytes):
                results = each[0].accept(code, results, answer)
        return handle, Reader(results)


def _selection(registers: Iterable[int]) -> bytes:
    """TPML_PCR_SELECTION of one bank."""
    bits = sum(1 << each for each in registers)
    return struct.pack(">IHB", 1, SHA256, 3) + bits.to_bytes(3, "little")
