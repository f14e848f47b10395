"""Reinforcement on tiny models: each method raises its reward, a run that is stopped goes on in the same bytes, and
signs of reward hacking end it with the best weights kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import tiny_model
from helpers.policies import KEYS, POLICY
from nomoat.data.functions import Failed, Question
from nomoat.data.pack import pack
from nomoat.errors import DataError
from nomoat.model.adapters import add_lora
from nomoat.model.attention import PACKED
from nomoat.model.fused.families import fuse
from nomoat.model.load import Machine
from nomoat.model.logprobs import token_logprobs
from nomoat.train import policy_loop
from nomoat.train.hooks import Hooks, Interrupted
from nomoat.train.loop import TrainResult
from nomoat.train.policy_loop import learn
from nomoat.train.rewards import Rewards
from nomoat.train.rewards.texts import Told
from nomoat.train.run import TrainingKeys
from nomoat.train.sampled import PolicyKeys, Prompt, Reader, Sampler, as_it_was
from nomoat.train.signs import sign_of_hacking

VOCABULARY = 40
STOP = 2
LOW = range(3, 20)


def model(*, dropout: float = 0.0, lora: bool = True) -> Any:
    made = tiny_model("llama", VOCABULARY, attention=PACKED, initializer_range=0.05, eos_token_id=STOP)
    fuse(made)
    if not lora:
        return made.requires_grad_(True)
    return add_lora(made, lora_r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", seed=0)


def prompts(count: int, seed: int) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    return [
        Prompt(
            Question(f"q{n}", (), {}), rng.integers(3, VOCABULARY, int(rng.integers(2, 9))).astype(np.uint32)
        )
        for n in range(count)
    ]


def share_of_low(_: Question, text: str) -> float:
    said = text.split()
    return sum(int(token) in LOW for token in said) / len(said)


def rewards(judge: Callable[[Question, str], float | Failed] = share_of_low) -> Rewards:
    return Rewards([(Told("low", judge), 1.0)])


def run(
    scratch: Path,
    made: Any,
    *,
    policy: PolicyKeys = POLICY,
    keys: TrainingKeys = KEYS,
    of: Rewards | None = None,
    passes: Callable[[Question, str], bool | None] = lambda *_: None,
    hooks: Hooks | None = None,
) -> TrainResult:
    return learn(
        made,
        prompts(16, 0),
        prompts(8, 1),
        scratch,
        reader=Reader(frozenset({STOP}), lambda tokens: " ".join(map(str, tokens.tolist()))),
        rewards=of or rewards(),
        passes=passes,
        policy=policy,
        keys=keys,
        machine=Machine("cpu", torch.float32),
        hooks=hooks or Hooks(),
    )


METHODS = {
    "grpo": {},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": False},
    "rloo": {"method": "rloo"},
    "ppo": {"method": "ppo"},
    "best_of_n": {"method": "best_of_n"},
    "several updates": {"num_iterations": 2, "entropy_coef": 0.001},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_raises_its_reward(name: str, tmp_path: Path) -> None:
    result = run(
        tmp_path, model(), policy=replace(POLICY, **METHODS[name]), keys=replace(KEYS, max_steps=20)  # type: ignore[arg-type]
    )  # fmt: skip
    train, held_out = result.curve.train, result.curve.held_out
    assert np.mean([p["reward"] for p in train[-4:]]) > np.mean([p["reward"] for p in train[:4]]) + 0.15
    assert result.best_step > 0
    assert result.best_loss == min(point["loss"] for point in held_out)
    told = {
        "reward",
        "kl",
        "length",
        "entropy",
        "clipped",
        "sampling_ratio",
        "sampling_kl",
        "truncated",
        "cut",
    }
    assert told <= train[0].keys()
    assert all(math.isfinite(value) for point in train for value in point.values())
    assert train[0]["sampling_ratio"] == pytest.approx(1, abs=1e-4), "sampled by the policy itself"
    assert train[0]["sampling_kl"] < 1e-6
    assert train[0]["kl"] == pytest.approx(0, abs=1e-8), "the first step begins at the reference"
    assert train[-1]["kl"] > 1e-3
    assert any(point["clipped"] > 0 for point in train) == (name == "several updates")


def test_all_weights_can_be_reinforced(tmp_path: Path) -> None:
    made = model(lora=False)
    result = run(tmp_path, made, keys=replace(KEYS, learning_rate=2e-3))
    assert result.curve.train[-1]["reward"] > result.curve.train[0]["reward"]


def test_overlong_answers_are_punished_or_left_out(tmp_path: Path) -> None:
    """All rewards are the same: what is learned is to end, or nothing at all."""
    same = rewards(lambda *_: 1.0)
    punish = replace(POLICY, overlong="punish", max_new_tokens=32, beta=0.0)
    curve = run(tmp_path / "punish", model(), policy=punish, of=same).curve.train
    assert np.mean([p["cut"] for p in curve[-3:]]) < np.mean([p["cut"] for p in curve[:3]]) - 0.1
    batch = _sampler(replace(POLICY, overlong="mask")).batch(prompts(4, 0), seed=0, step=0, micro_tokens=120)
    answers = [rollout for _, rolled in batch.groups for rollout in rolled]
    first = 0
    for part in batch.parts:
        for row, weight in zip(part.packed.row_S.tolist(), part.packed.weights_S.tolist(), strict=True):
            assert weight == float(answers[first + row].finish_reason == "stop")
        first += int(part.packed.row_S[-1]) + 1
    assert {rollout.finish_reason for rollout in answers} == {"stop", "length"}


def _sampler(policy: PolicyKeys) -> Sampler:
    made = model()
    named = {name: p for name, p in made.named_parameters() if p.requires_grad}
    initial = {name: p.detach().clone() for name, p in named.items()}
    reader = Reader(frozenset({STOP, *range(20, 26)}), lambda tokens: " ".join(map(str, tokens.tolist())))
    return Sampler(made, named, initial, None, reader, rewards(), policy, "cpu", False)


class StopsAt:
    """A request to stop once, at a step; afterwards none."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_run_that_was_stopped_goes_on_in_the_same_bytes(method: str, tmp_path: Path) -> None:
    """Sampling, dropout, values and the counts of failures included; between two checkpoints too, as after a kill."""

    def judge(question: Question, text: str) -> float | Failed:
        return Failed("raised", "now and then") if len(text) % 5 == 0 else share_of_low(question, text)

    policy = replace(POLICY, method=method, num_iterations=2)  # type: ignore[arg-type]
    whole, cut = model(dropout=0.1), model(dropout=0.1)
    torch.manual_seed(7)
    of_whole = rewards(judge)
    expected = run(tmp_path / "whole", whole, policy=policy, of=of_whole)
    torch.manual_seed(7)
    with pytest.raises(Interrupted, match="stopped at step 4 of 12"):
        run(tmp_path / "cut", cut, policy=policy, of=rewards(judge), hooks=Hooks(stop_asked=StopsAt(4)))
    # a kill leaves work beyond the newest checkpoint: a run that ends at step 5, its checkpoint of 4 kept
    killed = model(dropout=0.1)
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "cut", killed, policy=policy, of=rewards(judge), hooks=Hooks(on_progress=_kill_at(5)))
    torch.manual_seed(99)
    again, of_again = model(dropout=0.1), rewards(judge)
    found = run(tmp_path / "cut", again, policy=policy, of=of_again)
    for (name, left), right in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right), name
    assert found.curve == expected.curve
    assert (of_again.judged, of_again.failures) == (of_whole.judged, of_whole.failures)
    assert of_whole.failures["low: raised"] > 0


