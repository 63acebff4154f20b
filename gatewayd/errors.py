"""The one list of errors.

An error has one name, and it is the same everywhere: the Python class, the D-Bus error
(``org.gatewayd.Error.<Name>``), the ``error`` field of a log line and of ``--json``, and, through
``exit_code``, the CLI's exit status. A class says whose fault it is, whether trying again by itself can
help, and what a person does next; an instance says what happened and to which device.

To add an error: add a class here. Nothing else has to be registered.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

DBUS_PREFIX = "org.gatewayd.Error."


class Fault(StrEnum):
    """Who has to change something."""

    OURS = "ours"
    PEER = "peer"
    OPERATOR = "operator"


class GatewayError(Exception):
    """Base of all. ``str(error)`` is one plain sentence without a secret in it."""

    fault: ClassVar[Fault] = Fault.OURS
    recoverable: ClassVar[bool] = False
    """Whether the daemon may try the same thing again by itself."""
    exit_code: ClassVar[int] = 70
    """The CLI's exit status, after sysexits.h."""
    remedy: str = "This is a defect in gatewayd: report it with the log of the minute it happened in."

    def __init__(self, message: str, *, device: str | None = None, retry_after: float | None = None) -> None:
        """``device`` is the device id concerned; ``retry_after`` (seconds) is what a peer asked us to wait."""
        super().__init__(message)
        self.message = message
        self.device = device
        self.retry_after = retry_after

    @classmethod
    def name(cls) -> str:
        return cls.__name__.removeprefix(DBUS_PREFIX)

    @classmethod
    def dbus_name(cls) -> str:
        return DBUS_PREFIX + cls.name()


class Internal(GatewayError):
    """Something that should not happen did."""


# --- configuration and callers -------------------------------------------------------------------


