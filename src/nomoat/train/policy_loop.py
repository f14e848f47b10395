"""The loop of reinforcement: the model answers, its answers are rewarded, and it learns from them, step after step."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nomoat.data.functions import Question
from nomoat.data.pack import StepPlan
from nomoat.engine.base import Sampling
from nomoat.errors import ModelError
from nomoat.model.load import Machine
from nomoat.model.logprobs import states_and_logprobs, token_logprobs
from nomoat.model.memory import smaller_batch
from nomoat.train.checkpoint import CheckpointFolder, Named
from nomoat.train.hooks import Hooks, Interrupted, Progress
from nomoat.train.loop import (
    MAX_SKIPPED_IN_A_ROW,
    Curve,
    TrainResult,
    autocast,
    land_if_late,
    scale_and_clip,
)
from nomoat.train.objectives import Loss, Objective
from nomoat.train.objectives.policy import Mean, Rolled, best_of_n, grpo, ppo, rloo, telemetry, value_loss
from nomoat.train.optimizer import adamw
from nomoat.train.pace import Pace, StepClock
from nomoat.train.rewards import Rewards
from nomoat.train.run import TrainingKeys
from nomoat.train.sampled import Batch, Part, PolicyKeys, Prompt, Reader, Roll, Sampler
from nomoat.train.schedule import Schedule
from nomoat.train.signs import sign_of_hacking

MEANS: dict[str, Mean] = {"grpo": "answer", "dapo": "token", "dr_grpo": "constant"}

Passes = Callable[[Question, str], bool | None]
"""Whether an answer does all that was asked, as far as a program can tell; None where it cannot."""


@dataclass
class _Run:
    """The mutable bookkeeping of one run; all of it goes through a checkpoint as JSON."""

    micro_tokens: int
    curve: Curve = field(default_factory=Curve)
    best_step: int = 0
    best_loss: float = math.inf
    tokens: int = 0
    seconds: float = 0.0
    held_out_s: float = 0.0
    skipped: int = 0
    stopped: bool = False
    landings: list[tuple[int, int]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    judged: int = 0
    unrewarded: int = 0

    def keep(self, rewards: Rewards, seconds: float) -> dict[str, Any]:
        """All of it as JSON, with the counts of the rewards."""
        self.failures, self.examples = dict(rewards.failures), rewards.examples
        self.judged, self.unrewarded, self.seconds = rewards.judged, rewards.unrewarded, seconds
        return asdict(self)

    @staticmethod
    def of(payload: dict[str, Any], rewards: Rewards) -> _Run:
        """What `keep` has kept; the rewards go on counting from there."""
        run = _Run(**{**payload, "curve": Curve(**payload["curve"])})
        rewards.failures, rewards.examples = Counter(run.failures), run.examples
        rewards.judged, rewards.unrewarded = run.judged, run.unrewarded
        return run


def learn(
    model: Any,
    prompts: Sequence[Prompt],
    held_out: Sequence[Prompt],
    scratch: Path,
    *,
    reader: Reader,
    rewards: Rewards,
    passes: Passes,
    policy: PolicyKeys,
    keys: TrainingKeys,
    machine: Machine,
    hooks: Hooks,
    roll: Roll | None = None,
) -> TrainResult:
    """Reinforce the model's trainable weights and leave the best of them in it. `roll` writes its answers where it does
    not do so itself."""
    named: Named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    initial = {name: p.detach().clone() for name, p in named.items()}
    head = _value_head(model, machine) if policy.needs_values else None
    learned: Named = named if head is None else {**named, "value_head.weight": head.weight}
    optimizer = adamw(learned, weight_decay=keys.weight_decay, betas=(0.9, keys.adam_beta2), optim=keys.optim)
    checkpoints = CheckpointFolder(scratch, machine.device)
    sampler = Sampler(
        model, named, initial, head, reader, rewards, policy, machine.device, machine.bf16, roll
    )
    plan = StepPlan(
        np.full(len(prompts), policy.num_generations * policy.max_new_tokens),
        tokens_per_step=keys.tokens_per_step,
        epochs=keys.num_train_epochs,
        max_steps=keys.max_steps,
        seed=keys.seed,
    )
    if not len(plan):
        raise ModelError("there are no prompts to learn from")
    tenth = max(1, len(plan) // 10)
    eval_steps, save_steps = keys.eval_steps or tenth, keys.save_steps or tenth
    schedule = Schedule(
        keys.lr_scheduler_type, keys.learning_rate, len(plan), round(keys.warmup_ratio * len(plan))
    )

    def measure(step: int) -> bool:
        began = time.monotonic()
        found = _held_out(sampler, held_out, passes)
        run.held_out_s = time.monotonic() - began
        run.curve.held_out.append({"step": step, "loss": 1.0 - found["pass_rate"], **found})
        if not 1.0 - found["pass_rate"] < run.best_loss:
            return False
        run.best_step, run.best_loss = step, 1.0 - found["pass_rate"]
        return True

    state = checkpoints.load(learned, optimizer)
    if state is None:
        step, run = 0, _Run(keys.micro_batch_tokens)
        measure(0)
        checkpoints.save_best(0, learned)
        checkpoints.save(0, learned, optimizer, run.keep(rewards, 0.0))
    else:
        step, run = state.step, _Run.of(state.payload, rewards)
        for landing in run.landings:
            schedule = schedule.land(*landing)

    model.train()
    started, earlier_s, clock = time.monotonic(), run.seconds, StepClock()
    while step < schedule.last_step and not run.stopped:
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        try:
            batch = sampler.batch(
                [prompts[i] for i in plan[step]], seed=keys.seed, step=step, micro_tokens=run.micro_tokens
            )
            outcome = _update(model, head, learned, optimizer, batch, policy, keys, machine)
        except RuntimeError as error:
            run.micro_tokens = smaller_batch(error, run.micro_tokens, policy.max_new_tokens)
            run.curve.events.append(f"step {step}: out of memory, micro-batch now {run.micro_tokens} tokens")
            optimizer.zero_grad(set_to_none=True)
            step, run = _back(checkpoints, learned, optimizer, rewards, run)
            continue
        step += 1
        _record(run, step, schedule(step - 1), batch, outcome)
        clock.step_done()
        pace = Pace(clock.steps, clock.step_s, run.held_out_s, eval_steps)
        schedule = land_if_late(schedule, step, pace, hooks.seconds_left(), run)
        if step % eval_steps == 0 or step == schedule.last_step:
            if measure(step):
                checkpoints.save_best(step, learned)
            clock.leave_out(run.held_out_s)
        sign = sign_of_hacking(
            run.curve.train,
            run.curve.held_out,
            max_kl=policy.max_kl,
            max_length_growth=policy.max_length_growth,
            max_pass_drop=policy.max_pass_drop,
        )
        if sign is not None:
            run.stopped = True
            run.curve.events.append(
                f"step {step}: stopped, {sign}; the weights of step {run.best_step} are kept"
            )
        asked = hooks.stop_asked()
        if step % save_steps == 0 or step == schedule.last_step or asked or run.stopped:
            seconds = earlier_s + time.monotonic() - started
            checkpoints.save(step, learned, optimizer, run.keep(rewards, seconds))
        to_come = pace.seconds(step, schedule.last_step, evaluated=True)
        hooks.on_progress(Progress(step, schedule.last_step, batch.facts()["reward"], to_come))
        if asked and not run.stopped:
            raise Interrupted(f"stopped at step {step} of {schedule.last_step}")

    if rewards.failures:
        run.curve.events.append(f"answers without a reward: {rewards.said()}")
    checkpoints.load_best(run.best_step, learned)
    return TrainResult(
        steps=step,
        best_step=run.best_step,
        best_loss=run.best_loss,
        first_loss=run.curve.held_out[0]["loss"],
        tokens=run.tokens,
        supervised_tokens=run.tokens,
        seconds=earlier_s + time.monotonic() - started,
        curve=run.curve,
    )


def _back(
    checkpoints: CheckpointFolder,
    learned: Named,
    optimizer: torch.optim.Optimizer,
    rewards: Rewards,
    failed: _Run,
) -> tuple[int, _Run]:
    """To the newest checkpoint: where memory ran out between two updates of one step, only that is whole."""
    state = checkpoints.load(learned, optimizer)
    assert state is not None
    run = _Run.of(state.payload, rewards)
    run.micro_tokens = failed.micro_tokens
    run.curve.events = failed.curve.events
    return state.step, run


def _value_head(model: Any, machine: Machine) -> torch.nn.Linear:
    """Reads a value off the policy's last hidden states, and begins with 0. What it learns stays out of the policy."""
    head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1, bias=False, device=machine.device)
    torch.nn.init.zeros_(head.weight)
    return head


