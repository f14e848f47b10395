"""Packed attention on a GPU: FlexAttention (Dong et al. 2024, arXiv:2412.05496), one kernel whatever the segments.

The mask is a rule over token pairs, compiled into the kernel; blocks in which nobody sees anybody are skipped.

H heads · K key/value heads · T packed tokens · D head width
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
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
    total = query.shape[2]
    padded = _padded(segments)
    query, key, value = (F.pad(t, (0, 0, 0, padded.bounds[-1] - total)) for t in (query, key, value))
    result: torch.Tensor = kernel(
        query,
        key,
        value,
        score_mod=None if softcap is None else _cap(softcap),
        block_mask=_mask(padded, window, str(query.device)),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return result[:, :, :total]


def bucket(tokens: int) -> int:
    """The length that a pack is padded to: the kernel is compiled anew for every length, and only so often."""
    return max(512, 1 << (tokens - 1).bit_length())


def _padded(segments: Segments) -> Segments:
    """The segments with padding up to the bucket, each token of it a segment of its own."""
    total = segments.bounds[-1]
    ends = range(total + 1, bucket(total) + 1)
    return Segments((*segments.bounds, *ends), (*segments.prefix, *(-1 for _ in ends)))


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
    total = segments.bounds[-1]
    bounds = torch.tensor(segments.bounds, device=device)
    own = torch.repeat_interleave(bounds.diff())
    prefix = torch.tensor(segments.prefix, device=device)[own]
    first = bounds[:-1] - torch.tensor(segments.starts, device=device)
    position = torch.arange(total, device=device) - first[own]

    def visible(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        seen = ((own[q] == own[k]) & (q >= k)) | (prefix[q] == own[k])
        return seen if window is None else seen & (position[q] - position[k] < window)

    return create_block_mask(visible, None, None, total, total, device=device)
