"""Key pairs as objects in the token: making them, reading them back, telling what is there.

Functions over an open python-pkcs11 session; they raise its exceptions where they do not say otherwise. Public keys are
plain numbers here (public.py), because the token's process does without ``cryptography``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from ..core.model import KeyAlgorithm
from ..errors import AlgorithmUnsupported, Internal, KeyMissing, KeyNotProtected, TokenFull
from . import faults
from .base import TokenObject

PublicNumbers = dict[str, str]
"""``curve`` and ``point`` (uncompressed, hex), or ``modulus`` and ``exponent`` (hex)."""

# CKA_EC_PARAMS: the curve's OID in DER (RFC 5480, 2.1.1.1).
_CURVES: Final = MappingProxyType(
    {
        bytes.fromhex("06082a8648ce3d030107"): KeyAlgorithm.EC_P256,
        bytes.fromhex("06052b81040022"): KeyAlgorithm.EC_P384,
    }
)
_EC_PARAMS: Final = MappingProxyType({algorithm: params for params, algorithm in _CURVES.items()})
_BITS: Final = MappingProxyType(
    {KeyAlgorithm.EC_P256: 256, KeyAlgorithm.EC_P384: 384, KeyAlgorithm.RSA_2048: 2048, KeyAlgorithm.RSA_3072: 3072}
)

_CAPABILITIES: Final = MechanismFlag.SIGN | MechanismFlag.VERIFY | MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
"""tpm2-pkcs11 makes no key with less, not even an EC one."""

_PROTECTION: Final = MappingProxyType(
    {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
    }
)
"""What a private key is asked to be."""

_PROVEN: Final = MappingProxyType(
    {**_PROTECTION, Attribute.ALWAYS_SENSITIVE: True, Attribute.NEVER_EXTRACTABLE: True, Attribute.LOCAL: True}
)
"""What it must say of itself: made in the token, and never readable since."""

_KINDS: Final = MappingProxyType(
    {
        ObjectClass.PRIVATE_KEY: "private-key",
        ObjectClass.PUBLIC_KEY: "public-key",
        ObjectClass.CERTIFICATE: "certificate",
    }
)


def generate(session: Any, key_id: bytes, label: str, algorithm: KeyAlgorithm) -> PublicNumbers:
    """The key pair under ``key_id``, made now unless it exists, its protection read back and checked.

    Raises KeyNotProtected (a key made by this very call is destroyed first; one that was found is left),
    AlgorithmUnsupported with what the token offers, TokenFull, KeyMissing when a private key has lost its public half.
    """
    private = _one(session, ObjectClass.PRIVATE_KEY, key_id)
    if private is not None:
        public = _one(session, ObjectClass.PUBLIC_KEY, key_id)
        if public is None:
            raise KeyMissing(f"The public half of key {key_id.hex()} is gone from the token.")
        if (found := algorithm_of(public)) is not algorithm:
            raise Internal(f"Key {key_id.hex()} is {found}, but was asked for as {algorithm}.")
        if flaw := _flaw(private):
            raise KeyNotProtected(f"Key {key_id.hex()} in the token {flaw}.")
        return public_numbers(public)
    # A public half alone is what a crash in the middle of a generation leaves; nothing can hang on it.
    destroy(session, key_id)
    public, private = _generate(session, key_id, label, algorithm)
    if flaw := _flaw(private):
        destroy(session, key_id)
        raise KeyNotProtected(f"A key made in the token {flaw}; it was destroyed.")
    return public_numbers(public)


def _generate(session: Any, key_id: bytes, label: str, algorithm: KeyAlgorithm) -> tuple[Any, Any]:
    offered = offered_algorithms(session.token.slot)
    if algorithm not in offered:
        raise _unsupported(algorithm, offered)
    common = {
        "id": key_id,
        "label": label,
        "store": True,
        "capabilities": _CAPABILITIES,
        "private_template": dict(_PROTECTION),
    }
    try:
        if algorithm.is_rsa:
            pair = session.generate_keypair(KeyType.RSA, _BITS[algorithm], **common)
        else:
            curve = {Attribute.EC_PARAMS: _EC_PARAMS[algorithm]}
            pair = session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(**common)
    except pkcs11.DeviceMemory:
        raise TokenFull(f"The token has no room for key {key_id.hex()}.") from None
    except (*faults.ALGORITHM, pkcs11.AttributeValueInvalid):
        raise _unsupported(algorithm, [other for other in offered if other is not algorithm]) from None
    public, private = pair
    return public, private


def offered_algorithms(slot: Any) -> list[KeyAlgorithm]:
    """What the token says that it can both make and sign with."""
    mechanisms = slot.get_mechanisms()
    offered = []
    for algorithm, bits in _BITS.items():
        make, sign = (
            (Mechanism.RSA_PKCS_KEY_PAIR_GEN, Mechanism.RSA_PKCS)
            if algorithm.is_rsa
            else (Mechanism.EC_KEY_PAIR_GEN, Mechanism.ECDSA)
        )
        if make in mechanisms and sign in mechanisms:
            info = slot.get_mechanism_info(make)
            # Some modules leave the sizes at zero: they do not know.
            if not info.max_key_length or info.min_key_length <= bits <= info.max_key_length:
                offered.append(algorithm)
    return offered


def _unsupported(algorithm: KeyAlgorithm, offered: list[KeyAlgorithm]) -> AlgorithmUnsupported:
    return AlgorithmUnsupported(
        f"The token makes no {algorithm} keys; it offers {', '.join(offered) or 'none of ours'}."
    )


def _flaw(private: Any) -> str | None:
    """What is wrong with a private key's protection, as the rest of a sentence."""
    for attribute, wanted in _PROVEN.items():
        try:
            value = private[attribute]
        except pkcs11.AttributeTypeInvalid:
            return f"does not say whether it is {attribute.name}"
        if value is not wanted:
            return f"has CKA_{attribute.name} {'false' if wanted else 'true'}"
    return None


