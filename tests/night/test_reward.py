"""Nights that make a reward model, on a tiny model."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from faults.test_kill import LIMIT_S, running
from helpers.families import save_tiny
from helpers.nights import Watched, last_night, run, verify_artifacts, write_rows
from night.test_prefer import folder_of, write_pairs
from night.test_reinforce import wait_for_step
from nomoat.data.judged import Group
from nomoat.errors import DataError, ModelError, RecipeError
from nomoat.model.load import Machine
from nomoat.night.rewarding import measure
from nomoat.recipe_file import load_recipe
from nomoat.train.reward_model import Measured, halves

KEYS = (
    "sft.max_steps=2",
    "data.held_out=0.3",
    "reward.max_seq_len=96",
    "reward.tokens_per_step=512",
    "reward.max_steps=8",
    "reward.learning_rate=3e-3",
    "reward.save_steps=2",
    "reward.eval_steps=2",
)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("reward")
    base, rows = save_tiny("llama", folder / "base"), write_rows(folder / "rows.jsonl")
    pairs = write_pairs(folder / "pairs.jsonl", 80)
    with pairs.open("a", encoding="utf-8") as file:
        for n in range(40):
            row = {"prompt": f"Which ones? ({n})", "chosen": f"The {n} fig.", "rejected": f"A {n} plum."}
            file.write(json.dumps(row | {"tie": True}) + "\n")
    return f"base={base}", f"data.train={rows}", f"reward.train={pairs}", *KEYS


def scored(folder: Path, texts: list[str]) -> list[float]:
    """Scores as transformers computes them, of texts as they are rendered."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        found: list[float] = model(**batch).logits[:, 0].tolist()
    return found


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_night_makes_a_reward_model(words: tuple[str, ...], tmp_path: Path, method: str) -> None:
    watcher = Watched()
    rate = "reward.learning_rate=1e-3" if method == "full" else "reward.lora_r=4"
    night = run(tmp_path, *words, f"reward.method={method}", rate, watcher=watcher)
    kinds = ["data", "judgements", "quantize", "reward", "sft", "merge", "quantize", "evaluate", "gate"]
    assert [kind for kind, _ in watcher.stages] == kinds
    assert sorted(verify_artifacts(tmp_path)) == sorted(kinds)
    reward, sft = night.trainings
    assert (reward.kind, sft.kind) == ("reward", "sft")
    first, *_ = reward.curve["held_out"]
    assert first["loss"] == pytest.approx(math.log(2)), "a head of zeros prefers nothing"
    assert first["accuracy"] == 0.5
    facts = reward.facts
    assert facts["held_out_accuracy"] > 0.9
    assert facts["accuracy_low"] > 0.5
    assert facts["ties"] + facts["decided"] > facts["decided"] > 5
    assert 0 <= facts["calibration_error"] < 0.3
    _, stages = last_night(tmp_path)
    said = {stage.name: stage.detail["said"] for stage in stages}["reward"]
    assert "other held-out judgements (95% interval" in said
    page = (tmp_path / night.report_path).read_text()
    for told in (
        "other held-out judgements followed",
        "calibration error, as a share",
        "pairs to learn from",
    ):
        assert told in page

    turns = "<|im_start|>user\nWhich fruit, and where is the cat? (900)<|im_end|>\n<|im_start|>assistant\n"
    good, bad = (f"{turns}The fig is on the mat{end}<|im_end|>" for end in (" now.", " or not, who knows?"))
    scores = scored(folder_of(tmp_path, "reward") / "model", [good, bad])
    assert scores[0] > scores[1]
    again = Watched()
    run(tmp_path, *words, f"reward.method={method}", rate, watcher=again)
    assert {how for _, how in again.stages} == {"reused"}


