"""``ezca``: a stand-in for the EZCA service, for the calls that a gateway uses, under both of its ways to authenticate.

Three ports: HTTPS (the REST API and ``/lab/``), EST with mutual TLS, and plain HTTP for the CRL and OCSP, which the
certificates name. What it has registered and issued is kept in ``ezca.sqlite`` in the lab's directory.
"""

from __future__ import annotations

import argparse
from contextlib import AsyncExitStack

from aiohttp import web

from ..entra_directory import Directory
from ..faults import Faults
from ..serve import arguments, listening, run, server_context, until_stopped
from .auth import EntraAuthentication, HolderAuthentication
from .authority import Authority
from .control import Control
from .est import PATH as EST_PATH
from .est import Est, est_context
from .holder import Holder
from .hub_link import HubLink
from .registrar import Registrar
from .service import CA_ID, TEMPLATE_ID, Service
from .status import Status
from .store import Store


def main(argv: list[str]) -> int:
    parser = arguments("ezca", 8441, "Stand in for EZCA.")
    parser.add_argument("--est-port", type=int, default=8444, help="EST port, mutual TLS (%(default)s)")
    parser.add_argument("--status-port", type=int, default=8440, help="plain HTTP port of CRL and OCSP (%(default)s)")
    parser.add_argument("--page-size", type=int, default=50, help="certificates in a page of the list (%(default)s)")
    parser.add_argument("--unknown", action="append", default=[], metavar="CALL", help="answer this call with 404")
    parser.add_argument("--hub-link", metavar="URL", help="disable the device in this hub when one is revoked")
    return run(_serve(parser.parse_args(argv)))


async def _serve(options: argparse.Namespace) -> None:
    status_url = f"http://{options.address}:{options.status_port}"
    link = HubLink(options.dir, options.hub_link) if options.hub_link else None
    authority = Authority(options.dir, status_url)
    store = Store(options.dir / "ezca.sqlite")
    service = Service(authority, store, link.disable if link else None)
    status = Status(service)
    faults, control = Faults(), Control(service, status, set(options.unknown))

    def application(*routes: list[web.RouteDef]) -> web.Application:
        app = web.Application(middlewares=[control.middleware(), faults.middleware()])
        for group in routes:
            app.add_routes(group)
        return app

    registrar = Registrar(
        service, EntraAuthentication(options.dir), Directory(options.dir).is_application, options.page_size
    )
    api = [*registrar.routes(), *Holder(service, HolderAuthentication(store)).routes()]
    est = Est(service).routes()
    calls = frozenset(str(route.kwargs["name"]) for route in [*api, *est, *status.routes()] if "name" in route.kwargs)

    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        port = await stack.enter_async_context(
            listening(
                application(api, status.routes(), control.routes(), faults.routes(calls)),
                options.address,
                options.port,
                server_context(options.dir),
            )
        )
        est_port = await stack.enter_async_context(
            listening(application(est), options.address, options.est_port, est_context(options.dir))
        )
        await stack.enter_async_context(
            listening(application(status.routes()), options.address, options.status_port, None)
        )
        await until_stopped(
            {
                "url": f"https://{options.address}:{port}",
                "est_url": f"https://{options.address}:{est_port}{EST_PATH}",
                "crl_url": authority.crl_url,
                "root_crl_url": authority.root_crl_url,
                "ocsp_url": authority.ocsp_url,
                "ca_id": CA_ID,
                "template_id": TEMPLATE_ID,
            }
        )
