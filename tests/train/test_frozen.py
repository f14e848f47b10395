"""Training above frozen blocks, whose outputs were computed once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import tiny_model
from helpers.rows import Listed
from nomoat.data.pack import Packed, RowsBelow, pack, pack_rows
from nomoat.errors import BudgetError
from nomoat.model.adapters import add_lora
from nomoat.model.attention import PACKED
from nomoat.model.fused import blocks
from nomoat.model.fused.families import fuse
from nomoat.model.fused.parts import below, frozen_blocks
from nomoat.model.logprobs import row_losses, token_logprobs
from nomoat.train import frozen
from nomoat.train.frozen import rows_below
from nomoat.train.hooks import Hooks, Interrupted
from parity.test_logprobs import VOCABULARY, random_rows


def adapted_on_top(family: str = "llama", top: int = 1) -> Any:
    model = tiny_model(family, VOCABULARY, attention=PACKED, num_hidden_layers=3, sliding_window=None)
    fuse(model)
    model = add_lora(
        model,
        lora_r=4,
        lora_alpha=8.0,
        lora_dropout=0.0,
        target_modules="all-linear",
        seed=0,
        lora_layers=top,
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("top", [1, 2, 3])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "phi3"])
def test_beginning_above_the_frozen_blocks_changes_nothing(family: str, top: int) -> None:
    model = adapted_on_top(family, top)
    assert frozen_blocks(model) == 3 - top
    packed = pack(random_rows(7))
    whole = token_logprobs(model, packed)
    whole.mean().backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert len(expected) == top * 2 * (4 if family == "phi3" else 7)
    model.zero_grad()
    cached = token_logprobs(model, replace(packed, below_TH=below(model, packed)))
    cached.mean().backward()
    torch.testing.assert_close(cached, whole, atol=1e-5, rtol=0)
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-4)


def test_where_the_embeddings_or_all_blocks_train_there_is_nothing_to_keep() -> None:
    assert frozen_blocks(tiny_model("llama", VOCABULARY, attention=PACKED)) == 0
    model = adapted_on_top(top=1)
    model.get_input_embeddings().weight.requires_grad_(True)
    assert frozen_blocks(model) == 0
    assert frozen_blocks(tiny_model("gemma", VOCABULARY, attention=PACKED).requires_grad_(False)) == 0


def cache(model: Any, rows: Listed, folder: Path, hooks: Hooks | None = None) -> RowsBelow:
    return rows_below(model, rows, folder, batch_tokens=40, device="cpu", hooks=hooks or Hooks())


def test_rows_from_the_disk_are_those_in_memory_but_for_rounding(tmp_path: Path) -> None:
    model, rows = adapted_on_top(), Listed(random_rows(7))
    kept = cache(model, rows, tmp_path)
    assert (tmp_path / "below.bin").stat().st_size == 2 * 64 * int(rows.lengths.sum())
    for which in ([0], [3, 1], [4, 0, 2]):
        got = pack_rows(kept, which).below_TH
        expected = below(model, pack_rows(rows, which)).to(torch.bfloat16)
        torch.testing.assert_close(got, expected, atol=0.02, rtol=0.02)
    assert row_losses(model, kept, batch_tokens=100).mean == pytest.approx(
        row_losses(model, rows, batch_tokens=100).mean, rel=0.01
    )


def test_they_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = adapted_on_top(), Listed(random_rows(7))
    first = cache(model, rows, tmp_path)
    monkeypatch.setattr(blocks.Attend, "apply", None)
    again = cache(model, rows, tmp_path)
    assert all(np.array_equal(first.below(i), again.below(i)) for i in range(len(rows)))


def test_a_computation_that_was_cut_off_begins_anew(tmp_path: Path) -> None:
    model, rows, asked = adapted_on_top(), Listed(random_rows(7)), iter([False, True])
    with pytest.raises(Interrupted, match="while computing the frozen blocks"):
        cache(model, rows, tmp_path, Hooks(stop_asked=lambda: next(asked)))
    size = (tmp_path / "below.bin").stat().st_size
    assert 0 < size < 2 * 64 * int(rows.lengths.sum())
    assert len(cache(model, rows, tmp_path)) == len(rows)
    assert (tmp_path / "below.bin").stat().st_size > size


def test_a_file_that_was_cut_short_is_not_believed(tmp_path: Path) -> None:
    model, rows = adapted_on_top(), Listed(random_rows(7))
    whole = cache(model, rows, tmp_path).below(4).copy()
    with (tmp_path / "below.bin").open("r+b") as file:
        file.truncate(100)
    assert np.array_equal(cache(model, rows, tmp_path).below(4), whole)


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows, sizes = adapted_on_top(), Listed(random_rows(7)), list[int]()

    def hungry(model: Any, packed: Packed) -> torch.Tensor:
        sizes.append(len(packed.tokens_T))
        if sizes[-1] > 70:
            raise torch.OutOfMemoryError("no room")
        return below(model, packed)

    monkeypatch.setattr(frozen, "below", hungry)
    kept = rows_below(model, rows, tmp_path, batch_tokens=1000, device="cpu", hooks=Hooks())
    assert len(kept.below(4)) == rows.lengths[4]
    assert max(sizes) > 70 >= sizes[-1]


def test_the_time_can_be_over_before_the_first_step(tmp_path: Path) -> None:
    left, shares = iter([5.0, 0.0]), list[float]()
    hooks = Hooks(seconds_left=lambda: next(left), on_preparation=shares.append)
    with pytest.raises(BudgetError, match="the time was over when the frozen blocks had read 1 of 5 rows"):
        cache(adapted_on_top(), Listed(random_rows(7)), tmp_path, hooks)
    assert shares == [0.0]
