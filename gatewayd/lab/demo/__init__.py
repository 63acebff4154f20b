"""``demo``: the main job, end to end, with the real daemon, and a proof at each step."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .leaf import EnrollmentFailed
from .script import Script
from .stage import Stage, StageError
from .story import STORY, Play
from .tokens import TOKENS


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gatewayd.lab demo", description="The main job, end to end.")
    parser.add_argument(
        "--dir", type=Path, default=Path("demo-state"), help="where everything is made; emptied first (%(default)s)"
    )
    parser.add_argument(
        "--token", choices=TOKENS, default="softhsm", help="where the gateway's keys are (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    script = Script(sys.stdout)
    directory = options.dir.resolve()
    if directory.exists():
        shutil.rmtree(directory)
    began = time.monotonic()
    try:
        with Stage(directory, token=TOKENS[options.token]) as stage:
            script.opening(
                "gatewayd: a gateway and its leaves get certificates, keep them, and lose them when revoked",
                f"Everything is in {directory.name}/. EZCA, Entra and IoT Hub are stand-ins at {stage.address};"
                f" the keys are in {stage.token.name}; all the rest is real.",
            )
            play = Play(stage, script)
            for scene in STORY:
                scene(play)
    except (StageError, EnrollmentFailed, OSError, subprocess.SubprocessError) as error:
        script.failed(str(error), directory / "gatewayd.log")
        return 1
    script.closing(f"All proved, in {time.monotonic() - began:.0f} s.")
    return 0
