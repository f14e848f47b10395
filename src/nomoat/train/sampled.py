"""One step's answers: sampled, rewarded, and what is known of them before the model learns from them.

P prompts · G answers to each · S tokens of answers of one pack · N answers of one pack
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from nomoat.data.functions import Question
from nomoat.data.pack import Packed, Tokens, fill, pack_groups
from nomoat.engine.base import Sampling
from nomoat.engine.rollouts import MAX_ROWS, Rollout, roll_out
from nomoat.model.logprobs import states_and_logprobs, token_logprobs
from nomoat.model.memory import in_batches_that_fit
from nomoat.model.modes import evaluating
from nomoat.train.checkpoint import Named
from nomoat.train.loop import autocast
from nomoat.train.objectives.advantages import best_of, gae, group_relative, leave_one_out, overlong_penalty
from nomoat.train.objectives.policy import Rolled
from nomoat.train.rewards import Rewards

Method = Literal["grpo", "rloo", "ppo", "best_of_n"]

Roll = Callable[[Sequence[Tokens], Sampling, Sequence[Sequence[int]] | None], list[Rollout]]
"""Answers prompts with the weights that the model has now, each with random numbers of its own seed."""


@dataclass(frozen=True)
class Prompt:
    """A question with the tokens that the model answers."""

    question: Question
    tokens: Tokens


@dataclass(frozen=True)
class PolicyKeys:
    """The recipe's keys of reinforcement under their own names (docs/recipe.md says what each is)."""

    method: Method
    num_generations: int
    max_new_tokens: int
    beta: float
    epsilon: float
    epsilon_high: float
    loss_type: Literal["grpo", "dapo", "dr_grpo"]
    scale_rewards: bool
    overlong: Literal["keep", "mask", "punish"]
    entropy_coef: float
    importance_cap: float
    num_iterations: int
    gae_lambda: float
    value_coef: float
    max_kl: float
    max_length_growth: float
    max_pass_drop: float

    @property
    def needs_values(self) -> bool:
        return self.method == "ppo"

    @property
    def needs_old(self) -> bool:
        """Whether the policy as the step began must be kept: it is moved before it is compared, or it is rewarded."""
        return self.num_iterations > 1 or (self.beta > 0 and self.method == "rloo") or self.needs_values


@dataclass(frozen=True)
class Reader:
    """What a sampled token or text means: the tokens that end an answer, and an answer's text."""

    stop_tokens: frozenset[int]
    text: Callable[[Tokens], str]


@dataclass(frozen=True)
class Part:
    """Some of a step's groups, laid end to end, with what is known of them."""

    packed: Packed
    rolled: Rolled


@dataclass(frozen=True)
class Batch:
    """A step's answers: `parts` that fit into memory, and what is told of them."""

    groups: list[tuple[Tokens, list[Rollout]]]
    rewards_PG: torch.Tensor
    parts: list[Part]

    @property
    def tokens(self) -> int:
        return sum(len(rollout.tokens) for _, rolled in self.groups for rollout in rolled)

    def facts(self) -> dict[str, float]:
        """Means over the answers; "reward" over those that have one."""
        rolled = [rollout for _, answers in self.groups for rollout in answers]
        reward = self.rewards_PG[~self.rewards_PG.isnan()]
        flat = (self.rewards_PG - self.rewards_PG[:, :1]).abs().nansum(1) == 0
        return {
            "reward": float(reward.mean()) if len(reward) else math.nan,
            "reward_std": float(reward.std()) if len(reward) > 1 else 0.0,
            "unrewarded": float(self.rewards_PG.isnan().float().mean()),
            "same_reward": float(flat.float().mean()),
            "length": float(np.mean([len(rollout.tokens) for rollout in rolled])),
            "cut": float(np.mean([rollout.finish_reason == "length" for rollout in rolled])),
        }