def _kill_at(step: int) -> Callable[[Any], None]:
    def on_progress(progress: Any) -> None:
        if progress.step == step:
            raise RuntimeError("killed")

    return on_progress


def test_the_step_that_passes_most_is_kept(tmp_path: Path) -> None:
    """The reward asks for low tokens, the owner's checks for high ones: what was there before is kept."""
    made = model()
    before = {name: p.clone() for name, p in made.named_parameters() if p.requires_grad}
    result = run(
        tmp_path,
        made,
        policy=replace(POLICY, max_pass_drop=0.05),
        keys=replace(KEYS, max_steps=40, eval_steps=2),
        passes=lambda question, text: share_of_low(question, text) < 0.9,
    )
    assert result.best_step < result.steps < 40
    assert "stopped, the held-out pass rate has fallen from" in result.curve.events[-1]
    assert f"the weights of step {result.best_step} are kept" in result.curve.events[-1]
    if result.best_step == 0:
        assert all(torch.equal(before[n], p) for n, p in made.named_parameters() if n in before)
    assert run(tmp_path, model(), keys=replace(KEYS, max_steps=40)).steps == result.steps, "stopped for good"


def test_the_kl_has_a_budget(tmp_path: Path) -> None:
    result = run(tmp_path, model(), policy=replace(POLICY, max_kl=0.01), keys=replace(KEYS, max_steps=40))
    assert result.steps < 40
    assert "nats a token, beyond its budget of 0.01 (max_kl)" in result.curve.events[-1]


