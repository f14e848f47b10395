"""AdamW, with its memory taken before the first step."""

from __future__ import annotations

import torch

from nomoat.errors import BudgetError
from nomoat.model.memory import out_of_memory
from nomoat.train.checkpoint import Named


def adamw(named: Named, *, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """The optimiser of these weights, at a rate of 0 until the loop sets one.

    Its state is made here and not by the first step, so that a step works in place and asks for no memory of
    its own. Raises BudgetError when the state does not fit.
    """
    matrices = [p for p in named.values() if p.dim() >= 2]
    vectors = [p for p in named.values() if p.dim() < 2]  # norms and biases do not decay
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=0.0, betas=betas, fused=True
    )
    try:
        for parameter in named.values():
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        weights = sum(p.numel() for p in named.values())
        needed_bytes = 2 * sum(p.nbytes for p in named.values())
        raise BudgetError(
            f"the optimiser does not fit into memory beside the model: for {weights:,} trained weights it keeps "
            f"{needed_bytes / 2**20:,.1f} MiB",
            hint="Train fewer weights: sft.method: lora instead of full, a lower sft.lora_r, or a smaller base "
            "(of your own: a smaller pretrain.hidden_size).",
        ) from error
    return optimizer
