"""docs/json.md → what a person reads. Everything that came from outside goes through ``words.clean``."""

from .device import added, device, devices, replacing
from .doctor import findings
from .drawing import console, show
from .job import outcome, page_opened, step
from .status import clock, status
from .token import token_objects, tokens
from .watch import happening, watched

__all__ = [
    "added",
    "clock",
    "console",
    "device",
    "devices",
    "findings",
    "happening",
    "outcome",
    "page_opened",
    "replacing",
    "show",
    "status",
    "step",
    "token_objects",
    "tokens",
    "watched",
]
