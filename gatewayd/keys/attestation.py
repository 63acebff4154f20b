"""Attestation by a TPM: its own word that a key is inside it, for a CA or an auditor to check (docs/attestation.md).

``python -m gatewayd.keys.attestation FD``, a process for one request, which comes over a socket with the PIN in it and
is answered there: the TPM is asked on a connection of its own, past the PKCS#11 module, which knows nothing of this.
The daemon gives it the token's turn, and kills it when its time is over.
"""

from __future__ import annotations

import hashlib
import resource
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import AttestationUnsupported, ChallengeRefused, GatewayError, Internal, TokenFault
from . import tpm2_store
from .channel import Channel, ChannelClosed, read_json
from .pin import Pin
from .tcti import Tcti
from .tpm_commands import ENDORSEMENT, Loaded, Tpm
from .tpm_types import ECC, ECDSA, NULL, RSA, SHA256, Reader, TpmError, public_key, sized

REGISTERS: Final = (*range(10), *range(11, 16))
"""The PCRs that tell how the machine was started. Not 10: with IMA each file that is run changes it."""
_TRIES: Final = 5
"""Quotes, until one fits the values that were read after it."""

_ENDORSEMENT_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_ENDORSEMENT: Final = (
    struct.pack(">HI", SHA256, 0x000300B2) + sized(_ENDORSEMENT_POLICY) + struct.pack(">HHH", 0x0006, 128, 0x0043)
)
"""Attributes, policy, and AES-128 in CFB mode."""
_ELLIPTIC: Final = (
    struct.pack(">H", ECC) + _ENDORSEMENT + struct.pack(">HHH", NULL, 0x0003, NULL) + 2 * sized(bytes(32))
)
_RSA: Final = struct.pack(">H", RSA) + _ENDORSEMENT + struct.pack(">HHI", NULL, 2048, 0) + sized(bytes(256))
_ENDORSEMENT_KEYS: Final = ((0x01C0000A, _ELLIPTIC), (0x01C00002, _RSA))
"""NV index of the manufacturer's certificate, and the template of the key that it is for: L-2 and L-1 of the TCG EK
Credential Profile."""

_ATTESTATION_KEY: Final = (
    struct.pack(">HHI", ECC, SHA256, 0x00050072)
    + sized(b"")
    + struct.pack(">HHHHH", NULL, ECDSA, SHA256, 0x0003, NULL)
    + sized(b"gatewayd attestation".ljust(32, b"\0"))
    + sized(bytes(32))
)
"""P-256, ECDSA with SHA-256; restricted: it signs nothing but what the TPM itself says. The TPM derives it from its
endorsement seed each time anew, so that it is the same for ever and nothing has to be kept of it."""

_BLOB_HEAD: Final = struct.pack(">II", 0xBADCC0DE, 1)
"""What tpm2_makecredential puts in front."""
_ABOUT_A_PARAMETER: Final = 0xC0
"""Bits of a response code (TPM 2.0 Part 2, 6.6.2)."""


def attest(tpm: Tpm, label: str, key_id: str, pin: str, nonce: str) -> dict[str, str]:
    """The bundle's files, in hex. Raises AttestationUnsupported, TokenFault, TpmError."""
    stored = tpm2_store.find(label, bytes.fromhex(key_id))
    challenge = bytes.fromhex(nonce)
    with _endorsement_key(tpm) as (endorsement_key, certificate):
        files = {"ek.pub": sized(endorsement_key.public), "ek.pem": _pem(endorsement_key)}
        if certificate is not None:
            files["ek.crt"] = certificate
    with tpm.primary(ENDORSEMENT, _ATTESTATION_KEY) as attestation_key:
        files |= {
            "ak.pub": sized(attestation_key.public),
            "ak.pem": _pem(attestation_key),
            "ak.name": attestation_key.name,
        }
        parent = tpm.persistent(stored.parent)
        if parent.name != stored.parent_name:  # whoever has put it there would learn what is agreed upon with it
            raise TokenFault("The key above all keys of the token is not the one that tpm2-pkcs11 has made in the TPM.")
        with tpm.session(parent) as session:
            above = session, stored.parent_auth
            with tpm.loaded(parent, stored.sealed.private, stored.sealed.public, above) as sealed:
                wrapping_key = tpm.unseal(sealed, (session, stored.pin_auth(Pin(pin))))
            with tpm.loaded(parent, stored.key.private, stored.key.public, above) as key:
                files |= {"key.pub": sized(key.public), "key.pem": _pem(key), "key.name": key.name}
                auth = session, stored.unwrapped_auth(wrapping_key)
                files["certify.msg"], files["certify.sig"] = tpm.certify(key, auth, attestation_key, challenge)
        files |= _quoted(tpm, attestation_key, challenge)
    return {name: content.hex() for name, content in files.items()}


