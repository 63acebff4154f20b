"""gatewayd: the daemon's command line. ``gatewayd --config FILE`` serves; ``gatewayd token-init`` makes a token."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from . import __version__, config
from .errors import ConfigInvalid, GatewayError
from .keys import pin
from .keys.pin import Pin
from .systemd import notify

DEFAULT_CONFIG = Path("/etc/gatewayd/gatewayd.toml")


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    os.umask(0o077)
    try:
        settings = config.load(arguments.config)
        if arguments.command == "check":
            print(f"{arguments.config}: fine")  # noqa: T201
            return 0
        if arguments.command == "token-init":
            return _token_init(settings, arguments.pin_fd)
        return _serve(settings, arguments.pin_fd)
    except GatewayError as error:
        print(f"gatewayd: {error.message}", file=sys.stderr)  # noqa: T201
        notify(f"STATUS={error.message}")
        if error.exit_code != 78:
            print(f"gatewayd: {error.remedy}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gatewayd",
        description="Keeps an edge gateway's keys in a PKCS#11 token, and certificates alive or, once revoked, dead.",
    )
    parser.add_argument("--version", action="version", version=f"gatewayd {__version__}")
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"settings (default: {DEFAULT_CONFIG})"
    )
    parser.add_argument(
        "--pin-fd",
        type=int,
        metavar="N",
        help="read the token's PIN from this file descriptor (default: systemd credential [token] pin_credential)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="run the daemon (the default)")
    commands.add_parser("check", help="check the configuration and exit: 0 when it is fine, 78 when it is not")
    commands.add_parser(
        "token-init",
        help="initialise a token with the label of [token] uri and the given PIN; leaves an existing one alone",
    )
    return parser


def _pin(settings: config.Settings, fd: int | None) -> Pin:
    return pin.from_fd(fd) if fd is not None else pin.from_credential(settings.token.pin_credential)


def _token_init(settings: config.Settings, pin_fd: int | None) -> int:
    from .keys import provision, uri

    wanted = uri.parse(settings.token.uri)
    if not wanted.token:
        raise ConfigInvalid("token.uri must name the token to make: pkcs11:token=LABEL")
    module = Path(wanted.module_path) if wanted.module_path else settings.token.module
    token = provision.init_token(module, wanted.token, None, _pin(settings, pin_fd))
    outcome = "initialised" if token.created else "exists already and is left as it is"
    print(f"Token {token.label!r}, serial {token.serial}: {outcome}.")  # noqa: T201
    return 0


def _serve(settings: config.Settings, pin_fd: int | None) -> int:
    from .daemon import Daemon

    logging.basicConfig(level=settings.log.level.upper(), format="%(levelname).1s %(name)s: %(message)s")
    try:
        held = _pin(settings, pin_fd)
    except GatewayError as error:
        logging.getLogger("gatewayd").error("%s %s", error, error.remedy)
        held = None
    asyncio.run(Daemon(settings, held).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
