from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.data.pack import Segments, StepPlan, fill, pack, pack_groups


def row(*tokens: int, trained: str) -> tuple[np.ndarray, np.ndarray]:
    return np.array(tokens, dtype=np.uint32), np.array([letter == "x" for letter in trained])


def test_pack_lays_rows_end_to_end_and_points_each_target_at_its_predecessor() -> None:
    packed = pack([row(5, 6, 7, trained=".xx"), row(8, 9, trained="xx")])
    assert packed.tokens_T.tolist() == [5, 6, 7, 8, 9]
    assert packed.positions_T.tolist() == [0, 1, 2, 0, 1]
    assert packed.segments == Segments((0, 3, 5), (-1, -1))
    assert packed.targets_S.tolist() == [6, 7, 9]  # 8 begins a row: nothing predicts it
    assert packed.source_S.tolist() == [0, 1, 3]
    assert packed.row_S.tolist() == [0, 0, 1]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(10, 100))
def test_fill_keeps_order_and_budget(lengths: list[int], budget: int) -> None:
    runs = fill(range(len(lengths)), np.array(lengths), budget)
    assert [row for run in runs for row in run] == list(range(len(lengths)))
    for run in runs:
        assert len(run) == 1 or sum(lengths[row] for row in run) <= budget


def test_step_plan_reads_every_row_once_an_epoch_and_is_a_function_of_its_seed() -> None:
    lengths = np.random.default_rng(1).integers(3, 40, 200)
    plan = StepPlan(lengths, tokens_per_step=100, epochs=2, max_steps=None, seed=3)
    rows = [row for step in plan.steps for row in step]
    assert sorted(rows[:200]) == sorted(rows[200:]) == list(range(200))
    assert rows[:200] != rows[200:]
    again = StepPlan(lengths, tokens_per_step=100, epochs=2, max_steps=None, seed=3)
    other = StepPlan(lengths, tokens_per_step=100, epochs=2, max_steps=None, seed=4)
    assert again.steps == plan.steps
    assert other.steps != plan.steps


@pytest.mark.parametrize(("epochs", "share"), [(0.5, 0.5), (1.25, 1.25)])
def test_step_plan_takes_a_fraction_of_an_epoch(epochs: float, share: float) -> None:
    lengths = np.full(100, 10)
    one = len(StepPlan(lengths, tokens_per_step=50, epochs=1, max_steps=None, seed=0))
    assert len(StepPlan(lengths, tokens_per_step=50, epochs=epochs, max_steps=None, seed=0)) == share * one


@pytest.mark.parametrize("epochs", [0.4, 3.0, 1000.0])
@pytest.mark.parametrize("max_steps", [1, 3, 4, 7, 8, 9])
def test_a_step_plan_that_ends_early_is_the_beginning_of_the_whole(epochs: float, max_steps: int) -> None:
    lengths = np.full(20, 10)
    whole = StepPlan(lengths, tokens_per_step=50, epochs=min(epochs, 9.0), max_steps=None, seed=0)
    assert len(StepPlan(lengths, tokens_per_step=50, epochs=1, max_steps=None, seed=0)) == 4
    cut = StepPlan(lengths, tokens_per_step=50, epochs=epochs, max_steps=max_steps, seed=0)
    assert cut.steps == whole.steps[:max_steps]


def test_a_step_plan_makes_no_epoch_that_it_does_not_need(monkeypatch: pytest.MonkeyPatch) -> None:
    real, epochs = np.random.default_rng, list[int]()

    def counted(seed: list[int]) -> np.random.Generator:
        epochs.append(seed[1])
        return real(seed)

    monkeypatch.setattr(np.random, "default_rng", counted)
    plan = StepPlan(np.full(20, 10), tokens_per_step=50, epochs=1000, max_steps=8, seed=0)
    assert (len(plan), epochs) == (8, [0, 1])


def test_a_prompt_stands_once_before_its_answers() -> None:
    a, b = np.array([5, 6, 7], np.uint32), np.array([8, 9], np.uint32)
    packed = pack_groups([(a, [np.array([1, 2], np.uint32), np.array([3], np.uint32)]), (b, [a])])
    assert packed.tokens_T.tolist() == [5, 6, 7, 1, 2, 3, 8, 9, 5, 6, 7]
    assert packed.positions_T.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2, 3, 4]
    assert packed.segments == Segments((0, 3, 5, 6, 8, 11), (-1, 0, 0, -1, 3))
    assert packed.source_S.tolist() == [2, 3, 2, 7, 8, 9]
    assert packed.targets_S.tolist() == [1, 2, 3, 5, 6, 7]
    assert packed.row_S.tolist() == [0, 0, 1, 2, 2, 2]
