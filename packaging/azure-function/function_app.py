"""The responder as an Azure Functions app (Python v2 model): messages in from an event hub, the rest is gatewayd's.

Settings of the app: REPORTS__fullyQualifiedNamespace and REPORTS_EVENT_HUB name the event hub that the IoT hub routes
reports to, IOT_HUB is <hub>.azure-devices.net. CRL_URL is optional: with it, a gateway's new hardware is given its id,
and reports about devices that are not the gateway's children are believed, where this list of the CA's bears them out;
ca.pem beside this file then holds the CA's certificates. There is no secret: the app's managed identity is what has the
rights (README.md).
"""

import os
import ssl
from functools import cache
from pathlib import Path
from typing import List  # noqa: UP035 - the host looks for this very form in the annotation

import azure.functions as func
from azure.identity.aio import ManagedIdentityCredential

from gatewayd.pki import pem
from gatewayd.upstream.registry import HubRegistry
from gatewayd.upstream.responder.recheck import CrlRecheck
from gatewayd.upstream.responder.service import Responder, from_event
from gatewayd.upstream.responder.twins import HubTwins

SCOPE = "https://iothubs.azure.net/.default"

app = func.FunctionApp()


class Identity:
    """The app's managed identity as a token source; the library keeps tokens until they are due."""

    def __init__(self) -> None:
        self._credential = ManagedIdentityCredential()

    async def token(self, scope: str) -> str:
        return (await self._credential.get_token(scope)).token


@cache
def responder() -> Responder:
    """One for the life of the process, and so one connection to the hub that is kept."""
    hub, tokens, tls = os.environ["IOT_HUB"], Identity(), ssl.create_default_context()
    recheck = None
    if url := os.environ.get("CRL_URL"):
        recheck = CrlRecheck(url, pem.bundle(Path(__file__).with_name("ca.pem")), tls)
    return Responder(HubRegistry(hub, tokens, SCOPE, tls), HubTwins(hub, tokens, SCOPE, tls), recheck)


@app.function_name("respond")
@app.event_hub_message_trigger(
    arg_name="events",
    event_hub_name="%REPORTS_EVENT_HUB%",
    connection="REPORTS",
    cardinality="many",  # with "one", the host would mix what the device writes into what the hub says
)
@app.retry(
    strategy="exponential_backoff",
    max_retry_count="5",
    minimum_interval="00:00:05",
    maximum_interval="00:05:00",
)
async def respond(events: List[func.EventHubEvent]) -> None:  # noqa: UP006
    outcomes = await responder().handle([from_event(each.get_body(), each.iothub_metadata) for each in events])
    lost = [outcome for outcome in outcomes if outcome.error is not None]
    if lost:
        # All of them come again; what was done stays done. After the last attempt the gateways ask again themselves.
        raise RuntimeError(f"{len(lost)} of {len(outcomes)} could not be seen to: {lost[0].error}")
