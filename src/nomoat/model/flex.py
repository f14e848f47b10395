"""Packed attention on a GPU: FlexAttention (Dong et al. 2024, arXiv:2412.05496), one kernel whatever the segments.

The mask is a rule over token pairs, compiled into the kernel; blocks in which nobody sees anybody are skipped.

H heads · K key/value heads · T packed tokens · D head width
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from nomoat.data.pack import Segments


def flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    softcap: float | None,
    window: int | None,
) -> torch.Tensor:
    """query [1, H, T, D], key and value [1, K, T, D] -> [1, H, T, D], as `attention.packed_attention` says.

    Compiled on a GPU (not yet run on one); on a processor it computes all T×T scores and serves the tests.
    """
    kernel = _compiled() if query.device.type == "cuda" else flex_attention
    result: torch.Tensor = kernel(
        query,
        key,
        value,
        score_mod=None if softcap is None else _cap(softcap),
        block_mask=_mask(segments, window, str(query.device)),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return result


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=16)
def _cap(softcap: float) -> Callable[..., torch.Tensor]:
    def capped(score: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.tanh(score / softcap) * softcap

    return capped


@lru_cache(maxsize=8)
def _mask(segments: Segments, window: int | None, device: str) -> BlockMask:
    """Who sees whom: one mask for all layers of a pack."""
    lengths = [end - start for start, end in pairwise(segments.bounds)]
    starts = [lengths[parent] if parent >= 0 else 0 for parent in segments.prefix]
    counts = torch.tensor(lengths, device=device)
    own = torch.repeat_interleave(torch.arange(len(lengths), device=device), counts)
    prefix = torch.tensor(segments.prefix, device=device)[own]
    first = torch.tensor(segments.bounds[:-1], device=device) - torch.tensor(starts, device=device)
    position = torch.arange(segments.bounds[-1], device=device) - first[own]

    def visible(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        seen = ((own[q] == own[k]) & (q >= k)) | (prefix[q] == own[k])
        return seen if window is None else seen & (position[q] - position[k] < window)

    total = segments.bounds[-1]
    return create_block_mask(visible, None, None, total, total, device=device)