def points(name: str, *values: float) -> list[dict[str, float]]:
    return [{"kl": 0.0, "length": 10.0, name: value} for value in values]


LIMITS = {"max_kl": 0.5, "max_length_growth": 2.0, "max_pass_drop": 0.1}


def test_signs_of_hacking() -> None:
    held_out = points("pass_rate", 0.5, 0.6)
    assert sign_of_hacking(points("kl", 0.1, 0.9, 0.4), held_out, **LIMITS) is None
    assert "0.567 nats" in str(sign_of_hacking(points("kl", 0.1, 0.9, 0.4, 0.4), held_out, **LIMITS))
    grown = sign_of_hacking(points("length", 10, 10, 10, 21, 22, 23), held_out, **LIMITS)
    assert grown == "answers have grown from 10 to 22 tokens, more than 2 times (max_length_growth)"
    assert sign_of_hacking(points("length", 2, 2, 2, 9, 9, 9), held_out, **LIMITS) is None, "still short"
    assert sign_of_hacking([], points("pass_rate", 0.5, 0.6, 0.45), **LIMITS) is None, "once is noise"
    fallen = sign_of_hacking([], points("pass_rate", 0.5, 0.6, 0.45, 0.48), **LIMITS)
    assert fallen == "the held-out pass rate has fallen from 60% to 48% (max_pass_drop)"


def test_a_deadline_shortens_the_run(tmp_path: Path) -> None:
    ticks = iter([math.inf] * 4 + [0.0] * 100)
    result = run(tmp_path, model(), hooks=Hooks(seconds_left=lambda: next(ticks)))
    assert result.steps == 5
    assert "ending after 0 more" in result.curve.events[0]


def test_the_reference_is_the_model_as_it_was() -> None:
    made = model()
    named = {name: p for name, p in made.named_parameters() if p.requires_grad}
    initial = {name: p.detach().clone() for name, p in named.items()}
    ids = torch.tensor([[5, 6, 7]])
    plain = tiny_model("llama", VOCABULARY, initializer_range=0.05, eos_token_id=STOP)
    with torch.no_grad():
        for parameter in named.values():
            parameter.add_(0.1)
        moved = {name: p.clone() for name, p in named.items()}
        packed = pack([(np.array([5, 6, 7], dtype=np.uint32), np.ones(3, dtype=bool))])
        with as_it_was(named, initial):
            reference = token_logprobs(made, packed)
    expected = plain(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(reference, expected, atol=1e-5, rtol=0)
    assert all(torch.equal(moved[name], p) for name, p in named.items())


def test_answers_without_a_reward_teach_nothing_and_too_many_end_the_run(tmp_path: Path) -> None:
    def judge(question: Question, text: str) -> float | Failed:
        return (
            Failed("timed out", "no number within 5 s")
            if len(text) % 7 == 0
            else share_of_low(question, text)
        )

    result = run(tmp_path / "some", model(), of=rewards(judge))
    assert 0 < result.curve.train[0]["unrewarded"] < 0.5
    assert "answers without a reward: low: timed out (" in result.curve.events[-1]
    with pytest.raises(DataError, match="answers have no reward: low: raised"):
        run(tmp_path / "most", model(), of=rewards(lambda *_: Failed("raised", "KeyError")))


def test_memory_that_runs_out_halves_the_micro_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = policy_loop._loss, [0]

    def once(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise torch.OutOfMemoryError("full")
        return real(*args)

    monkeypatch.setattr(policy_loop, "_loss", once)
    result = run(tmp_path, model())
    assert result.steps == 12
    assert [point["step"] for point in result.curve.train] == [*range(1, 13)]
    assert result.curve.events[0].endswith("out of memory, micro-batch now 60 tokens")
