"""From rewards to advantages: by how much an answer, or a token of one, was better than what was to be expected.

P prompts · G answers to each · L tokens of one answer. A reward of NaN is one that could not be told: its answer has
the advantage 0 and counts in no mean.
"""

from __future__ import annotations

import torch


def group_relative(rewards_PG: torch.Tensor, *, scale: bool) -> torch.Tensor:
    """(r - mean) / (std + 1e-4) within each group, [P, G] (GRPO, Shao et al. 2024, arXiv:2402.03300, section 4.1.2).

    Without `scale` the division is left out, so that groups on which the model nearly always succeeds or fails do not
    weigh more than others (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783, section 3.2).
    """
    mean_P1 = rewards_PG.nanmean(1, keepdim=True)
    advantage_PG = rewards_PG - mean_P1
    if scale:
        count_P1 = (~rewards_PG.isnan()).sum(1, keepdim=True)
        variance_P1 = advantage_PG.square().nansum(1, keepdim=True) / (count_P1 - 1).clamp(min=1)
        advantage_PG = advantage_PG / (variance_P1.sqrt() + 1e-4)
    return advantage_PG.nan_to_num(nan=0.0)


def leave_one_out(rewards_PG: torch.Tensor) -> torch.Tensor:
    """r minus the mean of the group's other rewards, [P, G]: an unbiased baseline (RLOO, Ahmadian et al. 2024,
    arXiv:2402.14740, equation 7). An answer without others that were scored has the advantage 0."""
    count_P1 = (~rewards_PG.isnan()).sum(1, keepdim=True)
    others_PG = (rewards_PG.nansum(1, keepdim=True) - rewards_PG) / (count_P1 - 1)
    return (rewards_PG - others_PG).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def best_of(rewards_PG: torch.Tensor) -> torch.Tensor:
    """1 for the answer of each group with the highest reward, the first of equals, and 0 for the others, [P, G]; all 0
    where every reward is the same or only one is known, for there the best is no better than the rest."""
    known_PG = ~rewards_PG.isnan()
    low_P1 = rewards_PG.masked_fill(~known_PG, float("inf")).amin(1, keepdim=True)
    best_P1 = rewards_PG.masked_fill(~known_PG, float("-inf")).argmax(1, keepdim=True)
    kept_PG = torch.zeros_like(rewards_PG).scatter_(1, best_P1, 1.0)
    return kept_PG * (rewards_PG.gather(1, best_P1) > low_P1)


def gae(
    rewards_L: torch.Tensor, values_L: torch.Tensor, *, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of the tokens of one answer, both [L] (Schulman et al. 2015, arXiv:1506.02438, equation
    16): A_t = δ_t + γλ·A_(t+1) with δ_t = r_t + γ·V_(t+1) - V_t, nothing after the last; returns are A + V."""
    advantages = torch.zeros_like(values_L)
    following = torch.zeros((), dtype=values_L.dtype)
    next_value = torch.zeros((), dtype=values_L.dtype)
    for at in range(len(values_L) - 1, -1, -1):
        delta = rewards_L[at] + gamma * next_value - values_L[at]
        following = delta + gamma * lam * following
        advantages[at] = following
        next_value = values_L[at]
    return advantages, advantages + values_L


def overlong_penalty(tokens: int, *, most: int, buffer: int) -> float:
    """0 up to `most - buffer` tokens, falling to -1 at `most` (DAPO's soft overlong punishment, Yu et al. 2025,
    arXiv:2503.14476, equation 13)."""
    return -min(1.0, max(0.0, (tokens - (most - buffer)) / buffer))
