"""Workspaces with a ledger as nights leave it, without running any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nomoat.ledger.artifacts import Artifact
from nomoat.ledger.rows import Sample, Score
from nomoat.ledger.store import Ledger
from nomoat.recipe import Recipe

SAID = (
    "The tuned model passes 38 of 60 held-out prompts, the base 7: +51.7 points (95% interval 38.3 to 65.0)."
)
PLAN = {
    "stages": [{"kind": "sft", "seconds": 372.0, "energy_joules": 12_000.0, "dollars": 0.001}],
    "sentences": ["training reads 97,200 tokens, about 372 s"],
}


def ledger_path(workspace: Path) -> Path:
    return workspace / ".nomoat" / "ledger.db"


def artifact(workspace: Path, kind: str, digit: str, inputs: dict[str, str], **meta: Any) -> Artifact:
    """What the ledger is told of an artifact; there are no files."""
    key = digit * 64
    path = workspace / ".nomoat" / "artifacts" / f"{kind}-{key[:16]}"
    return Artifact(path.name, kind, key, path, inputs, {"said": f"{kind} done", **meta}, 1000)


def start_night(
    ledger: Ledger, name: str = "night", *, alone: bool = True, recipe: Recipe | None = None
) -> int:
    """A night of this process, running."""
    started = ledger.start_night(
        name=name,
        recipe_text="",
        recipe_resolved=(recipe or Recipe()).model_dump(mode="json"),
        code_version="5f0c3a9e1b7d2468",
        seed=0,
        machine={"device": "cpu", "cores": 2},
        alone=alone,
    )
    ledger.set_plan(started.night.id, PLAN)
    return started.night.id


def held_out(n: int, *, base: str = "", tuned: str = "") -> Sample:
    """What both said to the prompt "Held out {n}"."""
    prompt = [{"role": "user", "content": f"Held out {n}"}]
    return Sample(suite="heldout", prompt_id=f"p{n}", prompt=prompt, base_answer=base, tuned_answer=tuned)


def two_generations(workspace: Path, samples_of: Callable[[int], Sequence[Sample]]) -> None:
    """A generation of each of the nights 1 and 2, the first of them the champion. `samples_of` are a night's."""
    with Ledger.open(ledger_path(workspace)) as ledger:
        for number in (1, 2):
            night = start_night(ledger)
            ledger.add_generation(
                night, base="base:x", served_file=f".nomoat/artifacts/quantize-{number}/night-Q8_0.gguf"
            )
            ledger.add_samples(night, samples_of(number))
            ledger.finish_night(night, status="done", seconds=1.0, energy_joules=None, dollars=None)
        ledger.judgements.crown(1, by="gate", said="")


def good_night(workspace: Path, ledger: Ledger, digit: str = "a") -> int:
    """A night that ended well: data reused, then sft, merge, quantize (twice), evaluate."""
    night = start_night(ledger)
    base = f"base:{'b' * 64}"
    data = artifact(workspace, "data", "1", {"base": base, "file 0": f"file:{'c' * 64}"})
    sft = artifact(workspace, "sft", digit, {"base": base, "data": data.id})
    merge = artifact(workspace, "merge", digit, {"base": base, "adapter": sft.id, "data": data.id})
    served = artifact(workspace, "quantize", digit, {"model": merge.id}, params={"name": "night"})
    for position, (made, seconds) in enumerate(((data, 0.0), (sft, 360.0), (merge, 3.0), (served, 6.5))):
        ledger.add_artifact(made)
        stage = ledger.start_stage(night, name=made.kind, position=position, key=made.key)
        ledger.finish_stage(
            stage,
            status="done" if seconds else "reused",
            seconds=seconds,
            artifact_id=made.id,
            energy_joules=34.0 * seconds,
            dollars=0.0001 * seconds,
            detail={"said": f"{made.kind} done"},
        )
    ledger.add_scores(
        night,
        [
            Score(subject=who, suite=suite, metric=metric, value=v, low=low, high=high, confidence=0.95, n=n)  # type: ignore[arg-type]
            for who, suite, metric, v, low, high, n in (
                ("base", "heldout", "pass rate", 0.1167, 0.058, 0.222, 60),
                ("tuned", "heldout", "pass rate", 0.6333, 0.507, 0.744, 60),
                ("difference", "heldout", "pass rate", 0.5167, 0.3833, 0.65, 60),
                ("base", "held-out rows", "loss", 1.924, 1.85, 2.0, 36),
                ("tuned", "held-out rows", "loss", 1.412, 1.35, 1.47, 36),
                ("difference", "held-out rows", "loss", -0.512, -0.56, -0.47, 36),
            )
        ],
    )
    made = ledger.add_generation(
        night,
        base=base,
        adapter_artifact=sft.id,
        merged_artifact=merge.id,
        gguf_artifact=served.id,
        served_file=f"{served.relative_path}/night-Q8_0.gguf",
        verdict={"verdict": "better", "said": SAID},
    )
    ledger.finish_night(
        night,
        status="done",
        seconds=390.0,
        energy_joules=13_260.0,
        dollars=0.0011,
        verdict={"verdict": "better", "said": SAID, "generation": made.name},
    )
    return night
