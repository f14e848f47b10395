"""Nights that learn from rewards of the model's own answers, on a tiny model."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from faults.test_kill import LIMIT_S, running
from helpers.families import save_tiny
from helpers.nights import Watched, last_night, run, verify_artifacts, write_rows
from nomoat.chat.conversation import Conversation, Message
from nomoat.data.split import ASKED, asked_in_training, asked_keys
from nomoat.errors import DataError, RecipeError
from nomoat.ledger.artifacts import HOUSE

KEYS = (
    "sft.max_steps=2",
    "reinforce.max_new_tokens=12",
    "reinforce.max_seq_len=96",
    "reinforce.tokens_per_step=384",
    "reinforce.max_steps=6",
    "reinforce.num_train_epochs=3",
    "reinforce.num_generations=4",
    "reinforce.learning_rate=1e-2",
    "reinforce.save_steps=2",
    "reinforce.eval_steps=3",
    "reinforce.max_kl=50",
    "reinforce.max_length_growth=50",
    "data.held_out=0.2",
)
RULES = """\
def short(messages, answer, row):
    if not answer:
        raise ValueError("no answer")
    return 1 / (1 + len(answer.split()))
"""


def write_prompts(path: Path, count: int = 40, **extra: Any) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            messages = [{"role": "user", "content": f"Say one word about the number {n}."}]
            checks = [{"kind": "words", "max": 3}, {"kind": "excludes", "words": ["moon"]}]
            file.write(json.dumps({"messages": messages, "checks": checks, **extra}) + "\n")
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("reinforce")
    base, rows = save_tiny("llama", folder / "base"), write_rows(folder / "rows.jsonl")
    prompts = write_prompts(folder / "prompts.jsonl")
    return f"base={base}", f"data.train={rows}", f"reinforce.prompts={prompts}", *KEYS


def folder_of(workspace: Path, kind: str) -> Path:
    (folder,) = workspace.glob(f"{HOUSE}/artifacts/{kind}-*")
    return folder


def test_a_night_that_learns_from_the_checks_of_prompts(words: tuple[str, ...], tmp_path: Path) -> None:
    watcher = Watched()
    night = run(tmp_path, *words, watcher=watcher)
    kinds = ["data", "prompts", "quantize", "sft", "reinforce", "merge", "quantize", "evaluate", "gate"]
    assert [kind for kind, _ in watcher.stages] == kinds
    assert sorted(verify_artifacts(tmp_path)) == sorted(kinds)
    sft, reinforced = night.trainings
    assert (sft.kind, reinforced.kind) == ("sft", "reinforce")
    assert reinforced.facts["steps"] == 6
    assert reinforced.facts["best_pass_rate"] >= reinforced.facts["first_pass_rate"]
    assert [point["step"] for point in reinforced.curve["held_out"]] == [0, 3, 6]
    _, stages = last_night(tmp_path)
    said = {stage.name: stage.detail["said"] for stage in stages}
    assert said["reinforce"].startswith("held-out pass rate ")
    assert said["prompts"].endswith("held out")
    page = (tmp_path / night.report_path).read_text()
    for told in ("KL to the reference", "pass rate", "length of answers", "share of tokens clipped"):
        assert told in page
    again = Watched()
    run(tmp_path, *words, watcher=again)
    assert {how for _, how in again.stages} == {"reused"}


def test_prompts_are_held_out_by_what_they_ask(words: tuple[str, ...], tmp_path: Path) -> None:
    """None of `evaluate.prompts` is learned from, a prompt counts once, and the two sides share none."""
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    lines = prompts.read_text().splitlines()
    prompts.write_text("\n".join([*lines, lines[0]]) + "\n")
    loud = json.loads(lines[7])
    loud["messages"][0]["content"] = loud["messages"][0]["content"].upper() + " "
    near = lines[9].replace("9.", "9 now.")
    (tmp_path / "asked.jsonl").write_text("\n".join([*lines[5:7], json.dumps(loud), near]) + "\n")
    words = (*words, f"reinforce.prompts={prompts}", "data.decontaminate=remove")
    run(tmp_path, *words, f"evaluate.prompts={tmp_path / 'asked.jsonl'}")
    sides = {}
    for side in ("train", "held_out"):
        text = (folder_of(tmp_path, "prompts") / f"{side}.jsonl").read_text()
        sides[side] = {json.loads(line)["messages"][0]["content"] for line in text.splitlines()}
    assert not sides["train"] & sides["held_out"]
    asked = {json.loads(line)["messages"][0]["content"] for line in lines}
    never = {json.loads(line)["messages"][0]["content"] for line in (*lines[5:8], lines[9])}
    assert sides["train"] | sides["held_out"] == asked - never
    keys = {text: asked_keys(Conversation((Message("user", text),)))[0] for text in asked}
    learned = asked_in_training(folder_of(tmp_path, "prompts") / ASKED, keys.values())
    assert learned == sorted(keys[text] for text in sides["train"])

    def said() -> str:
        _, stages = last_night(tmp_path)
        return next(stage.detail["said"] for stage in stages if stage.name == "prompts")

    left_out = "3 on held-out prompts left out, 1 contaminated left out, 1 duplicate left out"
    assert said().endswith(f"held out, {left_out}")
    run(tmp_path, *words)  # an earlier night was measured on the suite
    assert said().endswith("held out, 3 on held-out prompts left out, 1 duplicate left out")


@pytest.mark.parametrize("method", ["rloo", "ppo"])
def test_rewards_of_several_kinds_add_up(words: tuple[str, ...], tmp_path: Path, method: str) -> None:
    (tmp_path / "rules.py").write_text(RULES)
    rewards = [
        {"kind": "function", "function": f"{tmp_path / 'rules.py'}:short", "weight": 2.0},
        {"kind": "regex", "pattern": "mat|moon", "weight": -0.5},
        {"kind": "checks"},
    ]
    written = f"reinforce.rewards={json.dumps(rewards)}"
    night = run(tmp_path, *words, written, f"reinforce.method={method}")
    curve = night.trainings[1].curve
    assert all(0 <= point["unrewarded"] < 0.5 for point in curve["train"])
    assert ("value_loss" in curve["train"][0]) == (method == "ppo")


def test_killed_in_reinforcement_it_ends_in_the_same_bytes(words: tuple[str, ...], tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    longer = (*words, "reinforce.max_steps=14", "reinforce.num_train_epochs=10", "sft.lora_dropout=0.1")
    run(alone, *longer)
    killed.mkdir()
    with running(killed, *longer) as process:
        wait_for_step(process, killed, 7, "reinforce")
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not list(killed.glob(f"{HOUSE}/artifacts/reinforce-*"))
    with running(killed, *longer) as process:
        _, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
    one, other = (folder_of(side, "reinforce") for side in (alone, killed))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one / "adapter" / name).read_bytes() == (other / "adapter" / name).read_bytes()
    curves = [json.loads((folder / "training.json").read_text())["curve"] for folder in (one, other)]
    assert curves[0] == curves[1]


def wait_for_step(process: Any, workspace: Path, step: int, kind: str) -> None:
    """Until a checkpoint of the step, or of a later one, is there."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        states = workspace.glob(f"{HOUSE}/work/{kind}-*.scratch/step-*/state.json")
        if any(int(state.parent.name.removeprefix("step-")) >= step for state in states):
            return
        time.sleep(0.002)
    raise AssertionError(f"no checkpoint of step {step} within {LIMIT_S:g} s")


