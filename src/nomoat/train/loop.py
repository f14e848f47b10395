"""The training loop. It knows steps, clipping, schedule, checkpoints, deadline and telemetry; it knows no
method. One page, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from nomoat.data.pack import Packed, PacksItself, Rows, StepPlan, fill, pack_rows
from nomoat.errors import ModelError
from nomoat.model.logprobs import token_logprobs
from nomoat.model.memory import Room, thriftier
from nomoat.model.recompute import can_recompute, recompute_blocks
from nomoat.train.checkpoint import CheckpointFolder, Named, State
from nomoat.train.hooks import Hooks, Interrupted, Progress
from nomoat.train.objectives import Objective
from nomoat.train.optimizer import adamw
from nomoat.train.pace import Pace, StepClock
from nomoat.train.schedule import Schedule

MAX_SKIPPED_IN_A_ROW = 3


@dataclass(frozen=True)
class LoopSettings:
    """The numbers of the loop; every one of them is in the recipe or derived from it."""

    micro_batch_tokens: int
    max_grad_norm: float
    weight_decay: float
    adam_betas: tuple[float, float]
    optim: str
    eval_steps: int
    save_steps: int
    autocast_bf16: bool = False
    device: str = "cpu"
    gradient_checkpointing: bool | Literal["auto"] = "auto"


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

    @property
    def best_metrics(self) -> dict[str, float]:
        """What else there was to tell of the held-out rows at the best step."""
        (best,) = (point for point in self.curve.held_out if point["step"] == self.best_step)
        return {name: value for name, value in best.items() if name not in ("step", "loss")}


class HeldOutLoss(Protocol):
    """A mean loss, the batch in tokens that it was computed in, and what else there is to tell of it."""

    @property
    def mean(self) -> float: ...

    @property
    def batch_tokens(self) -> int: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...


HeldOut = Callable[[int], HeldOutLoss]
"""The loss of the held-out rows, in batches of so many tokens."""

Reads = Callable[[torch.nn.Module, Packed], torch.Tensor]
"""What an objective is a function of, read from a pack: log p of its targets, or a score of every answer."""

ObjectiveOf = Callable[[Sequence[int], int], Objective]
"""The objective of a step: of these rows, in micro-batches of so many tokens. It may first look at the model."""


def train(
    model: torch.nn.Module,
    rows: Rows | PacksItself,
    plan: StepPlan,
    objective_of: ObjectiveOf,
    *,
    schedule: Schedule,
    settings: LoopSettings,
    checkpoints: CheckpointFolder,
    held_out: HeldOut,
    hooks: Hooks,
    reads: Reads = token_logprobs,
) -> TrainResult:
    """Train until the schedule ends and leave the best weights in the model.

    A step reads `plan[step]`, splits it into micro-batches of `micro_batch_tokens`, and divides the summed
    gradient by the summed weight of the whole step, so the split changes nothing but memory. Running out
    of memory halves the micro-batch, that of the held-out loss included, and when it is one row, has backward
    compute the blocks again (unless `gradient_checkpointing` is false). A step whose loss or gradient is not
    finite is skipped; three in a row end the run. `hooks.seconds_left` shortens the schedule.

    Raises Interrupted after writing a checkpoint when `hooks.stop_asked`; ModelError when training diverges, or
    the blocks cannot be computed again although they should; BudgetError when one row, or the optimiser, does
    not fit into memory.
    """
    named: Named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = adamw(
        named, weight_decay=settings.weight_decay, betas=settings.adam_betas, optim=settings.optim
    )
    state = checkpoints.load(named, optimizer) or _begin(named, optimizer, settings, checkpoints, held_out)
    planned = schedule
    step, run, schedule = _go_on(state, planned)
    may_recompute = _may_recompute(model, settings)
    run.recompute = may_recompute and (run.recompute or settings.gradient_checkpointing is True)
    if run.recompute:
        recompute_blocks(model)

    model.train()
    started, earlier_s, clock = time.monotonic(), run.seconds, StepClock()
    while step < schedule.last_step:
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        longest = int(rows.lengths[plan[step]].max())
        try:
            objective = objective_of(plan[step], run.micro_tokens)
            outcome = _gradients(model, rows, plan[step], objective, reads, run.micro_tokens, settings, named)
        except RuntimeError as error:
            run.make_room(step, thriftier(error, run.room, longest, may_recompute=may_recompute), model)
            optimizer.zero_grad(set_to_none=True)
            continue
        if outcome.finite:
            try:
                optimizer.step()
            except RuntimeError as error:
                # it may have moved some of the weights: only a checkpoint is whole
                failed, room = step, thriftier(error, run.room, longest, may_recompute=may_recompute)
                optimizer.zero_grad(set_to_none=True)
                step, run, schedule = _go_on(checkpoints.load(named, optimizer), planned)
                run.make_room(failed, room, model, f" in the optimiser, back to step {step}")
                continue
            run.skipped = 0
        else:
            run.skip(step, outcome)
        optimizer.zero_grad(set_to_none=True)
        step += 1
        run.stepped(step, schedule(step - 1), outcome)

        clock.step_done()
        pace = Pace(clock.steps, clock.step_s, run.held_out_s, settings.eval_steps)
        schedule = land_if_late(schedule, step, pace, hooks.seconds_left(), run)
        if step % settings.eval_steps == 0 or step == schedule.last_step:
            if run.measure(step, held_out):
                checkpoints.save_best(step, named)
            clock.leave_out(run.held_out_s)
        stop = hooks.stop_asked()
        if step % settings.save_steps == 0 or step == schedule.last_step or stop:
            checkpoints.save(step, named, optimizer, run.to_payload(earlier_s + time.monotonic() - started))
        seconds_to_come = pace.seconds(step, schedule.last_step, evaluated=True)
        hooks.on_progress(Progress(step, schedule.last_step, outcome.loss, seconds_to_come))
        if stop:
            raise Interrupted(f"stopped at step {step} of {schedule.last_step}")

    checkpoints.load_best(run.best_step, named)
    return run.result(step, earlier_s + time.monotonic() - started)


def _begin(
    named: Named,
    optimizer: torch.optim.Optimizer,
    settings: LoopSettings,
    checkpoints: CheckpointFolder,
    held_out: HeldOut,
) -> State:
    """Measure the weights as they are and write the checkpoint of step 0, which a failed step can go back to."""
    run = _Run(settings.micro_batch_tokens)
    run.measure(0, held_out)
    checkpoints.save_best(0, named)
    payload = run.to_payload(0.0)
    checkpoints.save(0, named, optimizer, payload)
    return State(0, payload)


def _go_on(state: State | None, planned: Schedule) -> tuple[int, _Run, Schedule]:
    """Step, bookkeeping and schedule as a checkpoint has them."""
    assert state is not None
    run, schedule = _Run.from_payload(state.payload), planned
    for landing in run.landings:
        schedule = schedule.land(*landing)
    return state.step, run, schedule


def _may_recompute(model: torch.nn.Module, settings: LoopSettings) -> bool:
    """Whether blocks may be computed again in backward; ModelError where they should be and cannot."""
    possible = can_recompute(model)
    if settings.gradient_checkpointing is True and not possible:
        raise ModelError(
            "gradient_checkpointing: true, but the blocks of this model cannot be computed again",
            hint="Take the line out, and lower micro_batch_tokens where memory is short.",
        )
    return possible and settings.gradient_checkpointing is not False


@dataclass(frozen=True)
class _Outcome:
    """Mean loss of a step, tokens read and supervised, the norm of the gradient before clipping, and the means of
    what else the objective tells."""

    loss: float
    tokens: int
    supervised: int
    grad_norm: float
    metrics: dict[str, float]

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def _gradients(
    model: torch.nn.Module,
    rows: Rows | PacksItself,
    step_rows: Sequence[int],
    objective: Objective,
    reads: Reads,
    micro_tokens: int,
    settings: LoopSettings,
    named: Named,
) -> _Outcome:
    """Leave the clipped gradient of a whole step in the weights, computed `micro_tokens` at a time."""
    total = weight = 0.0
    tokens = supervised = 0
    sums: dict[str, float] = {}
    for micro in fill(step_rows, rows.lengths, micro_tokens):
        packed = pack_rows(rows, micro, settings.device)
        tokens += len(packed.tokens_T)
        if not len(packed.targets_S):
            continue
        with autocast(settings.device, settings.autocast_bf16):
            loss = objective(reads(model, packed), packed)
        loss.total.backward()
        total += loss.total.item()
        weight += loss.weight.item()
        supervised += len(packed.targets_S)
        for name, value in loss.metrics.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    weight = max(weight, 1e-12)
    norm = scale_and_clip(named, weight, settings.max_grad_norm)
    means = {name: value / weight for name, value in sums.items()}
    return _Outcome(total / weight, tokens, supervised, norm, means)


def autocast(device: str, bf16: bool) -> AbstractContextManager[Any]:
    """The precision that a step computes in."""
    return torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()


def scale_and_clip(named: Named, weight: float, max_norm: float) -> float:
    """Divide the summed gradients by the step's weight and clip their norm, in one pass; returns the norm."""
    gradients = [p.grad for p in named.values() if p.grad is not None]
    if not gradients:  # no token of the step is a target
        return 0.0
    norm = torch.nn.utils.get_total_norm(gradients).item() / weight
    torch._foreach_mul_(gradients, min(1.0, max_norm / (norm + 1e-6)) / weight)
    return norm


