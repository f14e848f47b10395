"""Workspaces with real models in them, as nights leave them, without running any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import tiny_models
from helpers.workspaces import ledger_path, start_night
from nomoat.ledger.artifacts import Artifact, ArtifactStore
from nomoat.ledger.store import Ledger
from nomoat.night.jobs import Folders
from nomoat.night.stages import run_quantize


def quantized(store: ArtifactStore, model: Path, name: str, digit: str) -> Artifact:
    work = store.work_dir("quantize", digit * 64)
    types = ("F32",)
    folders = Folders(work, work)
    outcome = run_quantize(folders, lambda *_: None, model=model, chat_template=None, types=types, name=name)
    meta = {"said": outcome.said, "params": {"types": types, "name": name}, **outcome.meta}
    return store.commit("quantize", digit * 64, inputs={"model": "x"}, meta=meta)


def workspace_with_generation(folder: Path, **overrides: Any) -> Path:
    """A workspace with one generation: a base and a 'tuned' model of other weights."""
    base = tiny_models.build(folder / "base", "smollm", seed=0, **overrides)
    workspace = folder / "workspace"
    store = ArtifactStore(workspace)
    tiny_models.build(store.work_dir("merge", "a" * 64) / "model", "smollm", seed=1, **overrides)
    merged = store.commit("merge", "a" * 64, inputs={"base": "x"}, meta={"said": "merged"})
    served = quantized(store, merged.path / "model", "night", "c")
    of_base = quantized(store, base, "base", "b")
    with Ledger.open(ledger_path(workspace)) as ledger:
        night = start_night(ledger)
        for position, artifact in enumerate((merged, served, of_base)):
            ledger.add_artifact(artifact)
            stage = ledger.start_stage(night, name=artifact.kind, position=position, key=artifact.key)
            ledger.finish_stage(stage, status="done", seconds=1.0, artifact_id=artifact.id)
        generation = ledger.add_generation(
            night,
            base="base:x",
            merged_artifact=merged.id,
            gguf_artifact=served.id,
            served_file=f"{served.relative_path}/night-F32.gguf",
            verdict={"verdict": "better", "said": "It is."},
        )
        verdict = {"verdict": "better", "said": "It is.", "generation": generation.name}
        ledger.finish_night(
            night, status="done", seconds=3.0, energy_joules=1.0, dollars=0.0, verdict=verdict
        )
    return workspace
