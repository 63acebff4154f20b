"""A Debian release as a tree of files, and the package built inside it.

Trees are made by debootstrap once for each release and kept under ``build/roots``; whoever uses one writes to an
overlay.
``python -m tests.boot.package [SUITE …]`` builds the package for the releases named (all), into ``dist``, and has
lintian judge it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ROOTS = REPOSITORY / "build" / "roots"
SUITES = ("bookworm", "trixie")

_BASE = (
    "systemd systemd-sysv dbus python3 python3-gi python3-pydbus python3-systemd gir1.2-glib-2.0 softhsm2"
    " ca-certificates debconf opensc sqlite3"
)
_BUILD = "python3-pip python3-setuptools binutils gcc libc6-dev python3-dev"


class CannotBoot(Exception):
    """This machine cannot boot a container; the sentence says why."""


def tree(suite: str) -> Path:
    """The release with what the package depends on, made at first use (about a minute)."""
    root = ROOTS / suite
    made = root / "made"
    if made.exists():
        if made.read_text() != _BASE:
            _apt(root / "tree", _BASE)
            made.write_text(_BASE)
        return root / "tree"
    if os.geteuid() != 0:
        raise CannotBoot("debootstrap and systemd-nspawn need root")
    for program in ("debootstrap", "systemd-nspawn"):
        if shutil.which(program) is None:
            raise CannotBoot(f"{program} is not installed")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    _sh(["debootstrap", "--variant=minbase", suite, str(root / "tree")])
    _apt(root / "tree", _BASE)
    made.write_text(_BASE)
    return root / "tree"


def _apt(root: Path, packages: str) -> None:
    script = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    _sh(["chroot", str(root), "sh", "-c", script], env=environment)


def _sh(command: Sequence[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise CannotBoot(f"{' '.join(command)}: exit {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    output: str = done.stdout
    return output


@contextmanager
def overlay(lower: Path) -> Iterator[Path]:
    """``lower`` as a tree that may be written to without changing it."""
    # Not below /tmp where that is a tmpfs: an overlay's upper side wants a real file system.
    ROOTS.mkdir(parents=True, exist_ok=True)
    top = Path(tempfile.mkdtemp(dir=ROOTS, prefix="overlay-"))
    for name in ("upper", "work", "merged"):
        (top / name).mkdir()
    options = f"lowerdir={lower},upperdir={top / 'upper'},workdir={top / 'work'}"
    _sh(["mount", "-t", "overlay", "overlay", "-o", options, str(top / "merged")])
    try:
        yield top / "merged"
    finally:
        subprocess.run(["umount", "--recursive", str(top / "merged")], check=False)
        shutil.rmtree(top, ignore_errors=True)


def build_package(suite: str, output: Path) -> Path:
    """The .deb for this release, built inside it."""
    base = tree(suite)
    with overlay(base) as root:
        pip_settings = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        _apt(root, _BUILD)
        for name in ("source", "out"):
            (root / name).mkdir()
        files = _sh(["git", "-C", str(REPOSITORY), "ls-files"]).split()
        for each in files:
            target = root / "source" / each
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / each, target)
        # The registries as this machine reaches them.
        for shared in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
            if Path(shared).exists():
                target = root / shared.lstrip("/")
                target.unlink(missing_ok=True)
                shutil.copy(shared, target)
        epoch = _sh(["git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct"]).strip()
        environment = pip_settings | {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": epoch}
        _sh(["chroot", str(root), "sh", "/source/packaging/build-deb", "/source", "/out"], env=environment)
        (built,) = (root / "out").glob("*.deb")
        output.mkdir(parents=True, exist_ok=True)
        shutil.copy(built, output / built.name)
    return output / built.name


def lintian(package: Path) -> str:
    """Every tag that is not overridden (packaging/debian/lintian-overrides), down to the pedantic ones."""
    command = ["lintian", "--allow-root", "--no-cfg", "--display-info", "--pedantic", str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def main() -> None:
    for suite in sys.argv[1:] or SUITES:
        built = build_package(suite, REPOSITORY / "dist")
        if tags := lintian(built):
            sys.exit(tags)
        print(built.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
