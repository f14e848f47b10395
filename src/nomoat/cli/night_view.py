"""What `nomoat run` prints at the end: verdict, where the model is, what it cost, and what to type next."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat.cli.figures import Figure, change, level
from nomoat.cli.output import command, table
from nomoat.cli.units import dollars, duration, energy

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from nomoat.evaluate.comparison import Estimate, Metric
    from nomoat.night.result import NightSummary

KEYS = {
    "night": "number of the night, as `nomoat log NIGHT` takes it",
    "generation": "name of what came out, as `nomoat chat GENERATION` takes it",
    "name": "the recipe's name",
    "base": "what it started from",
    "seed": "the recipe's seed",
    "started_at": "UTC, ISO 8601",
    "ended_at": "UTC, ISO 8601",
    "verdict": "`better`, `not shown better` or `worse` (than its base), `not compared` for a base from scratch",
    "said": "the verdict as a sentence",
    "decided_by": "name of the metric that decided",
    "confidence": "confidence of every interval, 0 to 1",
    "metrics": "list of {suite, name, unit, higher_is_better, base, tuned, difference}; "
    "the last three are {value, low, high, n}",
    "gate": "null, or {verdict, challenger, rival, alpha, e_value, e_against, weighed, links, guards, votes_needed, "
    "left_out, doubts, said}, as `nomoat gate --json` has them",
    "champion": "who is served after this night: a generation, `base`, or null where nobody was ever chosen",
    "model": "folder of the tuned model, as transformers opens it",
    "served_file": "GGUF file that was evaluated and that `nomoat chat` opens",
    "report": "the night's HTML report",
    "stages": "list of {kind, how, seconds, energy_joules, dollars, artifact_id, said}; how is `done` or `reused`",
    "seconds": "wall-clock time of the night",
    "energy_joules": "energy it took",
    "energy_said": "how that was measured or estimated",
    "dollars": "what that cost",
    "price_said": "the prices this was reckoned at",
    "licences": "licences of base and data that came along",
    "warnings": "list of sentences",
    "next": "the command to type next",
}
"""Keys of `nomoat run --json`, for docs/cli.md."""

_MARKS = {"better": ("✓", "bold green"), "worse": ("✗", "bold red")}
_VERDICTS = {
    "better": "Better than its base.",
    "not shown better": "Not shown better than its base.",
    "worse": "Worse than its base.",
}


def night_json(summary: NightSummary, workspace: Path, confidence: float) -> dict[str, Any]:
    """The summary under the keys of `KEYS`; paths are usable from the current folder."""
    return {
        "night": summary.night_id,
        "generation": summary.generation,
        "name": summary.name,
        "base": summary.base,
        "seed": summary.seed,
        "started_at": summary.started_at,
        "ended_at": summary.ended_at,
        "verdict": summary.comparison.verdict,
        "said": summary.comparison.said,
        "decided_by": summary.comparison.decided_by,
        "confidence": confidence,
        "metrics": [asdict(metric) for metric in summary.comparison.metrics],
        "gate": None if summary.gate is None else asdict(summary.gate),
        "champion": summary.champion or None,
        "model": str(workspace / summary.model_path),
        "served_file": str(workspace / summary.served_file),
        "report": str(workspace / summary.report_path),
        "stages": [asdict(stage) for stage in summary.stages],
        "seconds": summary.seconds,
        "energy_joules": summary.energy_joules,
        "energy_said": summary.energy_said,
        "dollars": summary.dollars,
        "price_said": summary.price_said,
        "licences": summary.licences,
        "warnings": summary.warnings,
        "next": next_command(summary, workspace),
    }


def print_night(summary: NightSummary, workspace: Path, confidence: float, to: Console) -> None:
    """The same for people."""
    comparison = summary.comparison
    mark, style = _MARKS.get(comparison.verdict, ("≈", "bold yellow"))
    to.print()
    if comparison.verdict in _VERDICTS:
        to.print(f"{mark} {_VERDICTS[comparison.verdict]}", style=style)
    to.print(comparison.said)
    if comparison.metrics:
        to.print()
        to.print(metrics_table(comparison.metrics, confidence))
    if summary.gate is not None:
        to.print()
        to.print(f"Gate: {summary.gate.said}")
    to.print()
    for name, text in (
        ("generation", f"{summary.generation}, from {summary.base}"),
        ("model", str(workspace / summary.model_path)),
        ("GGUF file", str(workspace / summary.served_file)),
        ("report", str(workspace / summary.report_path)),
        ("cost", f"{duration(summary.seconds)}, {energy(summary.energy_joules)}, {dollars(summary.dollars)}"),
        ("price", summary.price_said),
    ):
        to.print(f"  {name:<11}", style="dim", end="")
        to.print(text, soft_wrap=True)  # a path that is cut in two cannot be copied
    for warning in summary.warnings:
        to.print(f"  ! {warning}", style="yellow")
    to.print()
    to.print("Next: ", end="")
    to.print(next_command(summary, workspace), style="bold", soft_wrap=True)


def metrics_table(metrics: list[Metric], confidence: float) -> Table:
    """Both models side by side, with the difference and its interval."""
    names = "base", "tuned", f"difference ({100 * confidence:g}% interval)"
    made = table("on what no training saw", *names, right=names)
    for metric in metrics:
        unit = "" if metric.unit.startswith("share") else f", {metric.unit}"
        made.add_row(
            f"{metric.name}{unit}",
            level(metric.name, _figure(metric.base)),
            level(metric.name, _figure(metric.tuned)),
            change(metric.name, _figure(metric.difference)),
        )
    return made


def next_command(summary: NightSummary, workspace: Path) -> str:
    """What to type next, for this workspace."""
    return command(*summary.next_command.split(), workspace=workspace)


def _figure(estimate: Estimate) -> Figure:
    return Figure(estimate.value, estimate.low, estimate.high)
