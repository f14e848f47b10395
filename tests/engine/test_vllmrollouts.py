"""Rollouts from a vLLM, played by the stand-in: the adapter that is trained is the one that answers at every step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import tiny_models
from helpers.policies import KEYS, POLICY
from helpers.standin import standing_in
from nomoat.data.functions import Question
from nomoat.data.pack import Tokens
from nomoat.engine.base import Sampling
from nomoat.engine.rollouts import Rollout, roll_out
from nomoat.engine.vllmrollouts import VllmRollouts
from nomoat.errors import ServeError
from nomoat.model.adapters import add_lora, save_adapter
from nomoat.model.load import Machine, load_model, load_tokenizer
from nomoat.model.memory import out_of_memory
from nomoat.train.hooks import Hooks
from nomoat.train.reinforce import reinforce
from nomoat.train.rewards import Rewards
from nomoat.train.rewards.texts import Told
from nomoat.train.sampled import Prompt, Reader

HERE = Machine("cpu", torch.float32)
GREEDY = Sampling(max_new_tokens=10)
STOPS = frozenset({1, 2})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the stand-in leaves behind."""
    with standing_in(tmp_path_factory.mktemp("standin")) as place:
        yield place


@pytest.fixture(scope="module")
def vllm(folder: Path, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmRollouts]:
    with opened(folder, tmp_path_factory.mktemp("adapters") / "own") as found:
        yield found


def opened(folder: Path, adapters: Path, stop_tokens: frozenset[int] = STOPS) -> VllmRollouts:
    return VllmRollouts(folder, adapters, lora_r=4, n_ctx=64, memory_share=0.3, stop_tokens=stop_tokens)


@pytest.fixture
def model(folder: Path) -> Any:
    return with_adapter(folder)


def with_adapter(folder: Path) -> Any:
    made = add_lora(
        load_model(folder, HERE),
        lora_r=4,
        lora_alpha=8.0,
        lora_dropout=0.0,
        target_modules="all-linear",
        seed=1,
    )
    move(made, seed=1)
    return made


