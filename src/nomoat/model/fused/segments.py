"""Attention within segments and to their prefixes, forward and backward, in place of autograd's slices and copies.

`attention.c` does it on a processor, family by family. Where there is no compiler, the processor's flash attention
does (Dao et al. 2022, arXiv:2205.14135), which like it keeps a number a query and head instead of a row of scores.
Neighbouring segments of one length are then one call. A segment that goes on from a prefix makes two, one to itself
and one to the prefix; their outputs are weighed by those numbers, so the prefix is neither copied nor masked.

T tokens · N query heads · K key/value heads · D head width · B segments of one call · L their length
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any

import torch

from nomoat.data.pack import Segments
from nomoat.model.fused import compiled

_CALLS_SLOWER = 2
"""How many times as long torch's calls take for one long row, on one thread (docs/log.md)."""


@dataclass(frozen=True)
class Call:
    """`count` segments of `length` tokens from `start` on, which see themselves causally, or, with `seen`, all of those
    tokens (from, to) and nothing else."""

    start: int
    count: int
    length: int
    seen: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What to compute: by calls, or by families, the dearest first.

    A family is a root segment and those that go on from it. `spans` (int32 [segments, 2]) are their first tokens and
    the ones after their last, family by family with the root first; `families` (int32 [families + 1]) is where each
    begins there.
    """

    calls: tuple[Call, ...]
    spans: torch.Tensor
    families: torch.Tensor


@lru_cache(maxsize=8)
def planned(segments: Segments) -> Plan:
    """Once for all blocks of a step."""
    families = _families(segments)
    spans = [segments.spans[i] for family in families for i in family]
    borders = list(accumulate(map(len, families), initial=0))
    return Plan(_calls(segments), *(torch.tensor(rows, dtype=torch.int32) for rows in (spans, borders)))


def _families(segments: Segments) -> list[list[int]]:
    """Every root with what goes on from it, the most pairs of query and key first."""
    found: dict[int, list[int]] = {}
    for i, parent in enumerate(segments.prefix):
        found.setdefault(i if parent < 0 else parent, []).append(i)
    pairs = [
        (end - start) * (2 * seen + end - start)
        for seen, (start, end) in zip(segments.starts, segments.spans, strict=True)
    ]
    return sorted(found.values(), key=lambda family: -sum(pairs[i] for i in family))


def _calls(segments: Segments) -> tuple[Call, ...]:
    """Every token's own segment first, then the prefixes."""
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
    plan: Plan,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [T, N, D], and the logarithm of every query's sum of weights, float32 [T, N], for backward."""
    output_TND = query_TND.new_empty(query_TND.shape)
    sums_TN = query_TND.new_empty(query_TND.shape[:2], dtype=torch.float32)
    if (library := _library(key_TKD, plan)) is None:
        _forward_by_calls(query_TND, key_TKD, value_TKD, output_TND, sums_TN, plan.calls, scaling)
    else:
        seen = [_in_rows(t) for t in (query_TND, key_TKD, value_TKD)]
        made = (output_TND, sums_TN, plan.spans, plan.families)
        _check(library.attention(*(t.data_ptr() for t in (*seen, *made)), *_sizes(seen, plan), scaling))
    return output_TND, sums_TN


def backward(
    grad_TND: torch.Tensor,
    query_TND: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    output_TND: torch.Tensor,
    sums_TN: torch.Tensor,
    plan: Plan,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients to query, key and value, each of its own shape."""
    tensors = query_TND, key_TKD, value_TKD
    of_query, of_key, of_value = (t.new_empty(t.shape) for t in tensors)
    grads = of_query, of_key, of_value
    if (library := _library(key_TKD, plan)) is None:
        _backward_by_calls(grad_TND, *tensors, output_TND, sums_TN, grads, plan.calls, scaling)
    else:
        seen = [_in_rows(t) for t in tensors]
        rest = (output_TND, sums_TN, grad_TND.contiguous(), *grads, plan.spans, plan.families)
        _check(
            library.attention_backward(*(t.data_ptr() for t in (*seen, *rest)), *_sizes(seen, plan), scaling)
        )
    return grads


def _library(key_TKD: torch.Tensor, plan: Plan) -> Any:
    """The functions in C, or None. They compute a family and key head on one thread, torch's calls parts of it: so that
    theirs are faster where most threads would have nothing to do."""
    tasks = (len(plan.families) - 1) * key_TKD.shape[1]
    if key_TKD.device.type != "cpu" or _CALLS_SLOWER * tasks < torch.get_num_threads():
        return None
    return compiled.attention(key_TKD.dtype)


def _check(is_short: int) -> None:
    """Raises as torch does where it gets no memory."""
    if is_short:
        raise RuntimeError("attention.c: can't allocate memory for the longest row")


def _in_rows(tensor_TND: torch.Tensor) -> torch.Tensor:
    """As it is where a token's heads lie in one piece, as they nearly always do."""
    width = tensor_TND.shape[2]
    return tensor_TND if tensor_TND.stride()[1:] == (width, 1) else tensor_TND.contiguous()


def _sizes(seen: Sequence[torch.Tensor], plan: Plan) -> tuple[int, ...]:
    """What both functions in C are told: families, numbers from one token to the next, heads and their width."""
    query_TND, key_TKD, _ = seen
    strides = (tensor.stride(0) for tensor in seen)
    return len(plan.families) - 1, *strides, query_TND.shape[1], *key_TKD.shape[1:]


def _forward_by_calls(
    query_TND: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    output_TND: torch.Tensor,
    sums_TN: torch.Tensor,
    calls: tuple[Call, ...],
    scaling: float,
) -> None:
    """Writes outputs and logarithms of sums."""
    for call in calls:
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


def _backward_by_calls(
    grad_TND: torch.Tensor,
    query_TND: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    output_TND: torch.Tensor,
    sums_TN: torch.Tensor,
    grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    calls: tuple[Call, ...],
    scaling: float,
) -> None:
    """Writes the gradients to query, key and value."""
    for call in calls:
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


def _queries(tensor: torch.Tensor, call: Call) -> torch.Tensor:
    """The call's queries as a view [B, N, L, ...]."""
    part = tensor[call.start : call.start + call.count * call.length]
    return part.view(call.count, call.length, *part.shape[1:]).transpose(1, 2)


def _seen(tensor_TKD: torch.Tensor, call: Call) -> torch.Tensor:
    """The keys or values that the call's queries see, as a view [B, K, L, D]."""
    if call.seen is None:
        return _queries(tensor_TKD, call)
    return tensor_TKD[slice(*call.seen)][None].transpose(1, 2)