def test_killed_it_ends_in_the_same_bytes(words: tuple[str, ...], tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    longer = (*words, "reward.max_steps=20", "reward.num_train_epochs=20", "reward.lora_dropout=0.1")
    run(alone, *longer)
    killed.mkdir()
    with running(killed, *longer) as process:
        wait_for_step(process, killed, 11, "reward")
        process.kill()
        assert process.wait() == -signal.SIGKILL
    with running(killed, *longer) as process:
        _, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
    one, other = (folder_of(side, "reward") for side in (alone, killed))
    for file in ("model/model.safetensors", "model/config.json", "measured.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    curves = [json.loads((folder / "training.json").read_text())["curve"] for folder in (one, other)]
    assert curves[0] == curves[1]


def test_pairs_of_one_prompt_are_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(0)
    once = rng.normal(0.5, 1.0, 40)
    alone = Measured(once, np.zeros(40, dtype=np.bool_), np.arange(40))
    copied = Measured(np.repeat(once, 5), np.zeros(200, dtype=np.bool_), np.repeat(np.arange(40), 5))
    first, other = measure(alone, 0.95), measure(copied, 0.95)
    for key in ("held_out_accuracy", "accuracy_low", "accuracy_high", "prompts", "temperature"):
        assert first[key] == pytest.approx(other[key], rel=1e-6)


class Held:
    """Groups of ten tokens, three to a prompt, in the order of their topics."""

    answers = 2

    def __init__(self, prompts: int) -> None:
        self.lengths = np.full(3 * prompts, 10)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Group:
        return Group(np.array([index // 3], dtype=np.uint32), (), (True, False))


def test_what_steers_and_what_is_measured_are_of_all_topics_and_share_no_prompt() -> None:
    steering, measured = halves(Held(20))
    first, other = (
        {group.prompt[0] for group in map(half.__getitem__, range(len(half)))}
        for half in (steering, measured)
    )
    assert (len(steering), len(measured)) == (30, 30)
    assert first | other == {*range(20)} and not first & other
    assert {*range(10)} - first and {*range(10)} - other, "not the first half of a file that is sorted"
    assert [len(half) for half in halves(Held(1))] == [1, 2], "of one prompt its pairs"
    assert halves(Held(20))[0].lengths.sum() == 300


def refused(workspace: Path, *overrides: str) -> Any:
    with pytest.raises((RecipeError, DataError)) as caught:
        run(workspace, *overrides)
    return str(caught.value)


def test_what_cannot_be_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    without = [word for word in words if not word.startswith("reward.train")]
    said = refused(tmp_path, *[word for word in without if not word.startswith("data.train")])
    assert "reward: names no judged answers to learn from" in said
    assert "holds messages rows; expected judged answers" in refused(tmp_path, *without)
    assert "reward makes a reward model beside" in refused(
        tmp_path, "sft=null", "pretrain.train=a.txt", *KEYS[2:]
    )
    assert "needs the path of a reward model" in refused(
        tmp_path, "reinforce.prompts=p.jsonl", 'reinforce.rewards=[{"kind": "reward_model"}]'
    )
    loaded = load_recipe(None, ["reward={}", "prefer.train=a.jsonl"])
    assert loaded.recipe.reward is not None


@pytest.mark.parametrize("method", ["rloo", "ppo"])
def test_reinforcement_by_the_reward_model_of_the_night(
    words: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    """And then by the same model as a folder, which gives the same rewards."""
    prompts = tmp_path / "prompts.jsonl"
    asked = [{"messages": [{"role": "user", "content": f"Which fruit? ({n})"}]} for n in range(30)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in asked))
    keys = (
        f"reinforce.prompts={prompts}",
        f"reinforce.method={method}",
        "reinforce.max_new_tokens=12",
        "reinforce.max_seq_len=96",
        "reinforce.tokens_per_step=384",
        "reinforce.max_steps=3",
        "reinforce.num_generations=4",
        "reinforce.learning_rate=1e-2",
        "reinforce.max_kl=50",
    )
    night = run(tmp_path, *words, *keys, 'reinforce.rewards=[{"kind": "reward_model"}]')
    assert [training.kind for training in night.trainings] == ["reward", "sft", "reinforce"]
    curve = night.trainings[2].curve
    assert all(point["unrewarded"] < 0.5 and point["reward_std"] > 0 for point in curve["train"])
    assert all(0 < point["pass_rate"] < 1 for point in curve["held_out"])
    folder = folder_of(tmp_path, "reward") / "model"
    named = json.dumps([{"kind": "reward_model", "path": str(folder)}])
    other = run(tmp_path / "other", *words[:2], *KEYS[:2], *keys, f"reinforce.rewards={named}")
    assert other.trainings[1].curve == curve
    said = refused(
        tmp_path / "third", *words, *keys, 'reinforce.rewards=[{"kind": "reward_model", "path": "no"}]'
    )
    assert "reinforce.rewards[0].path: no is no model folder" in said


def test_a_score_is_what_transformers_computes(words: tuple[str, ...], tmp_path: Path) -> None:
    from nomoat.data.functions import Failed, Question
    from nomoat.train.rewards.scorer import Scorer

    run(tmp_path, *words)
    folder = folder_of(tmp_path, "reward") / "model"
    question = Question("q", ({"role": "user", "content": "Which fruit?"},), {})
    source = Scorer(folder, Machine("cpu", torch.float32), name="mine")
    texts = ["The fig.", "The plum is on the mat or not.", "cat " * 600]
    *found, long = source.score([(question, text) for text in texts])
    rendered = [
        f"<|im_start|>user\nWhich fruit?<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>" for text in texts
    ]
    assert found == pytest.approx(scored(folder, rendered[:2]), abs=1e-4)
    assert isinstance(long, Failed)
    assert long.kind == "too long"
    with pytest.raises(ModelError, match="lacks 1 of its model's tensors, such as score.weight"):
        Scorer(Path(words[0].removeprefix("base=")), Machine("cpu", torch.float32), name="no")
