"""How every benchmark prints a figure: ``name = value unit (target ≤ x): met``."""

from __future__ import annotations


def figure(
    name: str, value: float, unit: str = "", *, at_most: float | None = None, at_least: float | None = None
) -> None:
    """One line. Without a target it is a figure to compare others with."""
    line = f"{name} = {value:.4g}" + (f" {unit}" if unit else "")
    for sign, target, met in (
        ("≤", at_most, at_most is None or value <= at_most),
        ("≥", at_least, at_least is None or value >= at_least),
    ):
        if target is not None:
            line += f" (target {sign} {target:g}): {'met' if met else 'missed'}"
    print(line, flush=True)
