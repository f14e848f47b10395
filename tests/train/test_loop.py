from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.families import tiny_model
from helpers.rows import counting_rows
from nomoat.data.pack import Packed, StepPlan
from nomoat.errors import BudgetError, ModelError
from nomoat.model import logprobs
from nomoat.model.attention import PACKED
from nomoat.model.logprobs import RowLosses, row_losses
from nomoat.train import loop
from nomoat.train.checkpoint import CheckpointFolder
from nomoat.train.hooks import Hooks, Interrupted, Progress
from nomoat.train.loop import LoopSettings, TrainResult, train
from nomoat.train.objectives import Loss
from nomoat.train.objectives.sft import sft
from nomoat.train.schedule import Schedule

VOCABULARY = 40


def settings(**changes: Any) -> LoopSettings:
    plain: dict[str, Any] = {
        "micro_batch_tokens": 64,
        "max_grad_norm": 1.0,
        "weight_decay": 0.01,
        "adam_betas": (0.9, 0.99),
        "optim": "adamw_torch",
        "eval_steps": 5,
        "save_steps": 4,
    }
    return LoopSettings(**(plain | changes))


def run(
    folder: Path,
    *,
    model: Any = None,
    steps: int = 20,
    hooks: Hooks | None = None,
    objective: Callable[[torch.Tensor, Packed], Loss] = sft,
    learning_rate: float = 1e-2,
    before_held_out: Callable[[], None] = lambda: None,
    **changes: Any,
) -> tuple[Any, TrainResult]:
    model = model or tiny_model("llama", VOCABULARY, attention=PACKED, initializer_range=0.05)
    rows = counting_rows(120, VOCABULARY, seed=1)
    held_out = counting_rows(20, VOCABULARY, seed=2)
    plan = StepPlan(rows.lengths, tokens_per_step=128, epochs=30, max_steps=steps, seed=0)

    def measure(batch_tokens: int) -> RowLosses:
        before_held_out()
        return row_losses(model, held_out, batch_tokens=batch_tokens)

    result = train(
        model,
        rows,
        plan,
        lambda *_: objective,
        schedule=Schedule("cosine", learning_rate, total_steps=len(plan), warmup_steps=2),
        settings=settings(**changes),
        checkpoints=CheckpointFolder(folder),
        held_out=measure,
        hooks=hooks or Hooks(),
        reads=loop.token_logprobs,
    )
    return model, result


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def test_it_learns_to_count(tmp_path: Path) -> None:
    model, result = run(tmp_path, steps=60)
    assert result.first_loss > 3.0
    assert result.best_loss < 1.0
    assert result.tokens == sum(point["tokens"] for point in result.curve.train)
    held_out = counting_rows(20, VOCABULARY, seed=2)
    assert row_losses(model, held_out, batch_tokens=128).mean == pytest.approx(result.best_loss)


def test_two_runs_of_one_seed_are_the_same_bytes(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "a")
    second, _ = run(tmp_path / "b")
    assert_same(weights(first), weights(second))


@pytest.mark.parametrize("stop_at", [1, 6, 7, 19])
def test_stopped_and_resumed_is_the_same_bytes(tmp_path: Path, stop_at: int) -> None:
    whole, expected = run(tmp_path / "whole")
    steps: list[int] = []

    def stop() -> bool:
        return len(steps) == stop_at - 1

    with pytest.raises(Interrupted, match=f"stopped at step {stop_at} of 20"):
        run(tmp_path / "cut", hooks=Hooks(stop_asked=stop, on_progress=lambda p: steps.append(p.step)))
    resumed, result = run(tmp_path / "cut")
    assert_same(weights(whole), weights(resumed))
    assert result.curve == expected.curve
    assert (result.best_step, result.best_loss) == (expected.best_step, expected.best_loss)


@pytest.mark.parametrize("optim", ["adamw_8bit", "paged_adamw_8bit"])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_moments_in_eight_bits_are_resumed_to_the_same_bytes(optim: str, tmp_path: Path) -> None:
    """On a processor the paged one has nothing to page; the state is the same."""
    pytest.importorskip("bitsandbytes", reason='bitsandbytes is not installed: pip install "nomoat[gpu]"')
    whole, expected = run(tmp_path / "whole", optim=optim)
    assert expected.best_loss < expected.first_loss - 0.5
    done: list[int] = []
    with pytest.raises(Interrupted):
        hooks = Hooks(stop_asked=lambda: len(done) == 6, on_progress=lambda p: done.append(p.step))
        run(tmp_path / "cut", hooks=hooks, optim=optim)
    stored = load_file(tmp_path / "cut" / "step-00000007" / "optimizer.safetensors")
    assert {stored[key].dtype for key in stored if key.startswith("state1/")} == {torch.uint8, torch.float32}
    resumed, result = run(tmp_path / "cut", optim=optim)
    assert_same(weights(whole), weights(resumed))
    assert result.curve == expected.curve
    plain, _ = run(tmp_path / "plain")
    with pytest.raises(AssertionError):
        assert_same(weights(plain), weights(whole))


