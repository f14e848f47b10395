"""Will what the night writes fit on the disk?"""

from __future__ import annotations

from pathlib import Path

import torch

from nomoat.model.load import Machine, count_parameters, read_shape
from nomoat.model.merge import merge_dtype
from nomoat.night.forecast import keeps_frozen
from nomoat.night.recipes import adapter_keys
from nomoat.night.units import size
from nomoat.plan.cost import adapter_share, disk_bytes
from nomoat.recipe import Recipe


def lack_of_disk(
    recipe: Recipe, base: Path, machine: Machine, train_tokens: int, free_bytes: int
) -> str | None:
    """A sentence where fine-tuning this base on so many tokens will write more than `free_bytes`, else None."""
    adapter, parameters = adapter_keys(recipe), count_parameters(base)
    if adapter["method"] == "lora":
        share = adapter_share(adapter["lora_r"], read_shape(base).width)
        dtype = merge_dtype(parameters, machine.dtype)
    else:
        share, dtype = 1.0, torch.float32
    types = (*recipe.quantize.types, recipe.quantize.serve)  # the base's own file is made too
    needed = disk_bytes(parameters, round(share * parameters), weight_bytes=dtype.itemsize, types=types)
    if recipe.sft and keeps_frozen(recipe.sft):
        needed += 2.0 * train_tokens * read_shape(base).width
    if needed <= free_bytes:
        return None
    return (
        f"the disk: this night writes about {size(needed)} and {size(free_bytes)} are free: free some space, or "
        "name fewer quantize.types"
    )
