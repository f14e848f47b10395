"""The planner: from what this machine can do to what the night will take. Pure functions over numbers."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.errors import BudgetError
from nomoat.plan.cost import JOULES_PER_KWH, Prices, forward_flops, train_flops
from nomoat.plan.memory import Checkpointing, StepSize, plan_memory

# Share of the measured matrix speed that whole training steps reach: less than the best that docs/benchmarks.md
# shows (68% and 77% on shape S), for small bases and busy machines; the loop soon measures its own.
TRAINING_SHARE = 0.45
PLAIN_SLOWER = 4.0
"""A float32 folder reads four bytes a weight for every token it writes, a served file about one."""
FIXED_SECONDS = 5.0
RESERVE = 1.5


@dataclass(frozen=True)
class Training:
    """One stage that trains, counted in tokens: trained on, read by the blocks below those that train (`top` is the
    share of the blocks that does), and read besides, for held-out losses and references. `frozen`: only an adapter
    learns. `step` is what it computes at once."""

    kind: str
    frozen: bool
    train_tokens: int
    below_tokens: int
    read_tokens: int
    top: float
    step: StepSize
    gradient_checkpointing: Checkpointing


@dataclass(frozen=True)
class Work:
    """What is to be done, counted.

    `trainings` are the stages that train, in order; those that are done already train on nothing. `held_out_tokens`
    are read for each model's loss after them. `prompt_tokens` is a prompt's mean length; `drawn_answers` of at most
    `drawn_tokens` are written before the last training, which learns from them; `compared_*` are of the comparison of
    every file with its folder: how many prompts, and greedy tokens of each; `rival_prompts` are answered by the
    champion for the gate, or `gate_tokens` read by the two files.
    """

    parameters: int
    trainings: tuple[Training, ...]
    held_out_tokens: int
    prompts: int
    prompt_tokens: int
    max_new_tokens: int
    compared_prompts: int
    compared_tokens: int
    files: int
    drawn_answers: int = 0
    drawn_tokens: int = 0
    rival_prompts: int = 0
    gate_tokens: int = 0

    def flops(self, training: Training, *, recomputed: bool) -> float:
        """Of one of the trainings; `recomputed`: with blocks computed again in backward."""
        steps = train_flops(
            self.parameters,
            training.train_tokens,
            frozen=training.frozen,
            top=training.top,
            below_tokens=training.below_tokens,
            recomputed=recomputed,
        )
        return steps + forward_flops(self.parameters, training.read_tokens)


@dataclass(frozen=True)
class Capacity:
    """What the machine can do, measured: `gflops` of training, and tokens a second that a file reads of a
    prompt and writes of an answer (always on the processor)."""

    gflops: float
    read_tokens_per_s: float
    write_tokens_per_s: float
    memory_bytes: int
    watts: float


@dataclass(frozen=True)
class Limits:
    """The owner's budget, as seconds from now and dollars; None: no limit."""

    seconds: float | None
    dollars: float | None


@dataclass(frozen=True)
class StageForecast:
    kind: str
    seconds: float
    energy_joules: float
    dollars: float


@dataclass(frozen=True)
class Plan:
    """`train_seconds` is how long each stage that trains may take (None: as long as it needs), and
    `gradient_checkpointing` what it is told of that; `sentences` say every number that was chosen, with its reason."""

    stages: tuple[StageForecast, ...]
    train_seconds: dict[str, float | None]
    memory_bytes: float
    gradient_checkpointing: dict[str, Checkpointing]
    sentences: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def energy_joules(self) -> float:
        return sum(stage.energy_joules for stage in self.stages)

    @property
    def dollars(self) -> float:
        return sum(stage.dollars for stage in self.stages)