def destroy(session: Any, key_id: bytes) -> None:
    """Remove both halves, the private one first: a public half alone does no harm. Raises
    pkcs11.MultipleObjectsReturned, and removes nothing, when it is not sure which private key is meant."""
    if (private := _one(session, ObjectClass.PRIVATE_KEY, key_id)) is not None:
        private.destroy()
    for public in _all(session, {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: key_id}):
        public.destroy()


def find(session: Any, wanted: PublicNumbers) -> tuple[bytes, KeyAlgorithm] | None:
    """Id and algorithm of the private key that belongs to this public key."""
    for public in _all(session, {Attribute.CLASS: ObjectClass.PUBLIC_KEY}):
        algorithm = algorithm_of(public)
        if algorithm is not None and public_numbers(public) == wanted:
            key_id = bytes(public[Attribute.ID])
            if _one(session, ObjectClass.PRIVATE_KEY, key_id) is not None:
                return key_id, algorithm
    return None


def inventory(session: Any) -> list[TokenObject]:
    return [_describe(item) for item in _all(session, {})]


def _describe(item: Any) -> TokenObject:
    kind = _KINDS.get(_get(item, Attribute.CLASS), "other")
    is_private = kind == "private-key"
    return TokenObject(
        kind=kind,
        id=_get(item, Attribute.ID) or b"",
        label=_get(item, Attribute.LABEL) or "",
        algorithm=algorithm_of(item) if kind in ("private-key", "public-key") else None,
        sensitive=is_private and _get(item, Attribute.SENSITIVE) is True,
        # Of a private key that does not say, the worse is assumed.
        extractable=is_private and _get(item, Attribute.EXTRACTABLE) is not False,
        local=_get(item, Attribute.LOCAL) is True,
    )


def algorithm_of(key: Any) -> KeyAlgorithm | None:
    """None for a key that is none of ours."""
    kind = _get(key, Attribute.KEY_TYPE)
    if kind is KeyType.EC:
        return _CURVES.get(bytes(_get(key, Attribute.EC_PARAMS) or b""))
    if kind is KeyType.RSA:
        bits = int.from_bytes(_get(key, Attribute.MODULUS) or b"", "big").bit_length()
        return next((each for each, size in _BITS.items() if each.is_rsa and size == bits), None)
    return None


def public_numbers(public: Any) -> PublicNumbers:
    """For EC and RSA keys of ours only."""
    if public[Attribute.KEY_TYPE] is KeyType.RSA:
        modulus, exponent = (
            int.from_bytes(public[each], "big") for each in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
        )
        return {"modulus": f"{modulus:x}", "exponent": f"{exponent:x}"}
    curve = _CURVES[bytes(public[Attribute.EC_PARAMS])]
    # CKA_EC_POINT is the uncompressed point inside a DER OCTET STRING; some tokens leave the wrapping out.
    point = public[Attribute.EC_POINT][-(1 + 2 * (_BITS[curve] // 8)) :]
    return {"curve": str(curve), "point": point.hex()}


def _get(item: Any, attribute: Attribute) -> Any:
    """None where the object has no such attribute, or a value that python-pkcs11 cannot read (a vendor's key type)."""
    try:
        return item[attribute]
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive, ValueError):
        return None


def _one(session: Any, kind: ObjectClass, key_id: bytes) -> Any:
    """None when there is none. Raises pkcs11.MultipleObjectsReturned: an id of ours that somebody else uses, too."""
    found = _all(session, {Attribute.CLASS: kind, Attribute.ID: key_id})
    if len(found) > 1:
        raise pkcs11.MultipleObjectsReturned
    return found[0] if found else None


def _all(session: Any, template: dict[Attribute, Any]) -> list[Any]:
    """A search is finished before anything else is asked: a session holds only one at a time."""
    return list(session.get_objects(template))