class ConfigInvalid(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 78
    remedy = "Correct gatewayd.toml, then start gatewayd again; nothing was started."


class InvalidArgument(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 64
    remedy = "See 'gatewayctl --help'."


class AnswerTooLarge(GatewayError):
    """More was asked for than a message on the bus may hold."""

    fault = Fault.OPERATOR
    exit_code = 64
    remedy = "Ask for less at a time: 'gatewayctl device list' takes a pattern, --state and --limit."


class NotAuthorized(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 77
    remedy = "Call as root."

    def __init__(
        self,
        message: str,
        *,
        device: str | None = None,
        retry_after: float | None = None,
        remedy: str | None = None,
    ) -> None:
        """``remedy`` names the group that may, when there is one."""
        super().__init__(message, device=device, retry_after=retry_after)
        self.remedy = remedy or self.remedy


class DaemonUnreachable(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 69
    remedy = "Is the daemon running? See 'systemctl status gatewayd'."


class ClockWrong(GatewayError):
    """The machine's clock says what cannot be: nothing is decided by date until it is right."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 75
    remedy = "It goes on by itself once the clock is synchronised (NTP); if it is right, run 'gatewayctl clock trust'."


class JobUnknown(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 66
    remedy = "Finished jobs are kept for ten minutes; 'gatewayctl status' shows what came of it."


# --- the token -----------------------------------------------------------------------------------


class TokenError(GatewayError):
    """Base of what the PKCS#11 token answers or fails to."""

    exit_code = 74


class TokenModuleBroken(TokenError):
    fault = Fault.OPERATOR
    recoverable = True
    remedy = "Check [token] module in gatewayd.toml and that the module's package is installed."


class TokenNotFound(TokenError):
    fault = Fault.OPERATOR
    recoverable = True
    remedy = "Check [token] uri and that the token is plugged in; 'gatewayd token-init' makes a new one."


class TokenExists(TokenError):
    fault = Fault.OPERATOR
    exit_code = 73
    remedy = "A token is never initialised twice: its keys would be gone. Take another label in [token] uri."


class TokenUnusable(TokenError):
    """The token is there and the module works, but nothing in it can be used: its TPM was cleared, or is another."""

    fault = Fault.OPERATOR
    recoverable = True
    remedy = (
        "If the TPM was cleared or replaced, its keys are gone for good: move the store of the PKCS#11 module aside "
        "(for tpm2-pkcs11, what is in TPM2_PKCS11_STORE), then run 'gatewayctl token init' and 'gatewayctl bootstrap'."
    )


class TokenBusy(TokenError):
    recoverable = True
    exit_code = 75
    remedy = "The token has more work than it can do; try again in a moment."


class TokenTimeout(TokenError):
    recoverable = True
    exit_code = 75
    remedy = "The token did not answer in time; if this stays, check the device and its driver."


class TokenFault(TokenError):
    """The token or its module answered with a fault (CKR_GENERAL_ERROR, CKR_DEVICE_ERROR and the like)."""

    recoverable = True
    remedy = "The module is loaded again by itself; if this stays, check the device and its driver."


class TokenFull(TokenError):
    fault = Fault.OPERATOR
    exit_code = 73
    remedy = (
        "Make room: on the disk, where the token keeps its keys in files; or remove objects that are not gatewayd's. "
        "It is tried again by itself."
    )


class PinMissing(TokenError):
    fault = Fault.OPERATOR
    exit_code = 77
    remedy = "Run 'gatewayctl token unlock', or give the PIN as a systemd credential, a file or with --pin-fd."


class PinRefused(TokenError):
    """The token refused the PIN. Tried once and never again by itself: a third try may lock the token."""

    fault = Fault.OPERATOR
    exit_code = 77
    remedy = "Run 'gatewayctl token unlock' with the right PIN, and correct it where gatewayd reads it at start."


class KeyMissing(TokenError):
    fault = Fault.OPERATOR
    remedy = "The key is gone from the token: enroll again ('gatewayctl bootstrap' for the gateway)."


class KeyAmbiguous(TokenError):
    fault = Fault.OPERATOR
    remedy = "Remove the key that gatewayd has not made ('pkcs11-tool --list-objects' shows both), or enroll again."


class KeyNotProtected(TokenError):
    """Read back after generation, the key was not sensitive, or was extractable, or not made in the token."""

    fault = Fault.OPERATOR
    remedy = "This token does not protect private keys; use another one."


class AlgorithmUnsupported(TokenError):
    fault = Fault.OPERATOR
    exit_code = 78
    remedy = "Choose a key algorithm from the list that the token offers."


class AttestationUnsupported(TokenError):
    """The key is not in a TPM, or not where its TPM could be asked about it."""

    fault = Fault.OPERATOR
    exit_code = 78
    remedy = "Only a TPM 2.0 that is used through tpm2-pkcs11 attests its keys; docs/attestation.md says what it takes."


class ChallengeRefused(TokenError):
    """A credential challenge that was not made for this TPM and its attestation key."""

    fault = Fault.PEER
    exit_code = 65
    remedy = "Make it with 'tpm2_makecredential' from ek.pub and ak.name of this gateway's last attestation."


class TlsBridgeUnsupported(TokenError):
    """The memory layout of this Python's ssl module, or its OpenSSL, is not one that was proved to work."""

    fault = Fault.OPERATOR
    exit_code = 78
    remedy = "Use a CPython and OpenSSL that docs/security.md lists."


# --- devices and enrollment ----------------------------------------------------------------------


class DeviceUnknown(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 66
    remedy = "'gatewayctl device list' shows the devices; 'gatewayctl device add' makes one."


class DeviceExists(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 73
    remedy = "Use another device id, or 'gatewayctl device code' for a new code for this one."


class DeviceRevoked(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 77
    remedy = "It does not enroll again; for new hardware under its id there is 'gatewayctl device replace'."


class DeviceHealthy(GatewayError):
    """A certificate that is merely superseded is not revoked where that would disable a healthy device."""

    fault = Fault.OPERATOR
    exit_code = 64
    remedy = "For new hardware: 'gatewayctl device replace'. To end the device: 'revoke' with what it is ended for."


class NoReplacement(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 66
    remedy = "'gatewayctl device replace' begins one; 'gatewayctl device show' tells how the last one ended."


class ReplacementUnfinished(GatewayError):
    """The new hardware has its certificate; its old ones are not shut out yet, so that the id stays disabled."""

    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "It goes on by itself; 'gatewayctl device show' tells which of the old certificates it waits for."


class ReplacementWaiting(GatewayError):
    """A swap that waits for its new hardware."""

    fault = Fault.OPERATOR
    exit_code = 75
    remedy = "Start the new hardware and give it the code; 'gatewayctl device code' makes a new one."


class ReplacementEnded(GatewayError):
    """A swap has ended without its new hardware in service."""

    fault = Fault.OPERATOR
    exit_code = 75
    remedy = "The device stays revoked and disabled; 'gatewayctl device replace' begins anew."


class PageClosed(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 78
    remedy = "Set [page] enabled = true in gatewayd.toml; the page opens with the gateway's first certificate."


class LinkRefused(GatewayError):
    """No such link to the technician's page, or it has expired or was used. Which one is not said to the peer."""

    fault = Fault.PEER
    exit_code = 77
    remedy = "'gatewayctl page open' makes a new link."


class CodeRefused(GatewayError):
    """No such code, or it has expired, or it was used for another request. Which one is not said to the peer."""

    fault = Fault.PEER
    exit_code = 77
    remedy = "Make a new code with 'gatewayctl device code'."


class EnrollmentDenied(GatewayError):
    """The peer is known but may not have what it asks for."""

    fault = Fault.PEER
    exit_code = 77
    remedy = "Ask for exactly the device id as CN, and only for the names that the device's record allows."


class CsrInvalid(GatewayError):
    fault = Fault.PEER
    exit_code = 65
    remedy = "Send one PKCS#10 request in base64, signed by its own key."


class TooManyRequests(GatewayError):
    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "Wait as long as Retry-After says."


class NotBootstrapped(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 75
    remedy = "Run 'gatewayctl bootstrap' first."


# --- the certification authority -----------------------------------------------------------------


class IssuerUnreachable(GatewayError):
    """No clear answer: whether a certificate was minted is unknown, so look before asking again."""

    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "It is tried again by itself; check the network and the CA's address if it stays."


class IssuerRejected(GatewayError):
    """The CA understood and said no."""

    fault = Fault.OPERATOR
    exit_code = 76
    remedy = "Read what the CA says; correct the device's names or the CA's policy, then 'gatewayctl renew'."


class IssuerUnconfigured(GatewayError):
    """The CA does not know us, or the configured CA or template does not exist there."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 78
    remedy = "Check [ezca] ca_id and template_id, and that the registrar may use them."


class IssuerSpared(GatewayError):
    """The CA was not asked: it has failed too often of late, or more requests wait for it than may go."""

    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "It is asked by itself when it may be; 'gatewayctl status' shows since when it has not answered."


class NewKeyNeeded(GatewayError):
    """No certificate comes of this generation's key: the CA wants another one, or it is gone from the token."""

    recoverable = True
    exit_code = 75
    remedy = "The next generation is made under a new key by itself."


class CertificateUnacceptable(GatewayError):
    """The CA issued something else than what was asked for. It is kept on record and not used."""

    fault = Fault.PEER
    exit_code = 76
    remedy = "Check the CA's template; the certificate is recorded and the previous one goes on serving."


class CertificateExpired(GatewayError):
    """The certificate that would have asked for the next one is over."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 77
    remedy = "Run 'gatewayctl bootstrap' for the gateway; for a leaf 'gatewayctl device code ID', and enroll it anew."


class RevocationElsewhere(GatewayError):
    """This CA offers no way to revoke that gatewayd could go."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 76
    remedy = "Revoke the certificate at the CA by its own means; gatewayd sees it in the CA's CRL or by OCSP."


class RevocationDataUnusable(GatewayError):
    """A CRL or an OCSP answer that is malformed, not the CA's, out of date or beyond what is understood."""

    fault = Fault.PEER
    recoverable = True
    exit_code = 76
    remedy = "What was learned before stays in force; it is fetched again by itself. If it stays, look at the CA."


class RevokedStillAdmitted(GatewayError):
    """A superseded certificate is revoked at the CA; the hub, which does not ask, lets it in until it expires."""

    fault = Fault.OPERATOR
    exit_code = 76
    remedy = "It ends when it expires. Where its key may be in other hands, revoke the device or replace its hardware."


class RegistrarRefused(GatewayError):
    """Entra does not accept the gateway's client assertion."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 77
    remedy = "Upload the output of 'gatewayctl registrar certificate' to the gateway's Entra application."


class RegistrarCertificateEnds(GatewayError):
    """The certificate that Entra knows the gateway's application by ends soon, and Entra does not take the next yet."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 77
    remedy = (
        "Upload the output of 'gatewayctl registrar certificate' to the gateway's Entra application, beside the present"
        " one, which is used until the new one works."
    )


# --- the hub -------------------------------------------------------------------------------------


class HubUnreachable(GatewayError):
    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "It is tried again by itself; check the network and [hub] host if it stays."


class HubThrottled(GatewayError):
    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "The hub is over its quota (429); it is tried again by itself."


class HubRefused(GatewayError):
    """The hub refused the device's connection: MQTT CONNACK 5, or 401/403 over REST."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 77
    remedy = "Check that the device exists and is enabled in the hub and that the CA is registered there."


class HubRejected(GatewayError):
    """The hub understood the request and said no."""

    fault = Fault.OPERATOR
    exit_code = 76
    remedy = "Read what the hub says."


class HubConflict(GatewayError):
    """Somebody else changed the identity in between (412), again and again."""

    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "It is tried again by itself."


class ResponderRefused(GatewayError):
    """The responder in the cloud does not let this gateway speak for that device."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 77
    remedy = "Make the device a child of this gateway in the hub (device scope); it is asked again by itself."


class PinLost(GatewayError):
    """The identity of a device whose hardware was replaced is not pinned to its certificate any more: what was revoked
    under its name may be let in again."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 75
    remedy = (
        "Somebody has changed the device's authentication in the hub: set it back to the thumbprints that "
        "'gatewayctl device show' names, or replace the device."
    )


class ResponderSilent(GatewayError):
    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "It is asked again by itself; check that the responder runs and the hub's route to it if it stays."


# --- this machine --------------------------------------------------------------------------------


class HookFailed(GatewayError):
    """A command or a file of [[hooks]]. The renewal stands."""

    fault = Fault.OPERATOR
    recoverable = True
    exit_code = 75
    remedy = "Correct the hook in gatewayd.toml or what it calls; it is tried again by itself."


class OutputLost(GatewayError):
    """What a command prints, or writes to a file, cannot be written."""

    fault = Fault.OPERATOR
    exit_code = 74
    remedy = "Is there room, and may this user write there? What the daemon was told to do, it does."


class JournalMissing(GatewayError):
    """There is no systemd journal to look into."""

    fault = Fault.OPERATOR
    exit_code = 69
    remedy = "Where systemd does not run gatewayd, its log is what it has written to standard error."


# --- this daemon ---------------------------------------------------------------------------------


class ReloadRefused(GatewayError):
    """The new configuration has a fault; the one before it stays in force, whole."""

    fault = Fault.OPERATOR
    exit_code = 78
    remedy = "Correct gatewayd.toml ('gatewayd check' checks it), then reload again; nothing was changed."


class RestartNeeded(GatewayError):
    """A new value of a setting that a running daemon cannot take up."""

    fault = Fault.OPERATOR
    exit_code = 75
    remedy = "Run 'systemctl restart gatewayd' when it suits; until then the values before hold."


# --- state ---------------------------------------------------------------------------------------


class StoreBroken(GatewayError):
    exit_code = 74
    fault = Fault.OPERATOR
    remedy = "Check the disk and the permissions of the state directory."


class StoreInUse(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 75
    remedy = "Another gatewayd works on this state directory: stop it, or give this one a directory of its own."


class StoreTooNew(GatewayError):
    fault = Fault.OPERATOR
    exit_code = 78
    remedy = "This database was written by a newer gatewayd: install that version again."


class StoreFull(StoreBroken):
    """No room on the disk, or none that may be used: nothing is written, and what is there goes on serving."""

    recoverable = True
    remedy = "Make room on the disk that holds the state directory; gatewayd goes on by itself."


class StoreReadOnly(StoreBroken):
    """The file system was made read-only, by hand or by a failing disk."""

    recoverable = True
    remedy = "Make the file system of the state directory writable again (see 'dmesg'); gatewayd goes on by itself."


class BackupUnusable(GatewayError):
    """What was given is not a whole backup of this gateway; nothing was changed."""

    fault = Fault.OPERATOR
    exit_code = 65
    remedy = "Take another backup: 'tar -tvf FILE' lists what is in one, 'tar -xOf FILE manifest.json' describes it."


class RestoreRefused(GatewayError):
    """The database here and the backup contradict each other; nothing was changed."""

    fault = Fault.OPERATOR
    exit_code = 65
    remedy = "See docs/operations.md, 'The database'."


class RestoreUnproven(GatewayError):
    """After a restore or a take-over, what the CA has revoked since the backup or the export is not known yet."""

    fault = Fault.PEER
    recoverable = True
    exit_code = 75
    remedy = "It goes on by itself once every source of revocations was heard: see 'gatewayctl status'."


class AuditTrailBroken(GatewayError):
    """Somebody has changed, removed or moved what was written down."""

    fault = Fault.OPERATOR
    exit_code = 65
    remedy = "Keep a copy of the state directory as evidence, and find out who could write to it."


class AdoptionRefused(GatewayError):
    """Another gateway's export is not taken over; nothing was changed."""

    fault = Fault.OPERATOR
    exit_code = 65
    remedy = "See docs/replacement.md, 'The gateway itself'; 'gatewayctl adopt' needs a fresh state directory."


def all_errors() -> dict[str, type[GatewayError]]:
    """Every concrete error by its name."""
    found: dict[str, type[GatewayError]] = {}
    pending: list[type[GatewayError]] = [GatewayError]
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        found.setdefault(cls.name(), cls)  # a private subclass goes under the name of its base
    return found
