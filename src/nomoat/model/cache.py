"""Keys and values of growing sequences, kept in place: what attention reads while tokens are written one by one.

A sequence owns a row and every position a slot of it, so that prompts of different lengths need no padding and no
position is ever moved. Passed to a decoder as its `segments`, `Reading` and `Writing` make any family fill and
read the cache through the packed attention; transformers' own caches are not used.

R rows · P prompts · L slots of a row · N query heads · K key/value heads · D head width
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from nomoat.data.pack import Segments


class Cache:
    """Room for `rows` sequences of at most `length` tokens. Memory is taken when a layer is first used."""

    def __init__(self, rows: int, length: int) -> None:
        self.rows, self.length = rows, length
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def layer(self, index: int, like_KD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer, each [R, K, L, D], as `like_KD` [..., K, D] says; on a processor in float32, in
        which C computes."""
        if index not in self._layers:
            heads, width = like_KD.shape[-2:]
            shape = self.rows, heads, self.length, width
            dtype = torch.float32 if like_KD.device.type == "cpu" else like_KD.dtype
            # zeros: what was never written is masked, but a NaN times a weight of 0 is a NaN
            self._layers[index] = like_KD.new_zeros(shape, dtype=dtype), like_KD.new_zeros(shape, dtype=dtype)
        return self._layers[index]

    def move(self, source: int, target: int, length: int) -> None:
        """Let row `target` hold the first `length` tokens of row `source`."""
        for pair in self._layers.values():
            for tensor_RKLD in pair:
                tensor_RKLD[target, :, :length] = tensor_RKLD[source, :, :length]


@dataclass(frozen=True)
class Reading:
    """Prompts laid end to end; what segment p makes goes into all rows `rows_P[p]`."""

    cache: Cache
    segments: Segments
    rows_P: Sequence[Sequence[int]]

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write key and value [1, K, T, D] of a layer into the rows."""
        keys, values = self.cache.layer(layer, key.transpose(1, 2))
        for (start, end), rows in zip(self.segments.spans, self.rows_P, strict=True):
            for row in rows:
                keys[row, :, : end - start] = key[0, :, start:end]
                values[row, :, : end - start] = value[0, :, start:end]


@dataclass(frozen=True)
class Writing:
    """One token more in each of the first R rows, at `positions_R`; `seen` is how many slots the longest of them
    has, this token's included."""

    cache: Cache
    positions_R: torch.Tensor
    seen: int
    _masks: dict[int | None, torch.Tensor] = field(default_factory=dict)
    _places: dict[int, torch.Tensor] = field(default_factory=dict)

    def attend(
        self,
        layer: int,
        query_RND: torch.Tensor,
        key_RKD: torch.Tensor,
        value_RKD: torch.Tensor,
        *,
        scaling: float,
        softcap: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """Write key and value, and mix the values of what each token sees: [R, N, D]."""
        rows, heads, width = key_RKD.shape
        keys, values = self.cache.layer(layer, key_RKD)
        places = self._place(heads)
        for slots, new in ((keys, key_RKD), (values, value_RKD)):
            slots.view(-1, width).index_copy_(0, places, new.reshape(-1, width).to(slots.dtype))
        # heads that share keys are rows of one product; rows and heads of the cache are one stride apart
        shared = query_RND.shape[1] // heads
        query = (query_RND.to(keys.dtype) * scaling).reshape(rows * heads, shared, width)
        scores = torch.bmm(query, keys[:rows, :, : self.seen].flatten(0, 1).transpose(1, 2))
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        scores.view(rows, heads * shared, self.seen).add_(self._mask(window, scores.dtype))
        shares = scores.softmax(dim=-1)
        mixed = torch.bmm(shares, values[:rows, :, : self.seen].flatten(0, 1))
        return mixed.view(rows, heads * shared, width).to(query_RND.dtype)

    def _place(self, heads: int) -> torch.Tensor:
        """Where the new keys go in a layer seen as [R·K·L, D]: the same for all layers of so many heads."""
        if heads not in self._places:
            device = self.positions_R.device
            row_and_head = torch.arange(len(self.positions_R) * heads, device=device).view(-1, heads)
            self._places[heads] = (row_and_head * self.cache.length + self.positions_R[:, None]).flatten()
        return self._places[heads]

    def _mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """0 for slots that a row's token sees and -inf for the others, [R, 1, seen]."""
        if window not in self._masks:
            slots = torch.arange(self.seen, device=self.positions_R.device)
            distance = self.positions_R[:, None] - slots
            hidden = distance < 0
            if window is not None:
                hidden |= distance >= window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            self._masks[window] = mask.masked_fill_(hidden, float("-inf"))[:, None]
        return self._masks[window]
