from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import tiny_model
from helpers.rows import counting_rows
from nomoat.data.pack import Packed
from nomoat.errors import BudgetError
from nomoat.model import logprobs
from nomoat.model.attention import PACKED
from nomoat.model.logprobs import row_losses
from nomoat.model.memory import Room, smaller_batch, thriftier

VOCABULARY = 40


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
    ids=["gpu", "cpu"],
)
def test_half_of_the_batch_but_room_for_a_row(error: RuntimeError) -> None:
    assert smaller_batch(error, 1000, 20) == 500
    assert smaller_batch(error, 30, 20) == 20
    with pytest.raises(BudgetError, match="one row of 20 tokens does not fit into memory") as caught:
        smaller_batch(error, 20, 20)
    assert caught.value.__cause__ is error


def test_when_the_batch_is_one_row_the_blocks_are_computed_again() -> None:
    error = torch.OutOfMemoryError("no room")
    kept, again = Room(30, recompute=False), Room(20, recompute=True)
    assert thriftier(error, kept, 20, may_recompute=True) == Room(20, recompute=False)
    assert thriftier(error, Room(20, recompute=False), 20, may_recompute=True) == again
    for room, may_recompute in ((again, True), (Room(20, recompute=False), False)):
        with pytest.raises(BudgetError, match="one row of 20 tokens does not fit into memory"):
            thriftier(error, room, 20, may_recompute=may_recompute)


def test_another_error_stays_what_it_is() -> None:
    error = RuntimeError("shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as caught:
        smaller_batch(error, 1000, 20)
    assert caught.value is error
    with pytest.raises(RuntimeError) as caught:
        thriftier(error, Room(20, recompute=False), 20, may_recompute=True)
    assert caught.value is error


def test_what_filled_the_memory_is_free_when_the_cache_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def fail() -> None:
        activations = torch.zeros(8)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[0]() is not None))
    try:
        fail()
    except RuntimeError as error:
        smaller_batch(error, 1000, 20)
    assert alive == [False]


def test_row_losses_are_those_of_the_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = counting_rows(20, VOCABULARY, seed=2)
    model = tiny_model("llama", VOCABULARY, attention=PACKED).train()
    expected = row_losses(model, rows, batch_tokens=50)
    real, sizes = logprobs.token_logprobs, list[int]()

    def hungry(model: Any, packed: Packed) -> torch.Tensor:
        assert not model.training
        sizes.append(len(packed.tokens_T))
        if (
            len(sizes) > 1 and sizes[-1] > 50
        ):  # the first batch fits, so that some rows are done before it fails
            raise torch.OutOfMemoryError("no room")
        return real(model, packed)

    monkeypatch.setattr(logprobs, "token_logprobs", hungry)
    losses = row_losses(model, rows, batch_tokens=100)
    assert max(sizes[:2]) > 50
    assert (losses.batch_tokens, expected.batch_tokens) == (50, 50)
    np.testing.assert_array_equal(losses.nll_N, expected.nll_N)
    np.testing.assert_array_equal(losses.tokens_N, expected.tokens_N)
    assert model.training


def test_a_row_that_does_not_fit_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = counting_rows(20, VOCABULARY, seed=2)
    model = tiny_model("llama", VOCABULARY, attention=PACKED).train()

    def full(model: Any, packed: Packed) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(logprobs, "token_logprobs", full)
    with pytest.raises(BudgetError, match=f"one row of {rows.lengths.max()} tokens does not fit into memory"):
        row_losses(model, rows, batch_tokens=100)
    assert model.training