def test_dropout_resumes_with_the_same_random_numbers(tmp_path: Path) -> None:
    def fresh() -> Any:
        torch.manual_seed(5)
        return tiny_model("llama", VOCABULARY, attention=PACKED, attention_dropout=0.3, seed=5)

    whole, _ = run(tmp_path / "whole", model=fresh())
    done: list[int] = []
    with pytest.raises(Interrupted):
        hooks = Hooks(stop_asked=lambda: len(done) == 8, on_progress=lambda p: done.append(p.step))
        run(tmp_path / "cut", model=fresh(), hooks=hooks)
    torch.manual_seed(999)
    resumed, _ = run(
        tmp_path / "cut", model=tiny_model("llama", VOCABULARY, attention=PACKED, attention_dropout=0.3)
    )
    assert_same(weights(whole), weights(resumed))


def test_micro_batches_change_memory_and_nothing_else(tmp_path: Path) -> None:
    _, whole = run(tmp_path / "a", micro_batch_tokens=128)
    _, split = run(tmp_path / "b", micro_batch_tokens=24)
    for left, right in zip(whole.curve.train, split.curve.train, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-3)


def test_out_of_memory_halves_the_micro_batch_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = run(tmp_path / "a")
    real = loop.token_logprobs

    def hungry(model: Any, packed: Packed) -> torch.Tensor:
        if len(packed.tokens_T) > 40:
            raise torch.OutOfMemoryError("no room")
        return real(model, packed)

    monkeypatch.setattr(loop, "token_logprobs", hungry)
    _, result = run(tmp_path / "b")
    assert result.curve.events == ["step 0: out of memory, micro-batch now 32 tokens"]
    assert result.best_loss == pytest.approx(expected.best_loss, rel=1e-2)


def test_one_row_that_does_not_fit_ends_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: Any, packed: Packed) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(loop, "token_logprobs", full)
    with pytest.raises(BudgetError, match=r"one row of \d+ tokens does not fit into memory") as caught:
        run(tmp_path)
    assert caught.value.hint == "Lower sft.max_seq_len or sft.lora_r, or choose a smaller base."


def hungry_unless_recomputed(patch: pytest.MonkeyPatch) -> None:
    """No batch fits, however small, unless the blocks are computed again."""
    real = loop.token_logprobs

    def hungry(model: Any, packed: Packed) -> torch.Tensor:
        if not model.model.layers[0].gradient_checkpointing:
            raise torch.OutOfMemoryError("no room")
        return real(model, packed)

    patch.setattr(loop, "token_logprobs", hungry)


AGAIN = "step 0: out of memory, blocks are computed again in backward from now on (gradient checkpointing)"


def test_when_the_micro_batch_is_one_row_the_blocks_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        hungry_unless_recomputed(patch)
        model, result = run(tmp_path / "a", steps=4)
    *shrunk, last = result.curve.events
    assert last == AGAIN
    (longest,) = re.findall(r"micro-batch now (\d+) tokens", shrunk[-1])
    expected, kept = run(tmp_path / "b", steps=4, micro_batch_tokens=int(longest))
    assert kept.curve.events == []
    assert_same(weights(expected), weights(model))
    assert not expected.model.layers[0].gradient_checkpointing


def test_what_is_computed_again_stays_so_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(tmp_path / "whole", micro_batch_tokens=19)
    done: list[int] = []
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        hungry_unless_recomputed(patch)
        hooks = Hooks(stop_asked=lambda: len(done) == 2, on_progress=lambda p: done.append(p.step))
        run(tmp_path / "cut", hooks=hooks, micro_batch_tokens=19)
    hungry_unless_recomputed(monkeypatch)
    resumed, result = run(tmp_path / "cut", micro_batch_tokens=19)
    assert result.curve.events == [AGAIN]
    assert_same(weights(whole), weights(resumed))


def test_the_owner_decides_about_checkpointing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        hungry_unless_recomputed(patch)
        _, asked = run(tmp_path / "a", steps=4, gradient_checkpointing=True)
        assert asked.curve.events == []
        with pytest.raises(BudgetError, match=r"one row of \d+ tokens does not fit into memory"):
            run(tmp_path / "b", steps=4, gradient_checkpointing=False)
    model, _ = run(tmp_path / "c", steps=4, gradient_checkpointing=False)
    assert not model.model.layers[0].gradient_checkpointing
    monkeypatch.setattr(loop, "can_recompute", lambda _: False)
    with pytest.raises(ModelError, match="gradient_checkpointing: true, but the blocks of this model cannot"):
        run(tmp_path / "d", gradient_checkpointing=True)


