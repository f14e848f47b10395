"""Nights, stages, scores and lineage as tables and trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nomoat.cli import nights
from nomoat.cli.figures import Figure, change, level
from nomoat.cli.output import table
from nomoat.cli.units import dollars, duration, energy, local_time, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.tree import Tree

    from nomoat.ledger.rows import GenerationRow, LineageNode, NightRow, ScoreRow, StageRow

_KEY_CHARS = 16
"""Of a key or checksum: as many as an artifact's name shows."""


def print_nights(every: Sequence[NightRow], to: Console) -> None:
    """One line a night."""
    made = table("night", "name", "started", "took", "cost", "outcome", right=("night", "took", "cost"))
    for night in every:
        made.add_row(
            str(night.id),
            night.name,
            local_time(night.started_at),
            _took(night.seconds),
            _cost(night.energy_joules, night.dollars),
            nights.outcome(night),
        )
    to.print(made)


def print_night(
    night: NightRow,
    stages: Sequence[StageRow],
    scores: Sequence[ScoreRow],
    generation: GenerationRow | None,
    lineage: LineageNode | None,
    to: Console,
) -> None:
    """One night in full."""
    made = f", {generation.name}" if generation else ""
    to.print(
        f'Night {night.id} "{night.name}", {local_time(night.started_at)}: {nights.outcome(night)}{made}',
        style="bold",
    )
    said = (night.verdict or {}).get("said") or night.error
    if said:
        to.print(said)
    to.print(f"took {_took(night.seconds)}, {_cost(night.energy_joules, night.dollars)}")
    for sentence in (night.plan or {}).get("sentences", []):
        to.print(f"· {sentence}", style="dim")
    to.print()
    to.print(_stages_table(night, stages))
    if scores:
        to.print()
        to.print(_scores_table(scores))
    if lineage:
        to.print("\nMade from", style="bold")
        to.print(lineage_tree(lineage))


def _stages_table(night: NightRow, stages: Sequence[StageRow]) -> Table:
    made = table("stage", "how", "took", "cost", "artifact", "said", right=("took", "cost"))
    for stage in stages:
        row = nights.stage_json(stage, night)
        made.add_row(
            stage.name,
            row["status"],
            *_stage_cost(stage, row["status"]),
            stage.artifact_id or f"{stage.name}-{stage.key[:_KEY_CHARS]} (not made)",
            one_line(row["said"] or "", 100),
        )
    return made


def _scores_table(scores: Sequence[ScoreRow]) -> Table:
    confidence = next((score.confidence for score in scores if score.confidence is not None), None)
    interval = f" ({100 * confidence:g}% interval)" if confidence is not None else ""
    made = table("score", "of", "base", "tuned", f"difference{interval}", right=("base", "tuned"))
    by_metric: dict[tuple[str, str], dict[str, ScoreRow]] = {}
    for score in scores:
        by_metric.setdefault((score.suite, score.metric), {})[score.subject] = score
    for (suite, metric), found in by_metric.items():
        figures = {subject: Figure(score.value, score.low, score.high) for subject, score in found.items()}
        made.add_row(
            metric,
            f"{next(iter(found.values())).n} in {suite}",
            *(level(metric, figures[who]) if who in figures else "" for who in ("base", "tuned")),
            change(metric, figures["difference"]) if "difference" in figures else "",
        )
    return made


def lineage_tree(node: LineageNode) -> Tree:
    """What an artifact was made from, as a tree of `role: id`."""
    from rich.tree import Tree

    tree = Tree(_lineage_label(node), guide_style="dim")
    for child in node.inputs:
        tree.children.append(lineage_tree(child))
    return tree


def _lineage_label(node: LineageNode) -> str:
    kind, colon, rest = node.id.partition(":")
    # an outside fingerprint is 'file:<64 hex digits>'; a Hub id after its colon stays whole
    shown = f"{kind}:{rest[:_KEY_CHARS]}" if colon and len(rest) == 64 else node.id
    role = f"{node.role}: " if node.role else ""
    return f"{role}{shown}{' …' if node.folded else ''}"


def _stage_cost(stage: StageRow, status: str) -> tuple[str, str]:
    """What a stage took and cost, as far as there is something to tell."""
    if status == "running":
        return f"{duration(nights.running_for(stage))} so far", ""
    if status == "reused":
        return "", ""
    return _took(stage.seconds), _cost(stage.energy_joules, stage.dollars)


def _took(seconds: float | None) -> str:
    return "not known" if seconds is None else duration(seconds)


def _cost(joules: float | None, money: float | None) -> str:
    known = [*([] if joules is None else [energy(joules)]), *([] if money is None else [dollars(money)])]
    return ", ".join(known)
