"""Attention for packed rows, registered with transformers' attention interface.

Every decoder that reads its attention from the interface works unchanged: the forward is called with
`segments=packed.segments`, and no T×T mask is ever made.

H heads · K key/value heads · L tokens of one segment · D head width
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from nomoat.data.pack import Segments
from nomoat.model.cache import Reading, Writing
from nomoat.model.flex import flex

PACKED = "nomoat_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments | Reading | Writing,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D]; causal within each segment and its prefix.

    Where prompts are read into a cache, their keys and values are kept there too; where tokens are written one by
    one, each sees what its row of the cache holds. `softcap` is Gemma 2's tanh cap on the scores; `sliding_window` w
    lets a token see itself and the w - 1 before it, as in transformers.
    """
    if isinstance(segments, Writing):
        mixed = segments.attend(
            module.layer_idx,
            *(tensor[0].transpose(0, 1) for tensor in (query, key, value)),
            scaling=scaling if scaling is not None else query.shape[-1] ** -0.5,
            softcap=softcap,
            window=sliding_window,
        )
        return mixed[None], None
    if isinstance(segments, Reading):
        segments.keep(module.layer_idx, key, value)
        segments = segments.segments
    if query.device.type == "cuda" and not dropout:
        mixed = flex(query, key, value, segments, scaling=scaling, softcap=softcap, window=sliding_window)
        return mixed.transpose(1, 2), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    spans = [slice(*span) for span in segments.spans]
    outputs = []
    for span, parent in zip(spans, segments.prefix, strict=True):
        seen_key, seen_value = key[:, :, span], value[:, :, span]
        if parent >= 0:
            seen_key = torch.cat((key[:, :, spans[parent]], seen_key), dim=2)
            seen_value = torch.cat((value[:, :, spans[parent]], seen_value), dim=2)
        outputs.append(
            _causal(
                query[:, :, span],
                seen_key,
                seen_value,
                scaling=scaling,
                dropout=dropout,
                softcap=softcap,
                window=sliding_window,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    window: int | None,
) -> torch.Tensor:
    length, seen = query.shape[2], key.shape[2]
    banded = window is not None and seen > window
    if softcap is None and not banded and length == seen:
        return F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, dropout_p=dropout
        )
    index = torch.arange(seen, device=query.device)
    distance = index[seen - length :, None] - index[None, :]  # the queries are the last of what is seen
    visible = distance >= 0
    if banded:
        visible &= distance < window
    if softcap is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, scale=scaling, dropout_p=dropout
        )
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    shares = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1, dtype=torch.float32)
    return F.dropout(shares.to(query.dtype), p=dropout) @ value


AttentionInterface.register(PACKED, packed_attention)
