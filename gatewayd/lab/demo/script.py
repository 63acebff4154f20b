"""What the demo prints."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from .stage import StageError


class Script:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._tty = out.isatty()
        self._scene = 0

    def _line(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._tty else text

    def opening(self, title: str, words: str) -> None:
        self._line(self._paint(title, "1"))
        self._line(words)

    def scene(self, title: str) -> None:
        self._scene += 1
        self._line()
        self._line(self._paint(f"{self._scene}  {title}", "1"))

    def command(self, shown: str, output: str = "") -> None:
        self._line(self._paint(f"   $ {shown}", "36"))
        for line in output.rstrip().splitlines():
            self._line(f"     {line}")

    def say(self, words: str) -> None:
        self._line(f"   {words}")

    def prove(self, words: str, proved: bool, otherwise: str = "") -> None:
        """Print what was proved; raises StageError when it was not."""
        if not proved:
            raise StageError(f"not so: {words}" + (f" ({otherwise})" if otherwise else ""))
        self._line(f"   {self._paint('✓', '32')} {words}")

    def closing(self, words: str) -> None:
        self._line()
        self._line(self._paint(words, "1;32"))

    def failed(self, words: str, log: Path) -> None:
        self._line()
        self._line(self._paint(f"✗ {words}", "1;31"))
        if log.exists():
            self._line("The end of the daemon's log:")
            for line in log.read_text(errors="replace").splitlines()[-15:]:
                self._line(f"     {line}")