class Lands(Protocol):
    """A run that notes where it was shortened."""

    landings: list[tuple[int, int]]
    curve: Curve


def land_if_late(schedule: Schedule, step: int, pace: Pace, left_s: float | None, run: Lands) -> Schedule:
    """Shorten the schedule when the steps still planned would outlast the time left."""
    planned = schedule.last_step - step
    if left_s is None or planned <= 0:
        return schedule
    affordable = pace.affordable(step, schedule.last_step, left_s, landed=bool(run.landings))
    if affordable == planned:
        return schedule
    run.landings.append((step, step + affordable))
    run.curve.events.append(
        f"step {step}: {planned} steps would take {pace.seconds(step, schedule.last_step):.0f} s, "
        f"{max(0.0, left_s):.0f} s are left: ending after {affordable} more"
    )
    return schedule.land(step, step + affordable)


@dataclass
class _Run:
    """The mutable bookkeeping of one run; all of it goes through a checkpoint as JSON."""

    micro_tokens: int
    recompute: bool = False
    curve: Curve = field(default_factory=Curve)
    best_step: int = 0
    best_loss: float = math.inf
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    held_out_s: float = 0.0
    skipped: int = 0
    landings: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def from_payload(cls, payload: dict[str, Any]) -> _Run:
        return cls(**{**payload, "curve": Curve(**payload["curve"])})

    def to_payload(self, seconds: float) -> dict[str, Any]:
        return {**vars(self), "seconds": seconds, "curve": vars(self.curve)}

    def stepped(self, step: int, rate: float, outcome: _Outcome) -> None:
        self.tokens += outcome.tokens
        self.supervised += outcome.supervised
        self.curve.train.append(
            {
                "step": step,
                "loss": outcome.loss,
                "grad_norm": outcome.grad_norm,
                "learning_rate": rate,
                "tokens": outcome.tokens,
                **outcome.metrics,
            }
        )

    def measure(self, step: int, held_out: HeldOut) -> bool:
        """Record the held-out loss of `step`; True if it is the best so far."""
        started = time.monotonic()
        losses = held_out(self.micro_tokens)
        self.held_out_s = time.monotonic() - started
        if losses.batch_tokens < self.micro_tokens:
            self.shrink(step, losses.batch_tokens, " in the held-out loss")
        loss = losses.mean
        self.curve.held_out.append({"step": step, "loss": loss, **losses.metrics})
        if not loss < self.best_loss:
            return False
        self.best_step, self.best_loss = step, loss
        return True

    @property
    def room(self) -> Room:
        return Room(self.micro_tokens, self.recompute)

    def make_room(self, step: int, room: Room, model: torch.nn.Module, where: str = "") -> None:
        """Go on with `room` after memory ran out."""
        if room.recompute and not self.recompute:
            self.recompute = True
            recompute_blocks(model)
            self.curve.events.append(
                f"step {step}: out of memory{where}, blocks are computed again in backward from now on "
                f"(gradient checkpointing)"
            )
        if room.tokens < self.micro_tokens:
            self.shrink(step, room.tokens, where)

    def shrink(self, step: int, micro_tokens: int, where: str = "") -> None:
        self.micro_tokens = micro_tokens
        self.curve.events.append(f"step {step}: out of memory{where}, micro-batch now {micro_tokens} tokens")

    def skip(self, step: int, outcome: _Outcome) -> None:
        self.skipped += 1
        self.curve.events.append(
            f"step {step}: skipped, loss {outcome.loss}, gradient norm {outcome.grad_norm}"
        )
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