def runs_short(
    patch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    *,
    after: int,
    first: Callable[..., Any] = lambda *_: None,
) -> Hooks:
    """Let `where.name` run out of memory once, when `after` steps are done; it calls `first` before it does."""
    real, done, failed = getattr(where, name), [0], []

    def hungry(*args: Any, **keys: Any) -> Any:
        if done[-1] == after and not failed:
            failed.append(name)
            first(*args)
            raise torch.OutOfMemoryError("no room")
        return real(*args, **keys)

    patch.setattr(where, name, hungry)
    return Hooks(on_progress=lambda progress: done.append(progress.step))


def short_of_memory_in_step_5(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, TrainResult]:
    with monkeypatch.context() as patch:
        return run(folder, hooks=runs_short(patch, loop, "token_logprobs", after=4))


def test_out_of_memory_while_clipping_is_met_like_any_other_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, like = short_of_memory_in_step_5(tmp_path / "a", monkeypatch)
    model, result = run(
        tmp_path / "b", hooks=runs_short(monkeypatch, torch.nn.utils, "get_total_norm", after=4)
    )
    assert_same(weights(expected), weights(model))
    assert result.curve == like.curve
    assert result.curve.events == ["step 4: out of memory, micro-batch now 32 tokens"]


def test_a_step_that_fails_half_way_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back to the checkpoint of step 4, and on from there as if memory had run out just then."""

    def tear(optimizer: torch.optim.Optimizer) -> None:
        parameter = optimizer.param_groups[0]["params"][0]
        parameter.data += 1.0
        for state in optimizer.state[parameter].values():
            state += 1.0

    expected, like = short_of_memory_in_step_5(tmp_path / "a", monkeypatch)
    model, result = run(
        tmp_path / "b", hooks=runs_short(monkeypatch, torch.optim.AdamW, "step", after=6, first=tear)
    )
    assert_same(weights(expected), weights(model))
    assert (result.curve.train, result.curve.held_out) == (like.curve.train, like.curve.held_out)
    assert (result.tokens, result.best_step) == (like.tokens, like.best_step)
    assert result.curve.events == [
        "step 6: out of memory in the optimiser, back to step 4, micro-batch now 32 tokens"
    ]


def test_the_first_step_can_fail_half_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = run(tmp_path / "a", micro_batch_tokens=32)
    model, result = run(tmp_path / "b", hooks=runs_short(monkeypatch, torch.optim.AdamW, "step", after=0))
    assert_same(weights(expected), weights(model))
    assert result.curve.events == [
        "step 0: out of memory in the optimiser, back to step 0, micro-batch now 32 tokens"
    ]


def test_the_held_out_loss_shrinks_the_micro_batch_and_keeps_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, expected = run(tmp_path / "a", micro_batch_tokens=32)
    hooks = runs_short(monkeypatch, logprobs, "token_logprobs", after=0)
    model, result = run(tmp_path / "b", hooks=hooks)
    assert_same(weights(plain), weights(model))
    assert result.curve.held_out == expected.curve.held_out
    assert result.curve.events == ["step 0: out of memory in the held-out loss, micro-batch now 32 tokens"]
    _, roomy = run(tmp_path / "c")
    assert result.first_loss == pytest.approx(roomy.first_loss, rel=1e-6)


def test_the_batch_of_the_held_out_loss_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory ran out once, before the kill: the resumed run has room, and measures as the whole one did."""
    with monkeypatch.context() as patch:
        whole, expected = run(tmp_path / "a", hooks=runs_short(patch, logprobs, "token_logprobs", after=0))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        hooks = replace(
            runs_short(patch, logprobs, "token_logprobs", after=0),
            stop_asked=lambda: (tmp_path / "b" / "step-00000004").exists(),
        )
        run(tmp_path / "b", hooks=hooks)
    model, result = run(tmp_path / "b")
    assert_same(weights(whole), weights(model))
    assert result.curve == expected.curve


