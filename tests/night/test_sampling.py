"""Pairs from a model's own answers: what becomes a pair, and a whole night that learns from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.families import save_tiny
from helpers.nights import Watched, run, verify_artifacts, write_rows
from nomoat.chat.conversation import Conversation, Message
from nomoat.data.split import ASKED, asked_in_training, asked_keys
from nomoat.engine.base import Completion, Sampling
from nomoat.errors import DataError, RecipeError
from nomoat.ledger.artifacts import HOUSE
from nomoat.night import sampling
from nomoat.night.contamination import row_of
from nomoat.night.jobs import Folders, Outcome
from nomoat.night.sampling import PAIRS, run_sample
from nomoat.night.sources import STARTER, find_sources
from nomoat.recipe_file import load_recipe
from nomoat.train.hooks import Interrupted

RECIPES = Path(__file__).parents[2] / "recipes"
SAMPLES = 3


class Scripted:
    """An engine whose answer depends on prompt and seed alone."""

    asked: list[int]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None: ...

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        self.asked.append(sampling.seed)
        number = conversations[0].messages[0].content.split()[-1]
        seeds = range(sampling.seed, sampling.seed + len(conversations))
        return [self.answer(number, seed) for seed in seeds]

    def answer(self, number: str, seed: int) -> Completion:
        # prompt 0 is always right, prompt 1 never, the others sometimes
        right = {"0": True, "1": False}.get(number, seed % SAMPLES == 1)
        text = f"{'yes' if right else 'no'} {seed}"
        return Completion(text, (), "length" if number == "3" else "stop", 5)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "whole_night" not in request.node.name:
        Scripted.asked = []
        monkeypatch.setattr(sampling, "LlamaCppEngine", Scripted)


def write_prompts(path: Path, count: int) -> Path:
    rows = [
        {
            "id": f"p{n}",
            "messages": [{"role": "user", "content": f"Say it, number {n}"}],
            "checks": [{"kind": "includes", "words": ["yes"]}],
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sample(folder: Path, prompts: Path, stop_at: int = -1, leave_out: Sequence[str] = ()) -> Outcome:
    folders = Folders(folder / "out", folder / "scratch")
    for made in (folders.out, folders.scratch):
        made.mkdir(parents=True, exist_ok=True)
    return run_sample(
        folders,
        lambda *_: None,
        gguf=folder,
        tokenizer_dir=folder,
        chat_template=None,
        prompt_files=[prompts],
        samples=SAMPLES,
        temperature=1.0,
        max_new_tokens=9,
        n_ctx=99,
        threads=1,
        seed=0,
        stop_asked=lambda: len(Scripted.asked) == stop_at,
        leave_out=leave_out,
    )


def test_of_what_an_owners_function_cannot_tell_nothing_is_learned(tmp_path: Path) -> None:
    """Of prompt 2 the first answer passes, the second fails, and the third is neither: one pair."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 3)
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    check = {"kind": "function", "function": "rules.py:early"}
    prompts.write_text("".join(json.dumps(row | {"checks": [check]}) + "\n" for row in rows))
    (tmp_path / "rules.py").write_text(
        "def early(messages, answer, row):\n"
        "    number = int(answer.split()[1])\n"
        "    return {6: True, 7: False}[number] if number > 5 else False\n"
    )
    outcome = sample(tmp_path, prompts)
    (row,) = [json.loads(line) for line in (tmp_path / "out" / PAIRS).read_text().splitlines()]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("no 6", "yes 7")
    assert outcome.meta["passed"] == 1
    assert outcome.said == (
        "9 answers to 3 prompts, of which 11% pass, and 1 of which a check could not tell; 1 pairs"
    )


def test_an_answer_that_passes_stands_beside_one_that_does_not(tmp_path: Path) -> None:
    outcome = sample(tmp_path, write_prompts(tmp_path / "prompts.jsonl", 4))
    (row,) = [json.loads(line) for line in (tmp_path / "out" / PAIRS).read_text().splitlines()]
    assert row == {
        "prompt": [{"role": "user", "content": "Say it, number 2"}],
        "chosen": [{"role": "assistant", "content": "yes 7"}],
        "rejected": [{"role": "assistant", "content": "no 6"}],
    }
    # prompt 3 says yes once, but does not end; prompt 0 has nothing worse, prompt 1 nothing better
    assert outcome.meta == {"prompts": 4, "answers": 12, "passed": 4, "pairs": 1}
    assert outcome.said == "12 answers to 4 prompts, of which 33% pass; 1 pairs"


def test_a_prompt_that_holds_what_a_suite_asks_is_not_answered(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 5)
    hashes = [row_of(prompt).content_hash() for prompt in sampling.prompts_with_checks([prompts])]
    assert sample(tmp_path, prompts, leave_out=hashes[2:3]).meta["prompts"] == 4
    assert "number 2" not in (tmp_path / "out" / PAIRS).read_text()


def test_stopped_and_resumed_asks_nothing_twice_and_writes_the_same_bytes(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 9)
    sample(tmp_path / "whole", prompts)
    seeds, Scripted.asked = Scripted.asked, []
    with pytest.raises(Interrupted, match="stopped after answers to 5 of 9 prompts"):
        sample(tmp_path / "cut", prompts, stop_at=5)
    with (tmp_path / "cut" / "scratch" / "answers.jsonl").open("a") as file:
        file.write('[["half a li')  # what a kill leaves behind
    sample(tmp_path / "cut", prompts)
    assert Scripted.asked == seeds
    one, other = ((tmp_path / side / "out" / PAIRS).read_bytes() for side in ("whole", "cut"))
    assert one == other


