from __future__ import annotations

from dataclasses import replace

import pytest

from nomoat.errors import BudgetError
from nomoat.plan.cost import Prices, train_bytes, train_flops
from nomoat.plan.memory import Checkpointing, StepSize, plan_memory
from nomoat.plan.planner import Capacity, Limits, Training, Work, plan_night

SFT = Training(
    kind="sft",
    frozen=True,
    train_tokens=3_000_000,
    below_tokens=3_000_000,
    read_tokens=0,
    top=1.0,
    step=StepSize(
        weights_bytes=4e8,
        trainable=2_000_000,
        trained_bytes=12.0,
        micro_batch_tokens=2048,
        width=768,
        layers=12,
        logits=2048 * 32_000,
    ),
    gradient_checkpointing="auto",
)
DONE = replace(SFT, train_tokens=0, below_tokens=0)
WORK = Work(
    parameters=100_000_000,
    trainings=(SFT,),
    held_out_tokens=100_000,
    prompts=100,
    prompt_tokens=50,
    compared_prompts=8,
    compared_tokens=24,
    max_new_tokens=100,
    files=3,
)
CAPACITY = Capacity(
    gflops=200.0,
    read_tokens_per_s=1000.0,
    write_tokens_per_s=50.0,
    memory_bytes=16 << 30,
    watts=50.0,
)
FREE = Prices(0.0, 0.0)


def test_flops_of_training() -> None:
    assert train_flops(1_000, 10, frozen=True) == 40_000
    assert train_flops(1_000, 10, frozen=False) == 60_000
    assert train_flops(1_000, 10, frozen=True, recomputed=True) == 60_000
    # a fifth of the blocks trains; the rest reads a third of the tokens, once
    assert train_flops(1_000, 30, frozen=True, top=0.2, below_tokens=10) == pytest.approx(24_000 + 16_000)


def test_dollars_are_hours_and_kilowatt_hours() -> None:
    assert Prices(2.0, 0.5).dollars(1800.0, 3.6e6) == pytest.approx(1.5)


def test_bytes_grow_with_what_is_trained_and_with_the_micro_batch() -> None:
    step = SFT.step
    small = step.bytes(recomputed=False)
    assert replace(step, trainable=step.trainable + 990).bytes(recomputed=False) - small == 990 * 12
    twice = replace(step, micro_batch_tokens=2 * 2048).bytes(recomputed=False) - small
    assert twice == train_bytes(
        0.0,
        micro_batch_tokens=2048,
        width=768,
        layers=12,
        logits=0,
        number_bytes=4.0,
        recomputed=False,
    )
    logits = 3 * 4 * step.logits
    assert small - replace(step, logits=0).bytes(recomputed=False) == logits
    kept = small - step.weights_bytes - step.trainable * 12 - logits
    assert replace(step, number_bytes=2.0).bytes(recomputed=False) == small - kept / 2


def test_layers_that_are_computed_again_keep_their_inputs_alone() -> None:
    saved = SFT.step.bytes(recomputed=False) - SFT.step.bytes(recomputed=True)
    assert saved == 4 * 2048 * 768 * (17 * 12 - (12 + 17))


@pytest.mark.parametrize(
    ("free_gib", "asked", "chosen", "words"),
    [
        (16, "auto", "auto", []),
        (16, True, True, []),
        (2, "auto", True, ["gradient checkpointing is on: a step would need about 2.3 GiB and 2.0 GiB are free"]),
        (2, False, False, ["training needs about 2.3 GiB and 2.0 GiB are free: the micro-batch of 2048 tokens will"]),
        (1, "auto", True, ["gradient checkpointing is on", "training needs about 1.3 GiB and 1.0 GiB are free"]),
    ],
)  # fmt: skip
def test_checkpointing_is_chosen_where_memory_demands_it(
    free_gib: int, asked: Checkpointing, chosen: Checkpointing, words: list[str]
) -> None:
    plan = plan_memory(SFT.step, asked, free_gib << 30)
    assert plan.gradient_checkpointing == chosen
    assert plan.bytes == SFT.step.bytes(recomputed=chosen is True)
    assert len(plan.sentences) == len(words)
    for sentence, begins in zip(plan.sentences, words, strict=True):
        assert sentence.startswith(begins)


def test_what_is_computed_again_takes_its_time() -> None:
    kept = plan_night(WORK, CAPACITY, FREE, Limits(None, None))
    again = plan_night(WORK, replace(CAPACITY, memory_bytes=2 << 30), FREE, Limits(None, None))
    assert (kept.gradient_checkpointing, again.gradient_checkpointing) == ({"sft": "auto"}, {"sft": True})
    assert again.stages[0].seconds == pytest.approx(1.5 * kept.stages[0].seconds)
    assert again.sentences[0].startswith("training reads 3,000,000 tokens: 1800.0 TFLOP")
    assert again.memory_bytes < kept.memory_bytes


def test_without_a_budget_training_takes_what_it_needs() -> None:
    plan = plan_night(WORK, CAPACITY, FREE, Limits(None, None))
    assert plan.train_seconds == {"sft": None}
    by_kind = {stage.kind: stage.seconds for stage in plan.stages}
    assert by_kind["sft"] == pytest.approx(4 * 1e8 * 3e6 / (200e9 * 0.45))
    assert plan.energy_joules == pytest.approx(plan.seconds * 50.0)
    assert plan.sentences[0].startswith(
        "training reads 3,000,000 tokens: 1200.0 TFLOP at 45% of the 200 GFLOP/s"
    )


