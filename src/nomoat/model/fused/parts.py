"""A decoder in two parts: the lower blocks, in which nothing is trained, and what is above them.

T packed tokens · H width
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from nomoat.data.pack import Packed
from nomoat.model.fused.families import FUSED, read_output


def decoder_inputs(packed: Packed) -> dict[str, Any]:
    """A pack as a transformers decoder with the packed attention takes it."""
    return {
        "input_ids": packed.tokens_T[None],
        "position_ids": packed.positions_T[None],
        "segments": packed.segments,
        "use_cache": False,
    }


def frozen_blocks(model: Any) -> int:
    """How many blocks from the bottom hold nothing that is trained, in a decoder that can be run in parts; 0 where
    the embeddings are trained, or all blocks are."""
    output = read_output(model)
    if output is None or any(p.requires_grad for p in output.decoder.get_input_embeddings().parameters()):
        return 0
    blocks = list(output.decoder.layers)
    if any(type(block).__name__ not in FUSED for block in blocks):
        return 0
    return _first_trained(blocks)


@torch.no_grad()
def below(model: Any, packed: Packed) -> torch.Tensor:
    """What the frozen blocks make of the tokens, [T, H]."""
    output = read_output(model)
    assert output is not None
    hidden = output.decoder.get_input_embeddings()(packed.tokens_T[None])
    return _run(output.decoder, packed, hidden, slice(0, frozen_blocks(model)))[0]


def above(decoder: Any, packed: Packed) -> torch.Tensor:
    """The last hidden states [T, H] of a pack whose `below_TH` is known; the blocks above are those that train."""
    assert packed.below_TH is not None
    first = _first_trained(decoder.layers)
    hidden = packed.below_TH.to(decoder.norm.weight.dtype)[None]
    return decoder.norm(_run(decoder, packed, hidden, slice(first, None)))[0]


def _first_trained(blocks: Iterable[torch.nn.Module]) -> int:
    """The lowest block in which anything is trained; 0 where nothing is."""
    return next((i for i, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())), 0)


def _run(decoder: Any, packed: Packed, hidden: torch.Tensor, blocks: slice) -> torch.Tensor:
    turns = decoder.rotary_emb(hidden, position_ids=packed.positions_T[None])
    for block in decoder.layers[blocks]:
        hidden = block(hidden, position_embeddings=turns, segments=packed.segments, attention_mask=None)
    return hidden
