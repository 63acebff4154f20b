"""File systems of a test's own."""

from __future__ import annotations

import subprocess


def _private() -> list[str] | None:
    for command in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        if subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0:
            return command
    return None


PRIVATE_MOUNTS = _private()
"""The command under which a tmpfs can be mounted here, gone with the process: as root or in a user namespace. None
where neither may."""
