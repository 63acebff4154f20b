"""``python -m gatewayd.lab <command>``: stand-ins for the cloud, to try a gateway without any.

They speak the wire protocols of EZCA, Entra and IoT Hub and share no code with the gateway. For tests and trials only:
their keys lie in plain files.
"""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "init": "gatewayd.lab.init",
    "ezca": "gatewayd.lab.ezca",
    "entra": "gatewayd.lab.entra",
    "hub": "gatewayd.lab.hub",
    "entra-token": "gatewayd.lab.entra_token",
    "messages": "gatewayd.lab.messages",
    "demo": "gatewayd.lab.demo",
}


def main(argv: list[str]) -> int:
    """Run one command; its module is loaded only now. Returns the exit status."""
    if not argv or argv[0] not in COMMANDS:
        asked_for_help = argv[:1] in (["-h"], ["--help"])
        print(
            f"usage: python -m gatewayd.lab {{{','.join(COMMANDS)}}} [options]",
            file=sys.stdout if asked_for_help else sys.stderr,
        )
        return 0 if asked_for_help else 64
    module = importlib.import_module(COMMANDS[argv[0]])
    status: int = module.main(argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
