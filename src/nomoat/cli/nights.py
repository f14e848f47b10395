"""Nights as the ledger keeps them, in the form that `nomoat status` and `nomoat log` print."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nomoat.cli.units import duration, one_line

if TYPE_CHECKING:
    from nomoat.ledger.rows import ChampionRow, GenerationRow, LineageNode, NightRow, ScoreRow, StageRow

CUT_OFF = "cut off"
"""Shown in place of 'running' where the night's process is gone."""

NIGHT_KEYS = (
    "{id, name, status, started_at, ended_at, seconds, energy_joules, dollars, verdict, said, generation, error}; "
    "status is `running`, `done`, `failed`, `interrupted` or `cut off` (its process is gone)"
)
STAGE_KEYS = (
    "{name, status, key, artifact_id, started_at, ended_at, seconds, energy_joules, dollars, said, "
    "expected_seconds}; status is `running`, `done`, `reused`, `failed` or `interrupted`"
)


def status_of(night: NightRow) -> str:
    """What became of it, as far as anyone can know."""
    return CUT_OFF if night.is_lost() else night.status


def night_json(night: NightRow) -> dict[str, Any]:
    """One night under `NIGHT_KEYS`."""
    verdict = night.verdict or {}
    return {
        "id": night.id,
        "name": night.name,
        "status": status_of(night),
        "started_at": night.started_at,
        "ended_at": night.ended_at,
        "seconds": night.seconds,
        "energy_joules": night.energy_joules,
        "dollars": night.dollars,
        "verdict": verdict.get("verdict"),
        "said": verdict.get("said"),
        "generation": verdict.get("generation"),
        "error": night.error,
    }


def stage_json(stage: StageRow, night: NightRow) -> dict[str, Any]:
    """One stage under `STAGE_KEYS`."""
    detail = stage.detail or {}
    return {
        "name": stage.name,
        "status": CUT_OFF if stage.status == "running" and night.is_lost() else stage.status,
        "key": stage.key,
        "artifact_id": stage.artifact_id,
        "started_at": stage.started_at,
        "ended_at": stage.ended_at,
        "seconds": stage.seconds,
        "energy_joules": stage.energy_joules,
        "dollars": stage.dollars,
        "said": detail.get("said") or detail.get("error"),
        "expected_seconds": _expected_seconds(stage.name, night),
    }


def generation_json(generation: GenerationRow) -> dict[str, Any]:
    """One generation: {name, night, created_at, base, served_file, verdict, said}."""
    verdict = generation.verdict or {}
    return {
        "name": generation.name,
        "night": generation.night_id,
        "created_at": generation.created_at,
        "base": generation.base,
        "served_file": generation.served_file,
        "verdict": verdict.get("verdict"),
        "said": verdict.get("said"),
    }


def champion_json(champion: ChampionRow | None) -> dict[str, Any] | None:
    """Who is served: {name, since, chosen_by, said}; None where nobody was ever chosen."""
    if champion is None:
        return None
    name = "base" if champion.generation_id is None else f"gen-{champion.generation_id:04d}"
    return {"name": name, "since": champion.since, "chosen_by": champion.chosen_by, "said": champion.said}


def score_json(score: ScoreRow) -> dict[str, Any]:
    """One score: {subject, suite, metric, value, low, high, confidence, n}."""
    names = ("subject", "suite", "metric", "value", "low", "high", "confidence", "n")
    return {name: getattr(score, name) for name in names}


def lineage_json(node: LineageNode) -> dict[str, Any]:
    """A tree of {id, kind, role, inputs, folded}."""
    return asdict(node)


def outcome(night: NightRow) -> str:
    """What came of a night, on one line."""
    status, verdict = status_of(night), night.verdict or {}
    if status == "done":
        return str(verdict.get("verdict", "done"))
    if status == "failed":
        return f"failed: {one_line(night.error or 'no reason kept', 60)}"
    return status


def running_for(stage: StageRow, now: datetime | None = None) -> float:
    """Seconds since a stage began."""
    return ((now or datetime.now(UTC)) - datetime.fromisoformat(stage.started_at)).total_seconds()


def running_words(stage: StageRow, night: NightRow, now: datetime | None = None) -> str:
    """'sft, for 3 min 20 s so far (about 6 min planned)'."""
    planned = _expected_seconds(stage.name, night)
    words = f"{stage.name}, for {duration(running_for(stage, now))} so far"
    return words if planned is None else f"{words} (about {duration(planned)} planned)"


def _expected_seconds(kind: str, night: NightRow) -> float | None:
    """The plan's forecast for a stage, where the night has a plan by now."""
    forecasts = (night.plan or {}).get("stages", [])
    return next((forecast["seconds"] for forecast in forecasts if forecast["kind"] == kind), None)