def activate(tpm: Tpm, challenge: str) -> str:
    """The secret in what tpm2_makecredential has made, in hex. Raises ChallengeRefused, TpmError."""
    blob = bytes.fromhex(challenge)
    if not blob.startswith(_BLOB_HEAD):
        raise ChallengeRefused("This is no credential challenge of tpm2_makecredential's.")
    try:
        reader = Reader(blob[len(_BLOB_HEAD) :])
        credential, secret = reader.sized(), reader.sized()
    except TpmError:
        raise ChallengeRefused("This credential challenge was cut short.") from None
    with (
        _endorsement_key(tpm) as (endorsement_key, _),
        tpm.primary(ENDORSEMENT, _ATTESTATION_KEY) as attestation_key,
    ):
        try:
            return tpm.activate(attestation_key, endorsement_key, credential, secret).hex()
        except TpmError as error:
            if error.code & _ABOUT_A_PARAMETER == _ABOUT_A_PARAMETER:
                raise ChallengeRefused("This challenge was not made for this TPM's keys.") from None
            raise


def _quoted(tpm: Tpm, attestation_key: Loaded, challenge: bytes) -> dict[str, bytes]:
    for _ in range(_TRIES):
        message, signature = tpm.quote(attestation_key, challenge, REGISTERS)
        values = tpm.registers(REGISTERS)
        if message.endswith(hashlib.sha256(b"".join(values)).digest()):  # what TPMS_QUOTE_INFO ends with
            return {"quote.msg": message, "quote.sig": signature, "quote.pcrs": _register_file(values)}
    raise TpmError("its PCRs change all the time")


def _register_file(values: Sequence[bytes]) -> bytes:
    """As tpm2_quote writes it and tpm2_checkquote reads it: TPML_PCR_SELECTION and TPML_DIGESTs as tpm2-tss has them in
    memory, with their arrays at full length, little-endian."""
    lists = [values[first : first + 8] for first in range(0, len(values), 8)]
    selection = struct.pack("<HBI", SHA256, 3, sum(1 << each for each in REGISTERS))
    content = struct.pack("<I", 1) + selection.ljust(16 * 8, b"\0") + struct.pack("<I", len(lists))
    for each in lists:
        digests = b"".join(struct.pack("<H64s", len(value), value) for value in each)
        content += struct.pack("<I", len(each)) + digests.ljust(8 * 66, b"\0")
    return content


@contextmanager
def _endorsement_key(tpm: Tpm) -> Iterator[tuple[Loaded, bytes | None]]:
    """The first one that has a certificate in the TPM; the elliptic one, without, where none has."""
    for index, template in _ENDORSEMENT_KEYS:
        certificate = _certificate(tpm.stored(index) or b"")
        if certificate is not None:
            with tpm.primary(ENDORSEMENT, template) as key:
                if certificate.public_key() == public_key(key.public):
                    yield key, certificate.public_bytes(Encoding.DER)
                    return
    with tpm.primary(ENDORSEMENT, _ELLIPTIC) as key:
        yield key, None


def _certificate(stored: bytes) -> x509.Certificate | None:
    """Some TPMs keep it in more room than it needs."""
    if stored[:2] != b"\x30\x82":
        return None
    try:
        return x509.load_der_x509_certificate(stored[: 4 + int.from_bytes(stored[2:4], "big")])
    except ValueError:
        return None


def _pem(key: Loaded) -> bytes:
    return public_key(key.public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


# --- the process ---------------------------------------------------------------------------------


_REQUESTS: Final[dict[str, Callable[..., Any]]] = {"attest": attest, "activate": activate}


def _answer(what: str, arguments: dict[str, str]) -> tuple[str, Any]:
    try:
        with Tcti() as tcti:
            return "done", _REQUESTS[what](Tpm(tcti.run), **arguments)
    except GatewayError as error:
        failure: GatewayError = error
    except OSError as error:
        failure = AttestationUnsupported(f"There is no TPM to be asked: {error}.")
    except TpmError as error:
        failure = TokenFault(f"The TPM does not attest: {error}.")
    except Exception as error:
        failure = Internal(f"{what} failed: {type(error).__name__}.")
    return "failed", {"error": failure.name(), "message": failure.message}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no PIN in a core file
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        what, arguments = read_json(channel.receive()[1])
        channel.send_json(_answer(what, arguments))
    except ChannelClosed:
        pass