def _held_out(sampler: Sampler, prompts: Sequence[Prompt], passes: Passes) -> dict[str, float]:
    """Greedy answers to the held-out prompts: the share that passes all checks and the mean reward. Where no prompt has
    checks, the pass rate is what `Rewards.as_share` makes of the reward."""
    rolled = sampler.answers(prompts, Sampling(sampler.keys.max_new_tokens))
    texts = [sampler.reader.text(rollout.tokens) for rollout in rolled]
    asked = [(prompt.question, text) for prompt, text in zip(prompts, texts, strict=True)]
    told = [found for pair in asked if (found := passes(*pair)) is not None]
    scores = [score for score in sampler.rewards.score(asked) if not math.isnan(score)]
    reward = sum(scores) / len(scores) if scores else 0.0
    share = sum(told) / len(told) if told else sampler.rewards.as_share(reward)
    length = sum(len(rollout.tokens) for rollout in rolled) / len(rolled)
    return {"pass_rate": share, "reward": reward, "length": length}


def _update(
    model: Any,
    head: torch.nn.Linear | None,
    learned: Named,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    policy: PolicyKeys,
    keys: TrainingKeys,
    machine: Machine,
) -> dict[str, float]:
    """Learn from the answers, `num_iterations` times; what is told of it is of the last time."""
    told: dict[str, float] = {}
    for _ in range(policy.num_iterations):
        sums: Counter[str] = Counter()
        total = weight = 0.0
        for part in batch.parts:
            with autocast(machine.device, machine.bf16):
                loss = _loss(model, head, part, policy, sums)
            loss.total.backward()
            total, weight = total + loss.total.item(), weight + loss.weight.item()
        weight = max(weight, 1e-12)
        norm = scale_and_clip(learned, weight, keys.max_grad_norm)
        told = {"loss": total / weight, "grad_norm": norm}
        told |= {name: value / sums["tokens"] for name, value in sums.items() if name != "tokens"}
        if math.isfinite(told["loss"]) and math.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return told