def move(model: Any, seed: int) -> None:
    """As a step of training would, but further."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * 0.5)


def save(model: Any) -> partial[None]:
    return partial(save_adapter, model, base="", base_sha256="")


def prompts(folder: Path) -> list[Tokens]:
    tokenizer = load_tokenizer(folder)
    return [np.array(tokenizer(text).input_ids, dtype=np.uint32) for text in ("Lily", "the dog", "42")]


def equal(one: list[Rollout], other: list[Rollout]) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a.tokens.tolist(), a.finish_reason) == (b.tokens.tolist(), b.finish_reason)
        np.testing.assert_allclose(a.logps, b.logps, atol=1e-4)


def test_the_adapter_as_it_is_now_writes_what_the_model_itself_would(
    vllm: VllmRollouts, model: Any, folder: Path, place: Path
) -> None:
    asked = prompts(folder)
    found = []
    for seed in (1, 2):
        move(model, seed)
        found.append(vllm.roll_out(save(model), asked, GREEDY, None))
        equal(found[-1], roll_out(model, asked, sampling=GREEDY, stop_tokens=STOPS))
    assert any((a.tokens.tolist() != b.tokens.tolist()) for a, b in zip(*found, strict=True))
    options = json.loads((place / "options").read_text())
    assert (options["enable_lora"], options["max_lora_rank"], options["max_num_seqs"]) == (True, 8, 64)
    assert (options["max_model_len"], options["gpu_memory_utilization"]) == (64, 0.3)


def test_of_adapters_only_the_newest_is_on_the_disk(model: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own" / "7").mkdir(parents=True)  # of a run that was killed
    with opened(folder, tmp_path / "own") as vllm:
        for _ in range(3):
            vllm.roll_out(save(model), prompts(folder)[:1], GREEDY, None)
            assert len(list((tmp_path / "own").iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_stop_token_ends_an_answer_and_belongs_to_it(model: Any, folder: Path, tmp_path: Path) -> None:
    asked = prompts(folder)[:1]
    (whole,) = roll_out(model, asked, sampling=GREEDY, stop_tokens=STOPS)
    stops = STOPS | {int(whole.tokens[2])}
    with opened(folder, tmp_path / "own", stops) as vllm:
        found = vllm.roll_out(save(model), asked, GREEDY, None)
    equal(found, roll_out(model, asked, sampling=GREEDY, stop_tokens=stops))
    assert (found[0].finish_reason, found[0].tokens[-1]) == ("stop", whole.tokens[2])


def test_each_answer_draws_with_its_own_seed(vllm: VllmRollouts, model: Any, folder: Path) -> None:
    asked = [prompts(folder)[0]] * 4
    seeds = [(7, 0, index) for index in range(4)]
    found, again = (vllm.roll_out(save(model), asked, Sampling(10, temperature=1.0), seeds) for _ in range(2))
    equal(found, again)
    assert len({tuple(rollout.tokens.tolist()) for rollout in found}) == 4


def test_a_prompt_leaves_what_the_context_has_room_for(vllm: VllmRollouts, model: Any) -> None:
    long = np.full(60, 5, dtype=np.uint32)
    (found,) = vllm.roll_out(save(model), [long], GREEDY, None)
    assert len(found.tokens) <= 4


def test_what_vllm_refuses_and_that_it_ended_is_told(folder: Path, place: Path, tmp_path: Path) -> None:
    too_wide = add_lora(
        load_model(folder, HERE),
        lora_r=16,
        lora_alpha=8.0,
        lora_dropout=0.0,
        target_modules="all-linear",
        seed=1,
    )
    ends_it = np.array([5, 5, 5], dtype=np.uint32)
    with (
        opened(folder, tmp_path / "own") as vllm,
        pytest.raises(ServeError, match=r"^vLLM fails: .*LoRA rank is greater than 8"),
    ):
        vllm.roll_out(save(too_wide), [ends_it], GREEDY, None)
    with (
        opened(folder, tmp_path / "own") as vllm,
        pytest.raises(ServeError, match=r"vLLM has ended; the last it wrote:") as ended,
    ):
        vllm.roll_out(save(with_adapter(folder)), [ends_it], GREEDY, None)
    assert not out_of_memory(ServeError(f"{ended.value}\n std::bad_alloc"))


def test_reinforcement_learns_from_what_it_writes(folder: Path, place: Path, tmp_path: Path) -> None:
    """Answers of even tokens are rewarded; sampling and training agree on every probability."""

    def even(question: Question, text: str) -> float:
        tokens = list(map(int, text.split()))
        return sum(token % 2 == 0 for token in tokens) / max(1, len(tokens))

    adapter, out = tmp_path / "adapter", tmp_path / "out"
    for made in (adapter, out):
        made.mkdir()
    save_adapter(with_adapter(folder), adapter, base="base", base_sha256="")
    asked = [Prompt(Question(str(i), (), {}, tmp_path), tokens) for i, tokens in enumerate(prompts(folder))]
    result = reinforce(
        folder,
        load_tokenizer(folder),
        asked,
        asked,
        [],  # type: ignore[arg-type]
        out,
        tmp_path / "scratch",
        adapter=adapter,
        base_name="base",
        base_sha256="",
        method="lora",
        lora_r=4,
        lora_alpha=8.0,
        lora_dropout=0.0,
        lora_target_modules="all-linear",
        lora_layers=None,
        load_in_4bit=False,
        reader=Reader(STOPS, lambda tokens: " ".join(map(str, tokens.tolist()))),
        rewards=Rewards([(Told("even", even), 1.0)]),
        passes=lambda question, text: None,
        policy=replace(POLICY, num_generations=8, max_new_tokens=6, beta=0.0, max_kl=100.0),
        keys=replace(KEYS, learning_rate=2e-2, tokens_per_step=3 * 8 * 6, eval_steps=12),
        machine=HERE,
        hooks=Hooks(),
        vllm_memory=0.25,
    )
    assert json.loads((place / "options").read_text())["gpu_memory_utilization"] == 0.25
    assert not (tmp_path / "scratch" / "rollouts").exists()
    points = result.curve.train
    assert all(point["sampling_ratio"] == pytest.approx(1.0, abs=1e-3) for point in points)
    rewards = [point["reward"] for point in points]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.1