def test_nothing_to_learn_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="6 answers to 2 prompts, of which 50% pass: no prompt has") as caught:
        sample(tmp_path, write_prompts(tmp_path / "prompts.jsonl", 2))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Raise prefer.samples or prefer.temperature")


def test_a_prompt_without_checks_is_refused_by_name(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "asked.jsonl", 3)
    row = {"id": "bare", "messages": [{"role": "user", "content": "Say it"}]}
    prompts.write_text(prompts.read_text() + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"prefer\.prompts: asked: bare has no checks; expected at least one"):
        sampling.prompts_with_checks([prompts])


def test_without_any_file_the_starters_prompts_are_asked() -> None:
    loaded = load_recipe(RECIPES / "preference.yaml")
    sources = find_sources(loaded.recipe, loaded.folder)
    assert (sources.asked, sources.prefer) == ((STARTER / "prompts.jsonl",), ())
    assert sources.prompts == (STARTER / "heldout.jsonl",)
    assert len(sampling.prompts_with_checks(sources.asked)) == 480
    rewarded = load_recipe(RECIPES / "reinforce.yaml")
    assert find_sources(rewarded.recipe, rewarded.folder).reinforce == sources.asked
    with pytest.raises(RecipeError, match="prompts and train exclude each other"):
        load_recipe(None, ["prefer.train=a.jsonl", "prefer.prompts=b.jsonl"])


def test_whole_night_of_sft_sampling_and_learning_from_it(tmp_path: Path) -> None:
    base, rows = save_tiny("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    asked = [
        {
            "messages": [{"role": "user", "content": f"Where is the cat and what of the moon? ({n})"}],
            "checks": [{"kind": "includes", "words": ["sat", "looked"]}],
        }
        for n in range(100, 130)
    ]
    prompts = tmp_path / "asked.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    words = [f"base={base}", f"data.train={rows}", "data.held_out=0.2", f"prefer.prompts={prompts}"]
    words += ["sft.max_steps=120", "sft.num_train_epochs=100", "sft.learning_rate=1e-2", "prefer.samples=6"]
    words += ["prefer.max_new_tokens=40", "prefer.max_seq_len=128", "prefer.num_train_epochs=4"]
    words += ["prefer.learning_rate=3e-3"]
    watcher = Watched()
    night = run(tmp_path / "work", *words, watcher=watcher)
    kinds = ["data", "quantize", "sft", "merge", "quantize", "sample", "judgements", "prefer"]
    kinds += ["merge", "quantize", "evaluate", "gate"]
    assert [kind for kind, _ in watcher.stages] == kinds
    assert sorted(verify_artifacts(tmp_path / "work")) == sorted(kinds)
    facts = night.trainings[1].facts
    assert facts["best_loss"] < facts["first_loss"]
    again = Watched()
    run(tmp_path / "work", *words, watcher=again)
    assert [how for _, how in again.stages] == ["reused"] * len(kinds)

    # what the gate asks from now on has been answered, but is not learned from
    (sampled,) = (tmp_path / "work").glob(f"{HOUSE}/artifacts/sample-*/{PAIRS}")
    pairs = [json.loads(line) for line in sampled.read_text().splitlines()]
    questions = sorted({pair["prompt"][0]["content"] for pair in pairs})[::3]
    gate = tmp_path / "gate.jsonl"
    rows_of_gate = [row for row in asked if row["messages"][0]["content"] in questions]
    gate.write_text("".join(json.dumps(row) + "\n" for row in rows_of_gate), encoding="utf-8")
    watcher = Watched()
    night = run(tmp_path / "work", *words, f"evaluate.prompts={gate}", watcher=watcher)
    done = [kind for kind, how in watcher.stages if how == "done"]
    assert done == ["judgements", "prefer", "merge", "quantize", "evaluate", "gate"]
    assert any("of the held-out prompts are asked in the training rows too" in note for note in watcher.notes)
    judged = [stage.artifact_id for stage in night.stages if stage.kind == "judgements"]
    keys = [key for text in questions for key in asked_keys(Conversation((Message("user", text),)))]
    first, second = (
        asked_in_training(tmp_path / "work" / HOUSE / "artifacts" / name / ASKED, keys) for name in judged
    )
    assert (bool(first), second) == (True, [])
    # nor where the suite is gone: an earlier night was measured on it
    after = Watched()
    run(tmp_path / "work", *words, watcher=after)
    assert [how for kind, how in after.stages if kind in ("judgements", "prefer")] == ["reused"] * 3

    near = [
        row | {"messages": [{"role": "user", "content": row["messages"][0]["content"] + " Well"}]}
        for row in asked
    ]
    gate.write_text("".join(json.dumps(row) + "\n" for row in near), encoding="utf-8")
    with pytest.raises(DataError, match=r"prefer\.prompts: all 30 hold what held-out prompts ask"):
        run(tmp_path / "work", *words, f"evaluate.prompts={gate}", "data.decontaminate=remove")
