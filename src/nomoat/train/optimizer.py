"""AdamW, with its memory taken before the first step; its moments in 32 bits or, through bitsandbytes, in 8."""

from __future__ import annotations

from typing import Any

import torch

from nomoat.errors import BudgetError
from nomoat.model.memory import out_of_memory
from nomoat.plan.cost import MOMENT_BYTES
from nomoat.train.checkpoint import Named


def adamw(
    named: Named, *, weight_decay: float, betas: tuple[float, float], optim: str = "adamw_torch"
) -> torch.optim.Optimizer:
    """The optimiser of these weights, at a rate of 0 until the loop sets one.

    `optim` is the recipe's: "adamw_torch", or "adamw_8bit" or "paged_adamw_8bit" (Dettmers et al. 2021,
    arXiv:2110.02861), whose paged moments may leave a GPU's memory. Its state is made here and not by the first step,
    so that a step works in place and asks for no memory of its own. Raises BudgetError when the state does not fit.
    """
    matrices = [p for p in named.values() if p.dim() >= 2]
    vectors = [p for p in named.values() if p.dim() < 2]  # norms and biases do not decay
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    try:
        if optim == "adamw_torch":
            return _in_32_bits(groups, betas)
        return _in_8_bits(groups, betas, paged=optim == "paged_adamw_8bit")
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        weights = sum(p.numel() for p in named.values())
        raise BudgetError(
            f"the optimiser does not fit into memory beside the model: for {weights:,} trained weights it keeps "
            f"{weights * MOMENT_BYTES[optim] / 2**20:,.1f} MiB",
            hint="Train fewer weights: sft.method: lora instead of full, a lower sft.lora_r, or a smaller base "
            "(of your own: a smaller pretrain.hidden_size).",
        ) from error


def _in_32_bits(groups: list[dict[str, Any]], betas: tuple[float, float]) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return optimizer


def _in_8_bits(
    groups: list[dict[str, Any]], betas: tuple[float, float], *, paged: bool
) -> torch.optim.Optimizer:
    """bitsandbytes' AdamW; moments of tensors below 4,096 numbers stay in 32 bits."""
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    optimizer: Any = (PagedAdamW8bit if paged else AdamW8bit)(groups, lr=0.0, betas=betas)
    for at, group in enumerate(optimizer.param_groups):
        for position, parameter in enumerate(group["params"]):
            optimizer.init_state(group, parameter, at, position)
    made: torch.optim.Optimizer = optimizer
    return made
