"""The report's figures: inline SVG whose text and colours are the page's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nomoat.evaluate.comparison import Metric
from nomoat.evaluate.svg import BASE, INK, TUNED, svg


def loss_curve(
    curve: dict[str, Any], best_step: int | None, *, name: str = "", per: str = "token"
) -> str | None:
    """Training loss (faint each step, bold smoothed) and held-out loss by step, the best step marked.

    None where there is not a single finite point.
    """
    train, held_out = _points(curve.get("train", [])), _points(curve.get("held_out", []))
    if not train and not held_out:
        return None

    def draw(axes: Axes) -> None:
        if train:
            steps, losses = zip(*train, strict=True)
            axes.plot(steps, losses, color=BASE, alpha=0.25, linewidth=0.7)
            axes.plot(
                steps, smooth(losses), color=BASE, linewidth=1.4, linestyle="--", label="training, smoothed"
            )
        if held_out:
            steps, losses = zip(*held_out, strict=True)
            axes.plot(steps, losses, color=TUNED, linewidth=1.6, marker="o", markersize=3.5, label="held-out")
        best = [(step, loss) for step, loss in held_out if step == best_step]
        if best:
            step, loss = best[0]
            axes.plot(
                [step], [loss], color=INK, marker="D", markersize=6, linestyle="none", label="best, kept"
            )
        axes.set_xlabel("step")
        axes.set_ylabel(f"loss, nats per {per}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(loc="upper right", fontsize=10)

    return svg(f"curve{name}", "Loss by step, training and held-out", 2.6, draw)


def metric_curve(curve: dict[str, Any], key: str, label: str, *, name: str) -> str | None:
    """What an objective tells besides its loss, by step: smoothed in training, and held-out. None where it does not."""
    train, held_out = (_points(curve.get(side, []), key) for side in ("train", "held_out"))
    if not train and not held_out:
        return None

    def draw(axes: Axes) -> None:
        if train:
            steps, values = zip(*train, strict=True)
            axes.plot(
                steps, smooth(values), color=BASE, linewidth=1.4, linestyle="--", label="training, smoothed"
            )
        if held_out:
            steps, values = zip(*held_out, strict=True)
            axes.plot(steps, values, color=TUNED, linewidth=1.6, marker="o", markersize=3.5, label="held-out")
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(loc="lower right", fontsize=10)

    return svg(f"{key}{name}", f"{label} by step, training and held-out", 2.0, draw)


def reliability(bins: Sequence[dict[str, Any]], *, name: str) -> str | None:
    """How often judgements were followed against how sure the reward model was, a point a bin of held-out pairs;
    what is calibrated lies on the diagonal. None where nothing was measured."""
    if not bins:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([50, 100], [50, 100], color=INK, linewidth=1)
        axes.plot(
            [100 * each["confidence"] for each in bins],
            [100 * each["followed"] for each in bins],
            color=TUNED,
            marker="o",
            markersize=4,
            linestyle="none",
        )
        axes.set_xlabel("how sure the reward model was, % (a tenth of the held-out pairs a point)")
        axes.set_ylabel("judgements followed, %")

    return svg(f"reliability{name}", "Reliability of the reward model", 2.4, draw)


def intervals(metrics: Sequence[Metric]) -> str | None:
    """Tuned minus base with its interval, a line a metric, against zero. All of one unit; None for none."""
    if not metrics:
        return None
    is_share = metrics[0].unit.startswith("share")
    scale = 100 if is_share else 1

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        for row, metric in enumerate(metrics):
            low, value, high = (
                scale * x for x in (metric.difference.low, metric.difference.value, metric.difference.high)
            )
            axes.plot([low, high], [row, row], color=TUNED, linewidth=2.2, solid_capstyle="butt")
            axes.plot([value], [row], color=TUNED, marker="o", markersize=5)
        axes.set_yticks(range(len(metrics)), [_shorten(metric.name, 26) for metric in metrics])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(metrics) - 0.4, -0.6)
        unit = "points" if is_share else metrics[0].unit
        label = f"tuned minus base, {unit}"
        axes.set_xlabel(f"{label}; better →" if metrics[0].higher_is_better else f"← better; {label}")

    height_in = 0.6 + 0.26 * len(metrics)
    return svg(
        f"intervals-{'rates' if is_share else 'loss'}", "Difference of tuned and base", height_in, draw
    )


def lengths(histogram: Sequence[Sequence[int]], *, name: str = "") -> str | None:
    """Rows by their length: [[n, rows], ...], rows of at most n tokens but more than the n before. None where
    there are no rows. Bars are equally wide although n doubles, since lengths spread over decades."""
    if not any(rows for _, rows in histogram):
        return None

    def draw(axes: Axes) -> None:
        axes.bar(range(len(histogram)), [rows for _, rows in histogram], width=0.9, align="edge", color=TUNED)
        axes.set_xticks(
            [bar + 0.95 for bar in range(-1, len(histogram))], ["0", *(f"{most:,}" for most, _ in histogram)]
        )
        axes.set_xlabel("tokens in a row")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))

    return svg(f"lengths{name}", "Rows by their length in tokens", 1.9, draw)


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving average over about a fifteenth of the curve, without the bias to the first value."""
    decay = 1 - 1 / max(1.0, len(values) / 15)
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average, weight = decay * average + (1 - decay) * value, decay * weight + (1 - decay)
        smoothed.append(average / weight)
    return smoothed


def _points(curve: Sequence[dict[str, Any]], key: str = "loss") -> list[tuple[int, float]]:
    return [(point["step"], point[key]) for point in curve if key in point and math.isfinite(point[key])]


def _shorten(text: str, most: int) -> str:
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
