"""Reinforcement: policy gradients of sampled answers, clipped, held to a reference, corrected for the sampling.

All take log p of the answers' tokens, as the model has it now, and what is known of the answers since they were
sampled. Ratios are to the policy as it was when the step began; what was sampled by a policy that was not quite the
same (another kernel, another rounding, a cut of the unlikely) is weighted by the ratio of the two, truncated from
above (Ionides 2008; for rollouts of another engine Yao et al. 2025, "Your efficient RL framework secretly brings you
off-policy RL training").

N answers · S tokens of answers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from nomoat.data.pack import Packed
from nomoat.train.objectives import Loss


@dataclass(frozen=True)
class Rolled:
    """What is known of a pack of sampled answers; no gradient goes through any of it. All float32.

    Attributes:
        advantage_S: of every token; in `rloo` that of its answer.
        sampled_S: log p with which the token was drawn.
        old_S: log p under the policy as the step began; None: as it is now.
        reference_S: log p under the reference; None where nothing is held to one.
        value_S, return_S: of `gae`, for `value_loss`.
    """

    advantage_S: torch.Tensor
    sampled_S: torch.Tensor
    old_S: torch.Tensor | None = None
    reference_S: torch.Tensor | None = None
    value_S: torch.Tensor | None = None
    return_S: torch.Tensor | None = None


Mean = Literal["answer", "token", "constant"]


def grpo(
    logp_S: torch.Tensor,
    packed: Packed,
    rolled: Rolled,
    *,
    beta: float = 0.0,
    epsilon: float = 0.2,
    epsilon_high: float = 0.2,
    mean: Mean = "answer",
    max_new_tokens: int = 1,
    truncate: float = 2.0,
    entropy: float = 0.0,
) -> Loss:
    """-min(ρ·A, clip(ρ, 1-ε, 1+ε_high)·A)·w + β·ρ·(e^d - d - 1) a token, ρ = p/p_old, d = log p_ref - log p (GRPO, Shao
    et al. 2024, arXiv:2402.03300, equations 3 and 4), w = min(p_old/p_sampled, `truncate`). The ρ before the KL makes
    its gradient that of the reverse KL (DeepSeek-V3.2, 2025, arXiv:2512.02556; TRL's default too).

    Args:
        epsilon_high: larger than ε lets unlikely tokens rise (DAPO's clip-higher, arXiv:2503.14476, equation 10).
        mean: "answer": within each answer, then over answers (GRPO); "token": over all tokens (DAPO, equation 12);
            "constant": sum over N·`max_new_tokens`, with no length in it (Dr. GRPO, arXiv:2503.20783, section 3.2).
        entropy: weight of the entropy that is added to the objective. Its gradient -E[log p·∇log p] is estimated
            from the tokens that were drawn.
    """
    old_S = logp_S.detach() if rolled.old_S is None else rolled.old_S
    ratio_S = torch.exp(logp_S - old_S)
    loss_S = _clipped(ratio_S, rolled.advantage_S, epsilon, epsilon_high)
    loss_S = loss_S * torch.exp(old_S - rolled.sampled_S).clamp(max=truncate)
    if beta:
        assert rolled.reference_S is not None
        d_S = rolled.reference_S - logp_S
        loss_S = loss_S + beta * ratio_S * (torch.exp(d_S) - d_S - 1)
    if entropy:
        loss_S = loss_S + entropy * logp_S.detach() * logp_S
    loss_S = loss_S * packed.weights_S
    count = _answers(packed)
    if mean == "answer":
        tokens_N = _sums(packed.weights_S, packed).clamp(min=1)
        return Loss((loss_S / tokens_N[packed.row_S]).sum(), torch.tensor(float(count)))
    if mean == "token":
        return Loss(loss_S.sum(), packed.weights_S.sum())
    return Loss(loss_S.sum(), torch.tensor(float(count * max_new_tokens)))


def rloo(
    logp_S: torch.Tensor,
    packed: Packed,
    rolled: Rolled,
    *,
    epsilon: float = 0.2,
    epsilon_high: float = 0.2,
    truncate: float = 2.0,
    entropy: float = 0.0,
) -> Loss:
    """-min(ρ·A, clip(ρ)·A)·w an answer, where ρ and w are ratios of whole answers: REINFORCE with the leave-one-out
    baseline, which holds the KL to the reference already, in its rewards (Ahmadian et al. 2024, arXiv:2402.14740,
    equations 2 and 7; clipped as in TRL). `entropy` as in `grpo`, over the tokens of an answer."""
    old_S = logp_S.detach() if rolled.old_S is None else rolled.old_S
    ratio_N = torch.exp(_sums(logp_S - old_S, packed))
    tokens_N = _sums(packed.weights_S, packed).clamp(min=1)
    advantage_N = _sums(rolled.advantage_S, packed) / tokens_N
    loss_N = _clipped(ratio_N, advantage_N, epsilon, epsilon_high)
    loss_N = loss_N * torch.exp(_sums(old_S - rolled.sampled_S, packed)).clamp(max=truncate)
    if entropy:
        loss_N = loss_N + entropy * _sums(logp_S.detach() * logp_S, packed)
    return Loss(loss_N.sum(), torch.tensor(float(_answers(packed))))


def best_of_n(logp_S: torch.Tensor, packed: Packed, rolled: Rolled) -> Loss:
    """-A·log p, a mean over the tokens of the answers that were kept (A is 1, of all others 0): supervised fine-tuning
    on the best of several samples (RAFT, Dong et al. 2023, arXiv:2304.06767, algorithm 1)."""
    kept_S = rolled.advantage_S * packed.weights_S
    return Loss(-(kept_S * logp_S).sum(), kept_S.sum())


def ppo(
    logp_S: torch.Tensor,
    packed: Packed,
    rolled: Rolled,
    *,
    epsilon: float = 0.2,
    truncate: float = 2.0,
    entropy: float = 0.0,
) -> Loss:
    """-min(ρ·A, clip(ρ, 1-ε, 1+ε)·A)·w, a mean over tokens (Schulman et al. 2017, arXiv:1707.06347, equation 7), with
    the advantages of `gae`; the KL to the reference is in their rewards. `value_loss` goes with it."""
    return grpo(
        logp_S,
        packed,
        rolled,
        epsilon=epsilon,
        epsilon_high=epsilon,
        mean="token",
        truncate=truncate,
        entropy=entropy,
    )


def value_loss(values_S: torch.Tensor, packed: Packed, rolled: Rolled, *, clip: float = 0.2) -> Loss:
    """½·max((V - R)², (clip(V, V_old ± c) - R)²), a mean over tokens (the authors' code of PPO; arXiv:2203.02155)."""
    assert rolled.value_S is not None
    assert rolled.return_S is not None
    near_S = rolled.value_S + (values_S - rolled.value_S).clamp(-clip, clip)
    worse_S = torch.maximum((values_S - rolled.return_S).square(), (near_S - rolled.return_S).square())
    return Loss((0.5 * worse_S * packed.weights_S).sum(), packed.weights_S.sum())


@torch.no_grad()
def telemetry(
    logp_S: torch.Tensor,
    packed: Packed,
    rolled: Rolled,
    *,
    epsilon: float,
    epsilon_high: float,
    truncate: float,
) -> dict[str, float]:
    """Sums over the tokens, to be divided by "tokens".

    "kl" is to the reference and "sampling_kl" from the sampling policy to the policy, both e^d - d - 1 (Schulman 2020),
    "sampling_ratio" the mean of p_old/p_sampled before truncation and "truncated" how often it was truncated;
    "entropy" is -log p, "clipped" how often a ratio is beyond what its advantage may use.
    """
    old_S = logp_S if rolled.old_S is None else rolled.old_S
    ratio_S, correction_S = torch.exp(logp_S - old_S), torch.exp(old_S - rolled.sampled_S)
    clipped_S = ((ratio_S > 1 + epsilon_high) & (rolled.advantage_S > 0)) | (
        (ratio_S < 1 - epsilon) & (rolled.advantage_S < 0)
    )
    terms = {
        "tokens": torch.ones_like(logp_S),
        "entropy": -rolled.sampled_S,
        "clipped": clipped_S.float(),
        "sampling_ratio": correction_S,
        "sampling_kl": correction_S - (old_S - rolled.sampled_S) - 1,
        "truncated": (correction_S > truncate).float(),
    }
    if rolled.reference_S is not None:
        d_S = rolled.reference_S - old_S
        terms["kl"] = torch.exp(d_S) - d_S - 1
    return {name: float(term_S.double().sum()) for name, term_S in terms.items()}


def _clipped(
    ratio: torch.Tensor, advantage: torch.Tensor, epsilon: float, epsilon_high: float
) -> torch.Tensor:
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon_high) * advantage)


def _answers(packed: Packed) -> int:
    return sum(parent >= 0 for parent in packed.segments.prefix)


def _sums(values_S: torch.Tensor, packed: Packed) -> torch.Tensor:
    """[N]: sums over the tokens of each answer that count."""
    zeros_N = torch.zeros(_answers(packed), dtype=values_S.dtype, device=values_S.device)
    return zeros_N.index_add(0, packed.row_S, values_S * packed.weights_S)
