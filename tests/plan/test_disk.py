"""How much disk a night takes: the estimate against files that were really written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nomoat.model.load import Machine, count_parameters, resolve_base
from nomoat.night.disk import lack_of_disk
from nomoat.plan.cost import GGUF_BYTES, disk_bytes
from nomoat.quantize.convert import to_gguf
from nomoat.quantize.mixture import MIXTURES
from nomoat.recipe import Recipe
from nomoat.recipe_training import Sft
from nomoat.train.checkpoint import CheckpointFolder


def test_it_is_a_sum_over_checkpoints_model_and_files() -> None:
    only_model = disk_bytes(1000, 0, weight_bytes=4, types=())
    assert only_model == 4000
    assert disk_bytes(1000, 0, weight_bytes=2, types=("F32", "F16")) == 2000 + 4000 + 2000
    assert disk_bytes(1000, 10, weight_bytes=4, types=()) == only_model + 480


def test_what_frozen_blocks_make_is_kept_too_where_it_is_read_again(tmp_path: Path) -> None:
    base, machine = resolve_base("embedded", tmp_path), Machine("cpu", torch.float32)

    def fits(free_bytes: float, **sft: object) -> bool:
        recipe = Recipe(sft=Sft(**sft))
        return lack_of_disk(recipe, base, machine, 10_000_000, round(free_bytes)) is None

    without, kept = 90e6, 2.0 * 10_000_000 * 256
    assert fits(without)
    assert not fits(without, lora_layers=2)
    assert fits(without + kept, lora_layers=2)
    assert fits(without, lora_layers=2, frozen_cache=False)
    assert fits(without, lora_layers=2, num_train_epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("type", MIXTURES)
def test_files_are_as_large_as_they_are_said_to_be(type: str, tmp_path: Path) -> None:
    base = resolve_base("embedded", tmp_path)
    written = to_gguf(base, tmp_path / "base.gguf", type=type).bytes  # type: ignore[arg-type]
    said = GGUF_BYTES[type] * count_parameters(base)
    assert said == pytest.approx(
        written, rel=0.04
    )  # norms in float32 and the vocabulary count more in a small model


def test_checkpoints_take_no_more_than_is_said(tmp_path: Path) -> None:
    named = {"weight": torch.nn.Parameter(torch.randn(100, 1000))}
    optimizer = torch.optim.AdamW(named.values())
    named["weight"].grad = torch.ones(100, 1000)
    optimizer.step()
    folder = CheckpointFolder(tmp_path)
    largest = 0
    for step in range(1, 7):
        folder.save_best(step, named)
        folder.save(step, named, optimizer, {"best_step": step})
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")))
    said = disk_bytes(0, 100_000, weight_bytes=4, types=())
    # for an instant, before the oldest goes, there is one more of each than the folder holds afterwards
    assert largest == pytest.approx(said * 2 / 3, rel=0.02)
