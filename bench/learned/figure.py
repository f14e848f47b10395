"""The picture of bench/learning.py: held-out pass rate of each method against minutes, a line for every seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from learned.stages import Run

COLOURS = {"dpo": "#1b6ca8", "grpo": "#c8553d", "best_of_n": "#3a8a5f", "rloo": "#7d5ba6"}
NAMES = {"dpo": "DPO", "grpo": "GRPO", "best_of_n": "best of n", "rloo": "reward model, RLOO"}


def draw(runs: Sequence[Run], sft: Sequence[bool], most: int, file: Path) -> None:
    """Write the PNG. All points are of the same `most` prompts, the first point of every line is `sft`."""
    start = mean(sft[:most])
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.axhline(100 * start, color="#888888", linewidth=1, linestyle=":", label="after sft")
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        curves = [[(0.0, start), *((p["minutes"], mean(p["passed"])) for p in run.points)] for run in own]
        are_alike = len({len(curve) for curve in curves}) == 1
        for number, curve in enumerate(
            curves
        ):  # one that ended by itself has fewer points: then there is no mean
            label = NAMES[method] if number == 0 and not are_alike else None
            alpha, width = (0.3, 0.9) if are_alike else (0.8, 1.4)
            axes.plot(*_xy(curve), color=COLOURS[method], alpha=alpha, linewidth=width, label=label)
        if are_alike:
            middle = [tuple(map(mean, zip(*points, strict=True))) for points in zip(*curves, strict=True)]
            axes.plot(*_xy(middle), color=COLOURS[method], linewidth=2, marker="o", label=NAMES[method])
    axes.set(xlabel="minutes of one core, sampling included", ylabel=f"passed of {most} fresh prompts, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _xy(curve: Sequence[tuple[float, ...]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in curve], [100 * y for _, y in curve]
