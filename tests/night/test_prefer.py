"""Nights that learn from judged answers, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.families import save_tiny
from helpers.nights import Watched, last_night, ledger_of, run, verify_artifacts, write_rows
from nomoat.errors import DataError, RecipeError
from nomoat.ledger.artifacts import HOUSE
from nomoat.night.check import check_data
from nomoat.night.result import NightSummary
from nomoat.night.runner import NightInterrupted
from nomoat.recipe_file import load_recipe

KEYS = (
    "prefer.max_seq_len=96",
    "prefer.tokens_per_step=512",
    "prefer.max_steps=6",
    "prefer.learning_rate=3e-3",
)
FRUITS = ("fig", "plum", "pear", "lime")


def write_pairs(path: Path, count: int = 60) -> Path:
    """Pairs of which the preferred answer always ends in the same word."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            asked = f"Which fruit, and where is the cat? ({n})"
            said = f"The {FRUITS[n % 4]} is on the mat"
            row = {"prompt": asked, "chosen": f"{said} now.", "rejected": f"{said} or not, who knows?"}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


def folder_of(workspace: Path, kind: str) -> Path:
    (folder,) = workspace.glob(f"{HOUSE}/artifacts/{kind}-*")
    return folder


def test_a_night_that_trains_the_adapter_of_sft_further(base: Path, pairs: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    watcher = Watched()
    night = run(
        tmp_path, f"base={base}", f"data.train={rows}", f"prefer.train={pairs}", *KEYS, watcher=watcher
    )
    kinds = ["data", "judgements", "quantize", "sft", "prefer", "merge", "quantize", "evaluate", "gate"]
    assert [kind for kind, _ in watcher.stages] == kinds
    assert sorted(verify_artifacts(tmp_path)) == sorted(kinds)
    sft, prefer = night.trainings
    assert (sft.kind, prefer.kind) == ("sft", "prefer")
    first, *_, last = prefer.curve["held_out"]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3), "the reference is what sft left"
    assert first["margin"] == pytest.approx(0.0, abs=1e-4)
    assert last["loss"] < 0.6
    assert prefer.facts["best_accuracy"] == last["accuracy"] > 0.9
    assert prefer.facts["best_margin"] > 0
    assert "prefer: learning rate 0.003, as the recipe says" in watcher.notes
    _, stages = last_night(tmp_path)
    detail = {stage.name: stage for stage in stages}["prefer"].detail
    assert "judgements followed" in detail["said"]
    with ledger_of(tmp_path) as ledger:
        assert ledger.generations()[0].adapter_artifact == folder_of(tmp_path, "prefer").name
    page = (tmp_path / night.report_path).read_text()
    assert "judgements followed" in page
    assert f"{night.data_reports[1]['rows']['train']} pairs to learn from" in page
    again = Watched()
    run(tmp_path, f"base={base}", f"data.train={rows}", f"prefer.train={pairs}", *KEYS, watcher=again)
    assert {how for _, how in again.stages} == {"reused"}


