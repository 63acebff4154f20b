"""What a TPM says of a key, checked with the very commands of docs/attestation.md."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from cryptography.x509.oid import NameOID

from gatewayd.core.model import KeyAlgorithm
from gatewayd.errors import AttestationUnsupported, ChallengeRefused, TokenFault, TokenTimeout
from gatewayd.keys import attestation, attester, tpm2_store
from gatewayd.keys.attester import TpmAttester
from gatewayd.keys.base import Attester, PublicKey
from gatewayd.keys.process import ChildProcess
from gatewayd.keys.tcti import Tcti
from gatewayd.keys.token import Pkcs11KeyStore
from gatewayd.keys.tpm_commands import ENDORSEMENT, Loaded, Tpm
from gatewayd.keys.tpm_session import PASSWORD
from gatewayd.keys.tpm_types import NULL, SHA256, ecdsa_signature, sized
from tests.support.softhsm import SoftHsm
from tests.support.tpm import TpmToken

NONCE = bytes(range(20))
DOC = (Path(__file__).parents[3] / "docs" / "attestation.md").read_text()
MANUFACTURER, AUDITOR, CHALLENGE = re.findall(r"```sh\n(.*?)```", DOC, re.S)

_KEY = ec.generate_private_key(ec.SECP256R1())
_CA = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of the test")])


def certificate(name: x509.Name, key: PublicKey, *, ca: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(_CA).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(_KEY, hashes.SHA256())


def write(directory: Path, files: dict[str, bytes], key: PublicKey) -> None:
    """As gatewayctl writes them."""
    directory.mkdir()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gw-1")])
    (directory / "certificate.pem").write_bytes(certificate(name, key, ca=False).public_bytes(Encoding.PEM))
    for name_, content in files.items():
        (directory / name_).write_bytes(content)


def check(directory: Path, script: str, **variables: str) -> bool:
    command = ["sh", "-e", "-c", script]
    environment = {"PATH": "/usr/bin:/bin", **variables}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, check=False, timeout=30)
    return done.returncode == 0


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048])
async def test_an_auditor_finds_all_in_order_and_only_then(
    tpm: TpmToken, tmp_path: Path, algorithm: KeyAlgorithm
) -> None:
    keys = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    attester: Attester = TpmAttester(keys)
    public_key = await keys.generate(b"ours", "ours", algorithm)
    files = await attester.attest(b"ours", NONCE)
    write(tmp_path / "right", files, public_key)
    right, nonce = tmp_path / "right", NONCE.hex()
    assert check(right, AUDITOR, NONCE=nonce)
    assert not check(right, AUDITOR, NONCE="f" + nonce[1:])

    # The chip keeps its attestation key: it is bound once.
    assert check(right, AUDITOR.split("\n\n")[0] + "\n" + CHALLENGE)
    assert await attester.activate((right / "challenge").read_bytes()) == (right / "secret").read_bytes()
    again = await attester.attest(b"ours", NONCE)
    assert again["ak.pub"] == files["ak.pub"]
    assert again["certify.sig"] != files["certify.sig"]

    # Another's key, another's statement, another's certificate.
    other_key = await keys.generate(b"other", "other", algorithm)
    other = await attester.attest(b"other", NONCE)
    tpm.sim.clear()
    assert await attester.activate((right / "challenge").read_bytes()) == (right / "secret").read_bytes()
    await keys.close()
    for number, mixed in enumerate(
        (
            {name: other[name] for name in ("key.pub", "key.pem", "key.name")},
            {name: other[name] for name in ("certify.msg",)},
            {name: other[name] for name in ("certify.msg", "certify.sig")},
            {"quote.pcrs": files["quote.pcrs"].replace(bytes(32), b"x" * 32)},
        )
    ):
        write(tmp_path / f"{number}", files | mixed, public_key)
        assert not check(tmp_path / f"{number}", AUDITOR, NONCE=nonce)
    write(tmp_path / "certificate", files, other_key)
    assert not check(tmp_path / "certificate", AUDITOR, NONCE=nonce)


async def test_whoever_rules_the_gateway_can_pass_off_no_other_machine_state(tpm: TpmToken, tmp_path: Path) -> None:
    """With the attestation key itself, which root there may use as well as the daemon."""
    keys = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    public_key = await keys.generate(b"ours", "ours", KeyAlgorithm.EC_P256)
    files = await TpmAttester(keys).attest(b"ours", NONCE)
    await keys.close()
    with Tcti() as tcti:
        chip = Tpm(tcti.run)
        with chip.primary(ENDORSEMENT, attestation._ATTESTATION_KEY) as key:
            for number, forged in enumerate((_made_up(chip, key, files["quote.msg"]), _of_other_registers(chip, key))):
                directory = tmp_path / f"{number}"
                write(directory, files | forged, public_key)
                assert check(directory, "openssl dgst -sha256 -verify ak.pem -signature quote.sig quote.msg")
                assert not check(directory, AUDITOR, NONCE=NONCE.hex())


def _made_up(chip: Tpm, key: Loaded, message: bytes) -> dict[str, bytes]:
    """Values of anybody's choosing, which the key signs as data that is no statement of the TPM's."""
    values = [bytes([7]) * 32] * len(attestation.REGISTERS)
    message = bytes(4) + message[4:-32] + hashlib.sha256(b"".join(values)).digest()
    _, answer = chip._command(0x17D, [], sized(message) + struct.pack(">HI", SHA256, ENDORSEMENT))  # TPM2_Hash
    digest, ticket = answer.sized(), answer.rest()
    parameters = sized(digest) + struct.pack(">H", NULL) + ticket
    _, answer = chip._command(0x15D, [key.handle], parameters, [PASSWORD])  # TPM2_Sign
    files = {"quote.msg": message, "quote.sig": ecdsa_signature(answer)}
    return files | {"quote.pcrs": attestation._register_file(values)}


def _of_other_registers(chip: Tpm, key: Loaded) -> dict[str, bytes]:
    """Among them such as anybody may reset, shown as those that tell of the start."""
    others = range(9, 24)
    message, signature = chip.quote(key, NONCE, others)
    files = {"quote.msg": message, "quote.sig": signature}
    return files | {"quote.pcrs": attestation._register_file(chip.registers(others))}


async def test_the_manufacturers_certificate_is_found_in_the_tpm(tpm: TpmToken, tmp_path: Path) -> None:
    keys = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    public_key = await keys.generate(b"ours", "ours", KeyAlgorithm.EC_P256)
    bare = await TpmAttester(keys).attest(b"ours", NONCE)
    assert "ek.crt" not in bare
    endorsement_key = load_pem_public_key(bare["ek.pem"])
    assert isinstance(endorsement_key, ec.EllipticCurvePublicKey)
    vouched = certificate(x509.Name([]), endorsement_key, ca=False).public_bytes(Encoding.DER)
    stored = tmp_path / "stored"
    stored.write_bytes(vouched.ljust(1500, b"\xff"))  # some manufacturers leave room
    attributes = "ppwrite|ppread|ownerread|authread|no_da|platformcreate"
    tpm.sim.tool("tpm2_nvdefine", "0x1c0000a", "-C", "p", "-s", "1500", "-a", attributes)
    tpm.sim.tool("tpm2_nvwrite", "0x1c0000a", "-C", "p", "-i", str(stored))
    files = await TpmAttester(keys).attest(b"ours", NONCE)
    await keys.close()
    assert files["ek.crt"] == vouched
    write(tmp_path / "files", files, public_key)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(certificate(_CA, _KEY.public_key(), ca=True).public_bytes(Encoding.PEM))
    assert check(tmp_path / "files", MANUFACTURER, ROOTS=str(roots))
    (tmp_path / "files" / "ek.pub").write_bytes(files["ak.pub"])
    assert not check(tmp_path / "files", MANUFACTURER, ROOTS=str(roots))


async def test_a_challenge_for_another_tpm_is_refused(tpm: TpmToken) -> None:
    keys = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    for challenge in (b"", b"no challenge", bytes.fromhex("badcc0de00000001"), _challenge()):
        with pytest.raises(ChallengeRefused):
            await TpmAttester(keys).activate(challenge)
    await keys.close()


def _challenge() -> bytes:
    """Well-formed, for nobody."""
    identity = (32).to_bytes(2, "big") + bytes(32) + bytes(34)
    point = 2 * ((32).to_bytes(2, "big") + bytes(32))
    sized = b"".join(len(each).to_bytes(2, "big") + each for each in (identity, point))
    return bytes.fromhex("badcc0de00000001") + sized


async def test_a_token_that_is_no_tpms_attests_nothing(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Pkcs11KeyStore(softhsm.module, softhsm.uri, softhsm.pin)
    await keys.generate(b"ours", "ours", KeyAlgorithm.EC_P256)
    for store in ("/nonexistent", None):
        monkeypatch.delenv("TPM2_PKCS11_STORE", raising=False)
        if store:
            monkeypatch.setenv("TPM2_PKCS11_STORE", store)
        with pytest.raises(AttestationUnsupported):
            await TpmAttester(keys).attest(b"ours", NONCE)
    await keys.close()


async def test_a_key_that_the_tpm_does_not_have_is_not_attested(tpm: TpmToken) -> None:
    keys = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    with pytest.raises(AttestationUnsupported, match="does not hold the key"):
        await TpmAttester(keys).attest(b"none", NONCE)
    await keys.close()


async def test_an_attestation_has_a_time_limit_and_the_token_goes_on(tpm: TpmToken) -> None:
    keys = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin, timeout=2.0)
    await keys.generate(b"ours", "ours", KeyAlgorithm.EC_P256)
    tpm.sim.freeze()
    with pytest.raises(TokenTimeout, match="attest"):
        await TpmAttester(keys).attest(b"ours", NONCE)
    tpm.sim.thaw()
    assert "certify.sig" in await TpmAttester(keys).attest(b"ours", NONCE)
    assert len(await keys.objects()) == 2
    await keys.close()


async def test_an_attestation_that_dies_half_way_leaves_nothing_in_the_tpm(
    tpm: TpmToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(100, 400, 50))  # milliseconds

    def start(program: str) -> ChildProcess:
        process = ChildProcess(program)
        threading.Timer(next(moments) / 1000, process.kill).start()
        return process

    keys = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    await keys.generate(b"ours", "ours", KeyAlgorithm.EC_P256)
    tpm.sim.slow(20)
    killed = 0
    with monkeypatch.context() as patched:
        patched.setattr(attester, "ChildProcess", start)
        for _ in range(6):
            try:
                await TpmAttester(keys).attest(b"ours", NONCE)
            except TokenFault:
                killed += 1
    tpm.sim.slow(0)
    assert killed
    # The one session is tpm2-pkcs11's own.
    assert tpm.sim.tool("tpm2_getcap", "handles-loaded-session").count("0x") <= 1
    assert tpm.sim.tool("tpm2_getcap", "handles-saved-session").count("0x") <= 1
    assert "certify.sig" in await TpmAttester(keys).attest(b"ours", NONCE)
    await keys.generate(b"next", "next", KeyAlgorithm.EC_P256)
    await keys.close()


async def test_another_key_in_the_place_of_the_tokens_primary_one_is_not_trusted_with_secrets(tpm: TpmToken) -> None:
    keys = Pkcs11KeyStore(tpm.module, tpm.uri, tpm.pin)
    await keys.generate(b"ours", "ours", KeyAlgorithm.EC_P256)
    place, context = hex(tpm2_store.find(tpm.label, b"ours").parent), str(tpm.sim.directory / "other.ctx")
    tpm.sim.tool("tpm2_evictcontrol", "-C", "o", "-c", place)
    tpm.sim.tool("tpm2_createprimary", "-C", "o", "-G", "rsa", "-c", context)
    tpm.sim.tool("tpm2_evictcontrol", "-C", "o", "-c", context, place)
    with pytest.raises(TokenFault, match="not the one that tpm2-pkcs11 has made"):
        await TpmAttester(keys).attest(b"ours", NONCE)
    await keys.close()