def refused(workspace: Path, *overrides: str) -> str:
    with pytest.raises((RecipeError, DataError)) as caught:
        run(workspace, *overrides)
    return str(caught.value)


def test_what_cannot_be_reinforced_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    without = [word for word in words if not word.startswith("reinforce.prompts")]
    assert "reinforce: names no prompts to answer" in refused(tmp_path, *without)
    assert "reinforce.prompts: nowhere.jsonl is not there" in refused(
        tmp_path, *words, "reinforce.prompts=nowhere.jsonl"
    )
    assert "reinforce goes on from what sft or prefer has made" in refused(
        tmp_path, "sft=null", "pretrain.train=a.txt", "reinforce={}"
    )
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n' * 3)
    said = refused(tmp_path, *words, f"reinforce.prompts={bare}")
    assert "reinforce.prompts: 3 of 3 prompts have no checks, and the only rewards are checks" in said
    said = refused(tmp_path, *words, "reinforce.max_seq_len=20")
    assert "40 of 40 prompts are longer than 8 tokens" in said
    few = write_prompts(tmp_path / "few.jsonl", 2)
    assert "of 2 prompts" in refused(tmp_path, *words, f"reinforce.prompts={few}")


REWARD = "reinforce.rewards"


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ('{"kind": "function"}', "kind (function) needs function"),
        ('{"kind": "regex", "pattern": "("}', "pattern (() is no regular expression"),
        ('{"kind": "checks", "pattern": "a"}', "pattern means nothing to kind checks"),
        ('{"kind": "function", "function": "rules.py"}', "must be file and name, such as rules.py:polite"),
        ('{"kind": "judge", "url": "http://localhost/v1"}', "kind (judge) needs model"),
        ('{"kind": "cheks"}', 'Did you mean "checks"?'),
        (
            '{"kind": "function", "function": "gone.py:f"}',
            "reinforce.rewards[0].function: gone.py is not there",
        ),
        ('{"kind": "json_schema", "schema_file": "no.json"}', "rewards[0].schema_file: no.json is not there"),
        ('"checks"', "expected"),
    ],
)
def test_rewards_that_cannot_be(words: tuple[str, ...], tmp_path: Path, reward: str, said: str) -> None:
    assert said in refused(tmp_path, *words, f"{REWARD}=[{reward}]")


def test_a_function_that_fails_most_of_the_time_ends_the_night_by_name(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "rules.py").write_text("def broken(messages, answer, row):\n    return row['nothing']\n")
    reward = json.dumps([{"kind": "function", "function": f"{tmp_path / 'rules.py'}:broken"}])
    said = refused(tmp_path / "night", *words, f"{REWARD}={reward}")
    assert "answers have no reward: rules.py:broken: raised (" in said
    assert "such as KeyError: 'nothing')" in said
