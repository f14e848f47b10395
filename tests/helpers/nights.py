"""Whole nights on tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import final

from nomoat.ledger.artifacts import HOUSE, ArtifactStore
from nomoat.ledger.rows import NightRow, StageRow
from nomoat.ledger.store import Ledger
from nomoat.model.load import choose_machine, load_model
from nomoat.model.logprobs import row_losses
from nomoat.night.held_out import steering_rows
from nomoat.night.night import run_night
from nomoat.night.result import NightSummary
from nomoat.recipe_file import load_recipe

QUICK = (
    "threads=1",
    "sft.dtype=float32",
    "sft.max_seq_len=128",
    "sft.tokens_per_step=512",
    "sft.max_steps=8",
    "quantize.types=[F16,Q4_K_M]",
    "quantize.serve=F16",
    "evaluate.max_new_tokens=16",
    "evaluate.samples=2",
    "evaluate.bootstrap_samples=200",
)
"""Overrides that make a night of a tiny model last seconds."""
ANIMALS = ("cat", "dog", "fox", "hen", "pig", "owl")
PLACES = ("mat", "hill", "boat", "wall", "road")
WORDS = ("moon", "sun")


def write_rows(path: Path, count: int = 60) -> Path:
    """Rows that a tiny model can learn: one short answer a question, all questions different."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            animal, place, word = ANIMALS[n % 6], PLACES[n % 5], WORDS[n // 30 % 2]
            asked = f"Where is the {animal} and what of the {word}? ({n})"
            answered = f"The {animal} sat on the {place} and looked at the {word}."
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


@final
class Watched:
    """Remembers what a night says; `on_step` is called with every training step."""

    def __init__(self, on_step: Callable[[int], None] = lambda step: None) -> None:
        self.stages: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._on_step = on_step

    def stage_started(self, kind: str, why: str) -> None: ...

    def stage_progress(self, kind: str, share: float, seconds_left: float | None, note: str) -> None:
        if note.startswith("step "):
            self._on_step(int(note.split()[1]))

    def stage_ended(self, kind: str, how: str, seconds: float, said: str) -> None:
        self.stages.append((kind, how))

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(
    workspace: Path,
    *overrides: str,
    watcher: Watched | None = None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> NightSummary:
    """A night under `QUICK` and these overrides; the workspace is made where it is not there."""
    workspace.mkdir(parents=True, exist_ok=True)
    loaded = load_recipe(None, [*QUICK, *overrides])
    return run_night(loaded, workspace, watcher=watcher or Watched(), stop_asked=stop_asked)


def ledger_of(workspace: Path) -> Ledger:
    """The workspace's ledger, to be closed by the caller's `with`."""
    return Ledger.open(workspace / HOUSE / "ledger.db")


def last_night(workspace: Path) -> tuple[NightRow, tuple[StageRow, ...]]:
    """The newest night as the ledger has it."""
    with ledger_of(workspace) as ledger:
        night = ledger.nights(limit=1)[0]
        return night, ledger.stages(night.id)


def verify_artifacts(workspace: Path) -> list[str]:
    """The kinds of all artifacts of a workspace, each verified by its checksums."""
    store = ArtifactStore(workspace)
    kinds = []
    for path in sorted((workspace / HOUSE / "artifacts").iterdir()):
        manifest = json.loads((path / "artifact.json").read_text(encoding="utf-8"))
        assert store.get(manifest["kind"], manifest["key"]) is not None, store.warnings
        kinds.append(manifest["kind"])
    return kinds


def loss_on_steering_rows(workspace: Path, night_id: int) -> float:
    """Nats a token of the tuned model on the held-out rows that its training went by."""
    with ledger_of(workspace) as ledger:
        folder = {
            stage.name: workspace / HOUSE / "artifacts" / str(stage.artifact_id)
            for stage in ledger.stages(night_id)
        }
    machine = choose_machine("float32")
    model = load_model(folder["merge"] / "model", machine).eval()
    losses = row_losses(model, steering_rows(folder["data"]), batch_tokens=512, device=machine.device)
    return float(losses.nll_N.sum() / losses.tokens_N.sum())
