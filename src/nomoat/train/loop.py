"""The training loop. It knows steps, clipping, schedule, checkpoints, deadline and telemetry; it knows no
method. One page, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from nomoat.data.pack import Rows, StepPlan, fill, pack_rows
from nomoat.errors import BudgetError, ModelError
from nomoat.model.logprobs import token_logprobs
from nomoat.train.checkpoint import CheckpointFolder, Named
from nomoat.train.hooks import Hooks, Interrupted, Progress
from nomoat.train.objectives import Objective
from nomoat.train.schedule import Schedule

MAX_SKIPPED_IN_A_ROW = 3
STEPS_BEFORE_A_FORECAST = 5


@dataclass(frozen=True)
class LoopSettings:
    """The numbers of the loop; every one of them is in the recipe or derived from it."""

    micro_batch_tokens: int
    max_grad_norm: float
    weight_decay: float
    adam_betas: tuple[float, float]
    eval_steps: int
    save_steps: int
    autocast_bf16: bool = False
    device: str = "cpu"


@dataclass
class Curve:
    """Telemetry of a run; a list of points for each of the two losses, kept in the checkpoint."""

    train: list[dict[str, float]] = field(default_factory=list)
    held_out: list[dict[str, float]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainResult:
    """`best_step` is the step whose weights the model now holds: the lowest held-out loss."""

    steps: int
    best_step: int
    best_loss: float
    first_loss: float
    tokens: int
    supervised_tokens: int
    seconds: float
    curve: Curve


def train(
    model: torch.nn.Module,
    rows: Rows,
    plan: StepPlan,
    objective: Objective,
    *,
    schedule: Schedule,
    settings: LoopSettings,
    checkpoints: CheckpointFolder,
    held_out_loss: Callable[[], float],
    hooks: Hooks,
) -> TrainResult:
    """Train until the schedule ends and leave the best weights in the model.

    A step reads `plan[step]`, splits it into micro-batches of `micro_batch_tokens`, and divides the summed
    gradient by the summed weight of the whole step, so the split changes nothing but memory. Running out
    of memory halves the micro-batch. A step whose loss or gradient is not finite is skipped; three in a row
    end the run. `hooks.seconds_left` shortens the schedule.

    Raises Interrupted after writing a checkpoint when `hooks.stop_asked`; ModelError when training diverges;
    BudgetError when one row does not fit into memory.
    """
    named: Named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        _groups(named, settings.weight_decay), lr=0.0, betas=settings.adam_betas, fused=True
    )
    micro_tokens = settings.micro_batch_tokens
    run = _Run()
    state = checkpoints.load(named, optimizer)
    if state is not None:
        run = _Run.from_payload(state.payload)
        micro_tokens = run.micro_tokens or micro_tokens
        for landing in run.landings:
            schedule = schedule.land(*landing)
    first_step = step = state.step if state is not None else 0
    if state is None:
        run.evaluated(0, held_out_loss())
        checkpoints.save_best(step, named)

    model.train()
    started, earlier_s = time.monotonic(), run.seconds
    while step < schedule.last_step:
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        try:
            outcome = _accumulate(model, rows, plan[step], objective, micro_tokens, settings)
        except RuntimeError as error:
            micro_tokens = _smaller(error, micro_tokens, rows, plan[step])
            run.micro_tokens = micro_tokens
            run.curve.events.append(f"step {step}: out of memory, micro-batch now {micro_tokens} tokens")
            optimizer.zero_grad(set_to_none=True)
            continue
        grad_norm = _scale_and_clip(named, outcome.weight, settings.max_grad_norm)
        loss = outcome.total / outcome.weight
        if math.isfinite(loss) and math.isfinite(grad_norm):
            optimizer.step()
            run.skipped = 0
        else:
            run.skip(step, loss, grad_norm)
        optimizer.zero_grad(set_to_none=True)
        step += 1
        run.stepped(step, loss, grad_norm, schedule(step - 1), outcome)

        seconds_per_step = (time.monotonic() - started) / (step - first_step)
        schedule = _land_if_late(schedule, step, seconds_per_step, hooks.seconds_left(), run, first_step)
        at_eval = step % settings.eval_steps == 0 or step == schedule.last_step
        if at_eval and run.evaluated(step, held_out_loss()):
            checkpoints.save_best(step, named)
        stop = hooks.stop_asked()
        if step % settings.save_steps == 0 or step == schedule.last_step or stop:
            checkpoints.save(step, named, optimizer, run.to_payload(earlier_s + time.monotonic() - started))
        hooks.on_progress(
            Progress(step, schedule.last_step, loss, seconds_per_step * (schedule.last_step - step))
        )
        if stop:
            raise Interrupted(f"stopped at step {step} of {schedule.last_step}")

    checkpoints.load_best(run.best_step, named)
    return run.result(step, earlier_s + time.monotonic() - started)


@dataclass(frozen=True)
class _Outcome:
    total: float
    weight: float
    tokens: int


def _accumulate(
    model: torch.nn.Module,
    rows: Rows,
    step_rows: Sequence[int],
    objective: Objective,
    micro_tokens: int,
    settings: LoopSettings,
) -> _Outcome:
    total = weight = 0.0
    tokens = 0
    autocast: Any = (
        torch.autocast(torch.device(settings.device).type, torch.bfloat16)
        if settings.autocast_bf16
        else nullcontext()
    )
    for micro in fill(step_rows, rows.lengths, micro_tokens):
        packed = pack_rows(rows, micro, settings.device)
        tokens += len(packed.tokens_T)
        if not len(packed.targets_S):
            continue
        with autocast:
            loss = objective(token_logprobs(model, packed), packed)
        loss.total.backward()
        total += loss.total.item()
        weight += loss.weight.item()
    return _Outcome(total, max(weight, 1e-12), tokens)


def _scale_and_clip(named: Named, weight: float, max_norm: float) -> float:
    """Divide the summed gradients by the step's weight and clip their norm, in one pass; returns the norm."""
    gradients = [p.grad for p in named.values() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item() / weight
    torch._foreach_mul_(gradients, min(1.0, max_norm / (norm + 1e-6)) / weight)
    return norm


def _groups(named: Named, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms and biases, which are vectors, do not."""
    matrices = [p for p in named.values() if p.dim() >= 2]
    vectors = [p for p in named.values() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _smaller(error: Exception, micro_tokens: int, rows: Rows, step_rows: Sequence[int]) -> int:
    out_of_memory = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if not out_of_memory:
        raise error
    longest = max(int(rows.lengths[row]) for row in step_rows)
    if micro_tokens <= longest:
        raise BudgetError(
            f"one row of {longest} tokens does not fit into memory",
            hint="Lower sft.max_seq_len or sft.lora_r, or choose a smaller base.",
        ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(longest, micro_tokens // 2)


def _land_if_late(
    schedule: Schedule, step: int, seconds_per_step: float, left_s: float | None, run: _Run, first_step: int
) -> Schedule:
    """Shorten the schedule when the steps still planned would outlast the time left."""
    planned = schedule.last_step - step
    too_early = step - first_step < STEPS_BEFORE_A_FORECAST
    if left_s is None or too_early or planned <= 0:
        return schedule
    affordable = max(0, int(left_s / seconds_per_step))
    # a landing is corrected only when it is clearly missed, or every step would move its end by a hair
    if affordable >= planned * (1.0 if not run.landings else 0.95):
        return schedule
    run.landings.append((step, step + affordable))
    run.curve.events.append(
        f"step {step}: {planned} steps would take {planned * seconds_per_step:.0f} s, "
        f"{left_s:.0f} s are left: ending after {affordable} more"
    )
    return schedule.land(step, step + affordable)


@dataclass
class _Run:
    """The mutable bookkeeping of one run; all of it goes through a checkpoint as JSON."""

    curve: Curve = field(default_factory=Curve)
    best_step: int = 0
    best_loss: float = math.inf
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    skipped: int = 0
    micro_tokens: int | None = None
    landings: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def from_payload(cls, payload: dict[str, Any]) -> _Run:
        return cls(**{**payload, "curve": Curve(**payload["curve"])})

    def to_payload(self, seconds: float) -> dict[str, Any]:
        return {**vars(self), "seconds": seconds, "curve": vars(self.curve)}

    def stepped(self, step: int, loss: float, grad_norm: float, rate: float, outcome: _Outcome) -> None:
        self.tokens += outcome.tokens
        self.supervised += round(outcome.weight)
        self.curve.train.append(
            {
                "step": step,
                "loss": loss,
                "grad_norm": grad_norm,
                "learning_rate": rate,
                "tokens": outcome.tokens,
            }
        )

    def evaluated(self, step: int, loss: float) -> bool:
        """Record a held-out loss; True if it is the best so far."""
        self.curve.held_out.append({"step": step, "loss": loss})
        if not loss < self.best_loss:
            return False
        self.best_step, self.best_loss = step, loss
        return True

    def skip(self, step: int, loss: float, grad_norm: float) -> None:
        self.skipped += 1
        self.curve.events.append(f"step {step}: skipped, loss {loss}, gradient norm {grad_norm}")
        if self.skipped == MAX_SKIPPED_IN_A_ROW:
            raise ModelError(
                f"training diverged: steps {step - self.skipped + 1} to {step} had no finite loss",
                hint="Lower the learning rate (a tenth of it is a good try), or look at the rows of these steps.",
            )

    def result(self, steps: int, seconds: float) -> TrainResult:
        return TrainResult(
            steps=steps,
            best_step=self.best_step,
            best_loss=self.best_loss,
            first_loss=self.curve.held_out[0]["loss"],
            tokens=self.tokens,
            supervised_tokens=self.supervised,
            seconds=seconds,
            curve=self.curve,
        )