def test_a_held_out_row_that_does_not_fit_ends_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: Any, packed: Packed) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(logprobs, "token_logprobs", full)
    with pytest.raises(BudgetError, match="one row of 19 tokens does not fit into memory"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (loop, "token_logprobs"),
        (torch.nn.utils, "get_total_norm"),
        (torch.optim.AdamW, "step"),
        (logprobs, "token_logprobs"),
        (torch, "zeros_like"),
    ],
    ids=["forward", "clip", "step", "held-out", "state"],
)
def test_another_runtime_error_is_not_taken_for_memory(
    where: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    model = tiny_model("llama", VOCABULARY, attention=PACKED)
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(tmp_path, model=model)


def poisoned(steps: set[int]) -> Callable[[torch.Tensor, Packed], Loss]:
    """An objective whose micro-batches of these calls are not a number."""
    calls = [0]

    def objective(logp_S: torch.Tensor, packed: Packed) -> Loss:
        calls[0] += 1
        loss = sft(logp_S, packed)
        return Loss(loss.total * float("nan"), loss.weight) if calls[0] in steps else loss

    return objective


def test_a_step_that_is_not_finite_is_skipped(tmp_path: Path) -> None:
    _, result = run(tmp_path, objective=poisoned({5}), micro_batch_tokens=128)
    assert result.curve.events == ["step 4: skipped, loss nan, gradient norm nan"]
    assert result.best_loss < result.first_loss


def test_three_in_a_row_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="training diverged: steps 4 to 6 had no finite loss"):
        run(tmp_path, objective=poisoned({5, 6, 7}), micro_batch_tokens=128)


def test_a_deadline_shortens_the_run_and_the_rate_lands_on_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    def tick(_: Progress) -> None:
        clock[0] += 1.0

    hooks = Hooks(seconds_left=lambda: 30.0 - clock[0], on_progress=tick)
    _, result = run(tmp_path, steps=200, hooks=hooks)
    assert 28 <= result.steps <= 36
    assert result.curve.train[-1]["learning_rate"] < 1e-3
    assert "ending after" in result.curve.events[0]


def test_a_deadline_that_is_far_away_changes_nothing(tmp_path: Path) -> None:
    _, result = run(tmp_path, hooks=Hooks(seconds_left=lambda: 1e9))
    assert result.steps == 20
    assert result.curve.events == []


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(loop.time, "monotonic", lambda: self.now)

    def takes(self, *seconds: float) -> Callable[[torch.Tensor, Packed], Loss]:
        """An objective whose calls take so long, the last figure being that of all that follow."""
        calls = iter(seconds)

        def objective(logp_S: torch.Tensor, packed: Packed) -> Loss:
            self.now += next(calls, seconds[-1])
            return sft(logp_S, packed)

        return objective

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def test_steps_of_minutes_are_forecast_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    hooks = Hooks(seconds_left=lambda: 350.0 - clock.now)
    _, result = run(tmp_path, objective=clock.takes(100.0), hooks=hooks, micro_batch_tokens=128)
    assert (result.steps, clock.now) == (3, 300.0)
    assert result.curve.events == ["step 2: 18 steps would take 1800 s, 150 s are left: ending after 1 more"]


def test_a_first_step_that_is_slow_shortens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    hooks = Hooks(seconds_left=lambda: 100.0 - clock.now)
    _, result = run(tmp_path, objective=clock.takes(30.0, 1.0), hooks=hooks, micro_batch_tokens=128)
    assert (result.steps, result.curve.events) == (20, [])


def test_when_no_time_is_left_it_ends_now(tmp_path: Path) -> None:
    _, result = run(tmp_path, hooks=Hooks(seconds_left=lambda: -7.0))
    assert result.steps == 1
    assert result.best_step in (0, 1)
    (event,) = result.curve.events
    assert event.endswith(", 0 s are left: ending after 0 more")


def test_held_out_losses_to_come_are_part_of_the_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    _, result = run(
        tmp_path,
        steps=200,
        objective=clock.takes(1.0),
        hooks=Hooks(seconds_left=lambda: 120.0 - clock.now),
        before_held_out=lambda: clock.pass_by(20.0),
        micro_batch_tokens=128,
        eval_steps=10,
    )
    # 20 s before the first step, then 10 s of steps and 20 s of held-out loss at a time
    assert (result.steps, clock.now) == (30, 110.0)


def test_a_resumed_run_knows_what_a_held_out_loss_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    keys: dict[str, Any] = {
        "objective": clock.takes(1.0),
        "before_held_out": lambda: clock.pass_by(20.0),
        "micro_batch_tokens": 128,
        "eval_steps": 10,
    }
    with pytest.raises(Interrupted):
        run(tmp_path, hooks=Hooks(stop_asked=lambda: clock.now == 24.0), **keys)
    _, result = run(tmp_path, hooks=Hooks(seconds_left=lambda: 69.0 - clock.now), **keys)
    assert (result.steps, clock.now) == (10, 50.0)  # the next held-out loss would have ended at 71
