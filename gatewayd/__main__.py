"""gatewayd: the daemon's command line. ``gatewayd --config FILE`` serves; ``gatewayd token-init`` makes a token."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from . import __version__, config, memory
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
            _check_tokens(settings)
            print(f"{arguments.config}: fine")  # noqa: T201
            return 0
        if arguments.command == "token-init":
            return _token_init(settings, arguments.pin_fd)
        return _serve(settings, arguments.pin_fd, arguments.config)
    except GatewayError as error:
        print(f"gatewayd: {error.message}", file=sys.stderr)  # noqa: T201
        notify(f"STATUS={error.message}")
        if not isinstance(error, ConfigInvalid):  # whose one line says it all
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
        help="read the token's PIN from this file descriptor (default: [token] pin_file, else [token] pin_credential)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="run the daemon (the default)")
    commands.add_parser("check", help="check the configuration and exit: 0 when it is fine, 78 when it is not")
    commands.add_parser(
        "token-init",
        help="initialise a token with the label of [token] uri and the given PIN; leaves an existing one alone",
    )
    return parser


def _pin(token: config.TokenSettings, fd: int | None = None) -> Pin:
    if fd is not None:
        return pin.from_fd(fd)
    return pin.from_file(token.pin_file) if token.pin_file else pin.from_credential(token.pin_credential)


def _check_tokens(settings: config.Settings) -> None:
    from .keys import uri

    for token in settings.tokens.values():
        uri.parse_token(token.uri)


def _token_init(settings: config.Settings, pin_fd: int | None) -> int:
    from .keys import provision, uri

    wanted = uri.parse(settings.token.uri)
    if not wanted.token:
        raise ConfigInvalid("token.uri must name the token to make: pkcs11:token=LABEL")
    module = Path(wanted.module_path) if wanted.module_path else settings.token.module
    token = provision.init_token(module, wanted.token, None, _pin(settings.token, pin_fd))
    outcome = "initialised" if token.created else "exists already and is left as it is"
    print(f"Token {token.label!r}, serial {token.serial}: {outcome}.")  # noqa: T201
    return 0


def _serve(settings: config.Settings, pin_fd: int | None, file: Path) -> int:
    from . import journald

    memory.prepare()
    from .daemon import Daemon

    journald.set_up(settings.log.level)
    asyncio.run(Daemon(settings, _pins(settings, pin_fd), file.absolute()).run())
    return 0


def _pins(settings: config.Settings, fd: int | None) -> dict[str, Pin]:
    """By the token's name; one that cannot be had can still be given to the running daemon."""
    pins: dict[str, Pin] = {}
    for name, token in settings.tokens.items():
        try:
            pins[name] = _pin(token, fd if name == "gateway" else None)
        except GatewayError as error:
            logging.getLogger("gatewayd").error("%s token: %s %s", name, error, error.remedy)
    return pins


if __name__ == "__main__":
    sys.exit(main())