def plan_night(
    work: Work, capacity: Capacity, prices: Prices, limits: Limits, *, may_refuse: bool = True
) -> Plan:
    """Forecast every stage and say how long training may take.

    Training gives way, evaluation never does; what there is of time for it is shared as the forecast says. Raises
    BudgetError when not even a tenth of the training would fit; with `may_refuse` false (some of it is done already)
    training then gets what there is, if nothing.
    """
    flops_per_second = capacity.gflops * 1e9
    memory = {
        t.kind: plan_memory(t.step, t.gradient_checkpointing, capacity.memory_bytes) for t in work.trainings
    }
    flops = {t.kind: work.flops(t, recomputed=memory[t.kind].recomputes) for t in work.trainings}
    training = {kind: count / (flops_per_second * TRAINING_SHARE) for kind, count in flops.items()}
    train_s = sum(training.values())
    convert_s = FIXED_SECONDS * work.files + 4.0 * work.parameters * work.files / 50e6
    read_s = 2 * forward_flops(work.parameters, work.held_out_tokens) / (flops_per_second * TRAINING_SHARE)
    seconds = {
        **training,
        **({"sample": _draw_seconds(work, capacity)} if work.drawn_answers else {}),
        "merge": FIXED_SECONDS,
        "quantize": convert_s,
        "evaluate": FIXED_SECONDS
        + read_s
        + _compare_seconds(work, capacity)
        + _answer_seconds(work, capacity, 2 * work.prompts),
    }

    if work.rival_prompts or work.gate_tokens:
        loss_s = work.gate_tokens / capacity.read_tokens_per_s
        seconds["gate"] = FIXED_SECONDS + loss_s + _answer_seconds(work, capacity, work.rival_prompts)

    after_s = RESERVE * (sum(seconds.values()) - train_s)
    allowed_s = seconds_within(limits, prices, capacity.watts)
    train_allowed_s = None if allowed_s is None else allowed_s - after_s
    sentences = (
        [_forecast_sentence(train_s, sum(flops.values()), work, capacity)]
        if any(t.train_tokens for t in work.trainings)
        else ["training was done before"]
    )
    allowed: dict[str, float | None] = dict.fromkeys(training)
    if train_allowed_s is not None:
        if may_refuse and train_allowed_s < 0.1 * train_s:
            raise BudgetError(
                f"the budget leaves {max(0.0, train_allowed_s):.0f} s for a training of about {train_s:.0f} s, "
                f"after {after_s:.0f} s kept for merging, quantising and evaluation",
                hint="Give budget.until, hours or dollars more, or lower num_train_epochs or the base's size.",
            )
        train_allowed_s = max(0.0, train_allowed_s)
        if train_allowed_s < train_s:
            sentences.append(
                f"training ends after about {train_allowed_s:.0f} s instead of {train_s:.0f} s: the budget allows "
                f"{allowed_s:.0f} s, and {after_s:.0f} s are kept for merging, quantising and evaluation"
            )
            seconds |= {kind: s * train_allowed_s / train_s for kind, s in training.items()}
        if train_s:
            allowed = {kind: s * train_allowed_s / train_s for kind, s in training.items()}
    total_s, most_bytes = sum(seconds.values()), max(plan.bytes for plan in memory.values())
    total_sentence = (
        f"the night: about {total_s:.0f} s ({', '.join(f'{kind} {s:.0f}' for kind, s in seconds.items())}), "
        f"{total_s * capacity.watts / JOULES_PER_KWH:.3f} kWh, "
        f"{prices.dollars(total_s, total_s * capacity.watts):.2f} dollars, {most_bytes / 2**30:.1f} GiB of memory"
    )
    sentences += dict.fromkeys(sentence for plan in memory.values() for sentence in plan.sentences)
    sentences.append(total_sentence)
    stages = tuple(
        StageForecast(kind, s, s * capacity.watts, prices.dollars(s, s * capacity.watts))
        for kind, s in seconds.items()
    )
    return Plan(
        stages,
        allowed,
        most_bytes,
        {kind: plan.gradient_checkpointing for kind, plan in memory.items()},
        tuple(sentences),
    )


def seconds_within(limits: Limits, prices: Prices, watts: float) -> float | None:
    """Seconds until the earlier of time and money is used up; None without a limit."""
    by_time = limits.seconds
    dollars_per_second = prices.dollars(1.0, watts)
    by_money = (
        limits.dollars / dollars_per_second if limits.dollars is not None and dollars_per_second else None
    )
    return min((s for s in (by_time, by_money) if s is not None), default=None)


def _answer_seconds(work: Work, capacity: Capacity, answers: int) -> float:
    """So many answers, each at most at full length."""
    reading = work.prompt_tokens / capacity.read_tokens_per_s
    return answers * (reading + work.max_new_tokens / capacity.write_tokens_per_s)


def _draw_seconds(work: Work, capacity: Capacity) -> float:
    """Answers to learn from, in the mean of half their longest length; every one reads its prompt."""
    reading = work.prompt_tokens / capacity.read_tokens_per_s
    return work.drawn_answers * (reading + 0.5 * work.drawn_tokens / capacity.write_tokens_per_s)


def _compare_seconds(work: Work, capacity: Capacity) -> float:
    """Folder and files each write greedy answers, and read them all again for their probabilities."""
    written = work.compared_prompts * work.compared_tokens
    read = work.compared_prompts * (2 * work.prompt_tokens + work.compared_tokens)
    writing = (PLAIN_SLOWER + work.files) * written / capacity.write_tokens_per_s
    return writing + (1 + work.files) * read / capacity.read_tokens_per_s


def _forecast_sentence(train_s: float, flops: float, work: Work, capacity: Capacity) -> str:
    tokens = sum(t.train_tokens for t in work.trainings)
    return (
        f"training reads {tokens:,} tokens: {flops / 1e12:.1f} TFLOP at {TRAINING_SHARE:.0%} "
        f"of the {capacity.gflops:.0f} GFLOP/s measured here, about {train_s:.0f} s"
    )