def test_training_gives_way_and_evaluation_does_not() -> None:
    free = plan_night(WORK, CAPACITY, FREE, Limits(None, None))
    tight = plan_night(WORK, CAPACITY, FREE, Limits(free.seconds * 0.7, None))
    assert tight.train_seconds["sft"] is not None
    assert tight.train_seconds["sft"] < free.stages[0].seconds
    assert tight.stages[1:] == free.stages[1:]
    assert tight.seconds <= free.seconds * 0.7
    assert "are kept for merging, quantising and evaluation" in tight.sentences[1]


def test_two_trainings_share_the_time_as_the_forecast_says() -> None:
    second = replace(
        SFT, kind="prefer", train_tokens=1_000_000, below_tokens=1_000_000, read_tokens=4_000_000
    )
    work = replace(WORK, trainings=(*WORK.trainings, second))
    free = plan_night(work, CAPACITY, FREE, Limits(None, None))
    seconds = {stage.kind: stage.seconds for stage in free.stages}
    assert list(seconds) == ["sft", "prefer", "merge", "quantize", "evaluate"]
    # a token read takes half of a token trained on: 4 operations a weight against 2
    assert seconds["prefer"] == pytest.approx(seconds["sft"])
    assert free.train_seconds == {"sft": None, "prefer": None}
    tight = plan_night(work, CAPACITY, FREE, Limits(free.seconds * 0.7, None))
    assert tight.train_seconds["sft"] == pytest.approx(tight.train_seconds["prefer"])
    assert sum(stage.seconds for stage in tight.stages) <= free.seconds * 0.7
    # what is done leaves its time to the other
    rest = replace(work, trainings=(DONE, second))
    later = plan_night(rest, CAPACITY, FREE, Limits(free.seconds * 0.7, None))
    assert later.train_seconds["sft"] == 0.0
    assert later.train_seconds["prefer"] == pytest.approx(2 * (tight.train_seconds["prefer"] or 0.0))


def test_evaluation_takes_as_long_as_the_files_take_to_answer() -> None:
    def evaluation(**changes: float) -> float:
        plan = plan_night(WORK, replace(CAPACITY, **changes), FREE, Limits(None, None))
        return {stage.kind: stage.seconds for stage in plan.stages}["evaluate"]

    answers = 2 * 100 * (50 / 1000 + 100 / 50)
    written, read = 8 * 24, 8 * (2 * 50 + 24)
    compared = (4 + 3) * written / 50 + (1 + 3) * read / 1000
    losses = 2 * 2 * 1e8 * 1e5 / (200e9 * 0.45)
    assert evaluation() == pytest.approx(5 + answers + compared + losses)
    # a GPU trains faster, but the files answer on the processor
    assert evaluation(gflops=2e6) == pytest.approx(5 + answers + compared, rel=1e-3)


def test_money_is_time_at_the_price() -> None:
    prices = Prices(dollars_per_hour=1.0, dollars_per_kwh=0.0)
    plan = plan_night(WORK, CAPACITY, prices, Limits(None, 3.0))
    assert plan.train_seconds["sft"] is not None
    assert plan.dollars <= 3.0
    by_clock = plan_night(WORK, CAPACITY, prices, Limits(3 * 3600.0, None))
    assert plan.train_seconds == pytest.approx(by_clock.train_seconds)


def test_a_budget_too_small_is_refused_before_anything_starts() -> None:
    with pytest.raises(BudgetError, match=r"the budget leaves 0 s for a training of about \d+ s") as caught:
        plan_night(WORK, CAPACITY, FREE, Limits(10.0, None))
    assert caught.value.hint is not None
    assert "budget.until, hours or dollars" in caught.value.hint


def test_too_little_memory_is_said() -> None:
    plan = plan_night(WORK, replace(CAPACITY, memory_bytes=1 << 28), FREE, Limits(None, None))
    assert "the micro-batch of 2048 tokens will be halved until it fits" in plan.sentences[-2]


def test_the_whole_night_is_said_before_it_begins() -> None:
    plan = plan_night(WORK, CAPACITY, Prices(1.0, 0.5), Limits(None, None))
    said = plan.sentences[-1]
    assert said.startswith(f"the night: about {plan.seconds:.0f} s (sft 13333, merge 5, quantize ")
    assert f"{plan.energy_joules / 3.6e6:.3f} kWh, {plan.dollars:.2f} dollars, " in said
    assert said.endswith(f"{plan.memory_bytes / 2**30:.1f} GiB of memory")


def test_what_is_trained_already_is_not_refused_for_lack_of_time() -> None:
    plan = plan_night(WORK, CAPACITY, FREE, Limits(10.0, None), may_refuse=False)
    assert plan.train_seconds == {"sft": 0.0}
    nothing = replace(WORK, trainings=(DONE,))
    done = plan_night(nothing, CAPACITY, FREE, Limits(10.0, None), may_refuse=False)
    assert done.sentences[0] == "training was done before"