@contextmanager
def as_it_was(named: Named, initial: dict[str, torch.Tensor]) -> Iterator[None]:
    """The model with the weights it began with: the reference, for which no second model is kept."""
    now = {name: parameter.data for name, parameter in named.items()}
    for name, parameter in named.items():
        parameter.data = initial[name]
    try:
        yield
    finally:
        for name, parameter in named.items():
            parameter.data = now[name]


@dataclass(frozen=True)
class Sampler:
    """Makes a step's batch with the model as it is. `initial` are the weights of the reference; `value_head` is there
    for PPO; `roll` writes the answers where the model does not do so itself."""

    model: Any
    named: Named
    initial: dict[str, torch.Tensor]
    value_head: torch.nn.Linear | None
    reader: Reader
    rewards: Rewards
    keys: PolicyKeys
    device: str
    bf16: bool
    roll: Roll | None = None

    def batch(self, prompts: Sequence[Prompt], *, seed: int, step: int, micro_tokens: int) -> Batch:
        """Sample, reward, and look at the answers once more. The answers of a step depend on the weights, the seed and
        the step, so that a run that is resumed samples the same."""
        keys, many = self.keys, self.keys.num_generations
        asked = [prompt for prompt in prompts for _ in range(many)]
        rolled = self.answers(
            asked,
            Sampling(keys.max_new_tokens, temperature=1.0),
            seeds=[(seed, step, index) for index in range(len(asked))],
        )
        texts = [self.reader.text(rollout.tokens) for rollout in rolled]
        scores = self.rewards.score([(p.question, text) for p, text in zip(asked, texts, strict=True)])
        rewards_PG = torch.tensor(scores, dtype=torch.float64).view(-1, many)
        groups = [(prompt.tokens, rolled[at * many : (at + 1) * many]) for at, prompt in enumerate(prompts)]
        parts = self._looked_at(groups, micro_tokens)
        return Batch(groups, rewards_PG, self._with_advantages(groups, rewards_PG, parts))

    def answers(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[Sequence[int]] | None = None
    ) -> list[Rollout]:
        """An answer to each prompt; where memory runs out, fewer at a time."""
        asked = [prompt.tokens for prompt in prompts]
        if self.roll is not None:
            return self.roll(asked, sampling, seeds)

        def roll(rows: int) -> list[Rollout]:
            return roll_out(
                self.model,
                asked,
                sampling=sampling,
                stop_tokens=self.reader.stop_tokens,
                seeds=seeds,
                max_rows=rows,
            )

        return in_batches_that_fit(roll, MAX_ROWS, 1)

    @torch.no_grad()
    def _looked_at(self, groups: list[tuple[Tokens, list[Rollout]]], micro_tokens: int) -> list[Part]:
        """The groups in parts of `micro_tokens`, read by the reference, and by the policy where it must be kept."""
        lengths = np.array([len(p) + sum(len(r.tokens) for r in rolled) for p, rolled in groups])
        parts = []
        with evaluating(self.model):
            for which in fill(range(len(groups)), lengths, micro_tokens):
                own = [(prompt, [r.tokens for r in rolled]) for prompt, rolled in (groups[i] for i in which)]
                packed = pack_groups(own, self.device)
                if self.keys.overlong == "mask":
                    cut_N = [r.finish_reason == "length" for i in which for r in groups[i][1]]
                    packed.weights_S[torch.tensor(cut_N, device=self.device)[packed.row_S]] = 0.0
                sampled = np.concatenate([r.logps for i in which for r in groups[i][1]])
                rolled = Rolled(torch.zeros(len(sampled)), torch.from_numpy(sampled).to(self.device))
                with autocast(self.device, self.bf16):
                    if self.value_head is not None:
                        states_SH, old_S = states_and_logprobs(self.model, packed)
                        value_S = self.value_head(states_SH.float())[:, 0]
                        rolled = replace(rolled, old_S=old_S.float(), value_S=value_S.float())
                    elif self.keys.needs_old:
                        rolled = replace(rolled, old_S=token_logprobs(self.model, packed).float())
                    with as_it_was(self.named, self.initial):
                        rolled = replace(rolled, reference_S=token_logprobs(self.model, packed).float())
                parts.append(Part(packed, rolled))
        return parts

    def _with_advantages(
        self, groups: list[tuple[Tokens, list[Rollout]]], rewards_PG: torch.Tensor, parts: list[Part]
    ) -> list[Part]:
        keys = self.keys
        if keys.overlong == "punish":
            rewards_PG = rewards_PG + torch.tensor(
                [
                    [
                        overlong_penalty(
                            len(r.tokens), most=keys.max_new_tokens, buffer=keys.max_new_tokens // 4 + 1
                        )
                        for r in rolled
                    ]
                    for _, rolled in groups
                ]
            )
        if keys.method == "ppo":
            return self._with_gae(rewards_PG.flatten(), parts)
        if keys.method == "rloo":
            if keys.beta:
                kl = torch.cat([_kl_of_answers(part) for part in parts])
                rewards_PG = rewards_PG - keys.beta * kl.view_as(rewards_PG)
            advantage_PG = leave_one_out(rewards_PG)
        elif keys.method == "best_of_n":
            advantage_PG = best_of(rewards_PG)
        else:
            advantage_PG = group_relative(rewards_PG, scale=keys.scale_rewards)
        return _spread(advantage_PG.flatten().float(), parts)

    def _with_gae(self, rewards_N: torch.Tensor, parts: list[Part]) -> list[Part]:
        """Advantages of every token, brought to mean 0 and variance 1 over the step. An answer without a reward has
        the value of its end as one, so that it says nothing."""
        made, first = [], 0
        for part in parts:
            rolled, row_S = part.rolled, part.packed.row_S
            assert rolled.value_S is not None
            assert rolled.old_S is not None
            assert rolled.reference_S is not None
            count = int(row_S[-1]) + 1
            token_S = (-self.keys.beta * (rolled.old_S - rolled.reference_S)).double().cpu()
            value_S = rolled.value_S.double().cpu()
            advantage_S, return_S = torch.zeros_like(value_S), torch.zeros_like(value_S)
            for answer in range(count):
                own = torch.nonzero(row_S.cpu() == answer)[:, 0]
                reward = rewards_N[first + answer]
                if reward.isnan():
                    return_S[own] = value_S[own]
                    continue
                token_S[own[-1]] += reward
                found = gae(token_S[own], value_S[own], gamma=1.0, lam=self.keys.gae_lambda)
                advantage_S[own], return_S[own] = found
            first += count
            made.append((part, advantage_S, return_S))
        every = torch.cat([advantage_S for _, advantage_S, _ in made])
        mean, std = every.mean(), every.std() if len(every) > 1 else torch.ones(())
        return [
            Part(
                part.packed,
                replace(
                    part.rolled,
                    advantage_S=((advantage_S - mean) / (std + 1e-8)).float().to(self.device),
                    return_S=return_S.float().to(self.device),
                ),
            )
            for part, advantage_S, return_S in made
        ]


def _kl_of_answers(part: Part) -> torch.Tensor:
    """log p - log p of the reference of every answer, float64 [N] on the processor."""
    assert part.rolled.old_S is not None
    assert part.rolled.reference_S is not None
    ratio_S = ((part.rolled.old_S - part.rolled.reference_S) * part.packed.weights_S).double().cpu()
    count = int(part.packed.row_S[-1]) + 1
    return torch.zeros(count, dtype=torch.float64).index_add(0, part.packed.row_S.cpu(), ratio_S)


def _spread(advantage_N: torch.Tensor, parts: list[Part]) -> list[Part]:
    """Every answer's advantage to all of its tokens."""
    made, first = [], 0
    for part in parts:
        row_S = part.packed.row_S
        own = advantage_N[first : first + int(row_S[-1]) + 1].to(row_S.device)
        made.append(Part(part.packed, replace(part.rolled, advantage_S=own[row_S])))
        first += len(own)
    return made
