"""Attention within segments and to their prefixes, forward and backward, in place of autograd's slices and copies.

Uses the processor's flash attention (Dao et al. 2022, arXiv:2205.14135), which keeps a number a query and head
instead of a row of scores. Neighbouring segments of one length are one call. A segment that goes on from a prefix
makes two, one to itself and one to the prefix; their outputs are weighed by those numbers, so the prefix is
neither copied nor masked.

T tokens · N query heads · K key/value heads · D head width · B segments of one call · L their length
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch

from nomoat.data.pack import Segments


@dataclass(frozen=True)
class Call:
    """`count` segments of `length` tokens from `start` on, which see themselves causally, or, with `seen`, all of those
    tokens (from, to) and nothing else."""

    start: int
    count: int
    length: int
    seen: tuple[int, int] | None = None


@lru_cache(maxsize=8)
def calls(segments: Segments) -> tuple[Call, ...]:
    """What to compute: every token's own segment first, then the prefixes."""
    spans = segments.spans
    own, start = [], 0
    for length, group in groupby(end - begin for begin, end in spans):
        count = len(list(group))
        own.append(Call(start, count, length))
        start += count * length
    shared = []
    for parent, group in groupby(range(len(spans)), key=lambda i: segments.prefix[i]):
        if parent >= 0:
            members = list(group)
            begin, end = spans[members[0]][0], spans[members[-1]][1]
            shared.append(Call(begin, 1, end - begin, spans[parent]))
    return (*own, *shared)


def forward(
    query_TND: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    plan: tuple[Call, ...],
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [T, N, D], and the logarithm of every query's sum of weights, float32 [T, N], for backward."""
    output_TND = torch.empty_like(query_TND)
    sums_TN = query_TND.new_empty(query_TND.shape[:2], dtype=torch.float32)
    for call in plan:
        found, found_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            _queries(query_TND, call),
            *(_seen(t, call) for t in (key_TKD, value_TKD)),
            0.0,
            call.seen is None,
            scale=scaling,
        )
        output, sums = _queries(output_TND, call), _queries(sums_TN, call)
        if call.seen is None:
            output.copy_(found)
            sums.copy_(found_sums)
        else:
            both = torch.logaddexp(sums, found_sums)
            output.mul_((sums - both).exp_()[..., None]).add_(found * (found_sums - both).exp_()[..., None])
            sums.copy_(both)
    return output_TND, sums_TN


def backward(
    grad_TND: torch.Tensor,
    query_TND: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    output_TND: torch.Tensor,
    sums_TN: torch.Tensor,
    plan: tuple[Call, ...],
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients to query, key and value, each of its own shape."""
    grads = torch.empty_like(query_TND), torch.empty_like(key_TKD), torch.empty_like(value_TKD)
    for call in plan:
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *(_queries(t, call) for t in (grad_TND, query_TND)),
            *(_seen(t, call) for t in (key_TKD, value_TKD)),
            _queries(output_TND, call),
            _queries(sums_TN, call).contiguous(),
            0.0,
            call.seen is None,
            scale=scaling,
        )
        places = _queries(grads[0], call), _seen(grads[1], call), _seen(grads[2], call)
        for place, part in zip(places, found, strict=True):
            if call.seen is None:
                place.copy_(part)
            else:
                place.add_(part)
    return grads


def _queries(tensor: torch.Tensor, call: Call) -> torch.Tensor:
    """The call's queries as a view [B, N, L, ...]."""
    part = tensor[call.start : call.start + call.count * call.length]
    return part.view(call.count, call.length, *part.shape[1:]).transpose(1, 2)


def _seen(tensor_TKD: torch.Tensor, call: Call) -> torch.Tensor:
    """The keys or values that the call's queries see, as a view [B, K, L, D]."""
    if call.seen is None:
        return _queries(tensor_TKD, call)
    return tensor_TKD[slice(*call.seen)][None].transpose(1, 2)