def test_straight_on_a_base_without_sft(base: Path, pairs: Path, tmp_path: Path) -> None:
    night = run(tmp_path, f"base={base}", "sft=null", f"prefer.train={pairs}", "prefer.lora_r=4", *KEYS)
    (prefer,) = night.trainings
    assert prefer.facts["best_loss"] < 0.6
    config = json.loads((folder_of(tmp_path, "prefer") / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 4
    assert night.comparison.metrics, "the held-out good answers are what both models are compared on"


def test_all_weights_after_all_weights(base: Path, pairs: Path, tmp_path: Path) -> None:
    night = run(
        tmp_path,
        f"base={base}",
        f"data.train={pairs}",
        "data.use_preferred=true",
        "sft.method=full",
        "prefer.loss_type=ipo",
        *KEYS,
        "prefer.learning_rate=1e-3",
    )
    assert [training.kind for training in night.trainings] == ["sft", "prefer"]
    assert (folder_of(tmp_path, "prefer") / "model" / "model.safetensors").is_file()
    data, judged = night.data_reports
    assert data["rows"]["held_out"] == judged["rows"]["held_out"], "the same prompts are held out of both"


@pytest.mark.parametrize("loss_type", ["kto", "orpo", "simpo"])
def test_other_losses(base: Path, tmp_path: Path, loss_type: str) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    file = pairs
    if loss_type == "kto":
        file = tmp_path / "rated.jsonl"
        rows = [json.loads(line) for line in pairs.read_text().splitlines()]
        rated = [
            {
                "prompt": row["prompt"],
                "completion": row["chosen" if i % 2 else "rejected"],
                "label": bool(i % 2),
            }
            for i, row in enumerate(rows)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rated))
    words = (f"base={base}", "sft=null", f"prefer.train={file}", f"prefer.loss_type={loss_type}", *KEYS)
    night = run(tmp_path, *words, "data.held_out=0.2")
    facts = night.trainings[0].facts
    assert facts["best_loss"] < facts["first_loss"]
    assert facts["best_accuracy"] > 0.7


def stopped_and_resumed(
    workspace: Path, words: tuple[str, ...], stop: Callable[[], bool], watcher: Watched
) -> NightSummary:
    with pytest.raises(NightInterrupted):
        run(workspace, *words, watcher=watcher, stop_asked=stop)
    return run(workspace, *words)


def test_stopped_and_resumed_ends_in_the_same_bytes(base: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    words: tuple[Any, ...] = (
        f"base={base}",
        "sft=null",
        f"prefer.train={pairs}",
        "prefer.lora_dropout=0.1",
        *KEYS,
    )
    words += ("prefer.save_steps=2", "prefer.eval_steps=2")
    run(tmp_path / "whole", *words)
    steps: list[int] = []
    stopped_and_resumed(tmp_path / "cut", words, lambda: steps[-1:] == [3], Watched(steps.append))
    one, other = (folder_of(tmp_path / side, "prefer") for side in ("whole", "cut"))
    weights = "adapter/adapter_model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()
    curves = [json.loads((folder / "training.json").read_text())["curve"] for folder in (one, other)]
    assert curves[0] == curves[1]


def test_what_is_no_judged_answer_is_refused_with_what_to_do(base: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="holds messages rows; expected judged answers") as caught:
        run(tmp_path, f"base={base}", "sft=null", f"prefer.train={rows}")
    assert caught.value.hint == (
        "Answers that nobody has judged belong under data.train. To learn from votes alone: prefer.votes: only."
    )


def test_the_adapter_is_that_of_sft(base: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        run(tmp_path, f"base={base}", f"prefer.train={pairs}", "prefer.lora_r=4")
    assert "prefer.lora_r (4) must be left out, or be as in sft (16)" in str(caught.value)


def test_check_reads_what_both_stages_would(base: Path, pairs: Path, tmp_path: Path) -> None:
    keys = (
        f"base={base}",
        f"data.train={pairs}",
        "data.use_preferred=true",
        "prefer={}",
        "sft.max_seq_len=128",
    )
    found = check_data(load_recipe(None, [*keys, "prefer.max_seq_len=96"]), tmp_path, Watched())
    assert list(found.reports) == ["sft", "prefer"]
    assert found.reports["prefer"]["said"].startswith(
        f"{found.reports['sft']['rows']['train']} pairs to learn from"
    )
    alone = check_data(load_recipe(None, [*keys, "sft=null"]), tmp_path, Watched())
    assert list(alone.reports) == ["prefer"]


def test_a_deadline_shortens_learning_from_judgements(base: Path, pairs: Path, tmp_path: Path) -> None:
    endless = ("prefer.max_steps=4000", "prefer.num_train_epochs=100000", "prefer.learning_rate=1e-4")
    words = (f"base={base}", "sft=null", f"prefer.train={pairs}", *KEYS, *endless, "budget.hours=0.017")
    night = run(tmp_path, *words)
    (prefer,) = night.trainings
    assert 5 < prefer.facts["steps"] < 4000
    assert prefer.facts["seconds"] < 0.017 * 3600 - 30
    assert any("are left: ending after" in event for event in prefer.curve["events"])