def _loss(
    model: Any, head: torch.nn.Linear | None, part: Part, policy: PolicyKeys, sums: Counter[str]
) -> Loss:
    """The loss of one part; what is told of it is added to `sums`."""
    packed, rolled = part.packed, part.rolled
    if head is None:
        logp_S = token_logprobs(model, packed)
        loss = _objective(policy, rolled)(logp_S, packed)
    else:
        states_SH, logp_S = states_and_logprobs(model, packed)
        of_policy = _objective(policy, rolled)(logp_S, packed)
        of_values = value_loss(head(states_SH.float())[:, 0], packed, rolled)
        loss = Loss(of_policy.total + policy.value_coef * of_values.total, of_policy.weight)
        sums["value_loss"] += of_values.total.item()
    sums.update(
        telemetry(
            logp_S.detach(),
            packed,
            rolled,
            epsilon=policy.epsilon,
            epsilon_high=policy.epsilon_high,
            truncate=policy.importance_cap,
        )
    )
    return loss


def _objective(policy: PolicyKeys, rolled: Rolled) -> Objective:
    if policy.method == "best_of_n":
        return partial(best_of_n, rolled=rolled)
    common: dict[str, Any] = {
        "rolled": rolled,
        "epsilon": policy.epsilon,
        "truncate": policy.importance_cap,
        "entropy": policy.entropy_coef,
    }
    if policy.method == "ppo":
        return partial(ppo, **common)
    common["epsilon_high"] = policy.epsilon_high
    if policy.method == "rloo":
        return partial(rloo, **common)
    mean = MEANS[policy.loss_type]
    return partial(grpo, beta=policy.beta, mean=mean, max_new_tokens=policy.max_new_tokens, **common)


def _record(run: _Run, step: int, rate: float, batch: Batch, outcome: dict[str, float]) -> None:
    """One point of the curve. Raises ModelError after some steps in a row that were not finite."""
    run.tokens += batch.tokens
    run.curve.train.append(
        {"step": step, "learning_rate": rate, "tokens": batch.tokens, **batch.facts(), **outcome}
    )
    if math.isfinite(outcome["loss"]) and math.isfinite(outcome["grad_norm"]):
        run.skipped = 0
        return
    run.skipped += 1
    run.curve.events.append(
        f"step {step}: skipped, loss {outcome['loss']}, gradient norm {outcome['grad_norm']}"
    )
    if run.skipped == MAX_SKIPPED_IN_A_ROW:
        raise ModelError(
            f"reinforcement diverged: steps {step - run.skipped + 1} to {step} had no finite loss",
            hint="Lower reinforce.learning_rate; a tenth of it is a good try.",
        )
