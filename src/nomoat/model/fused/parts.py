"""What goes into a decoder, and one in two parts: lower blocks, in which nothing is trained, and what is above them.

T packed tokens · S tokens whose states are wanted · H width
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from nomoat.data.pack import Packed, Segments
from nomoat.model.fused.families import FUSED, product_dtype, read_output

STEP, OUTPUT_STEP, LAST_BLOCK_STEP = 64, 32, 256
"""Numbers of rows that products get are multiples of these: in the blocks, in the output layer, which has few products,
and in the last block where it makes supervised rows alone, whose number varies most."""


def decoder_inputs(decoder: Any, packed: Packed) -> dict[str, Any]:
    """A pack as a transformers decoder with the packed attention takes it; what comes out may be longer than it."""
    spare = spare_rows(len(packed.tokens_T), decoder.get_input_embeddings().weight)
    return {
        "input_ids": longer(packed.tokens_T, spare)[None],
        "position_ids": longer(packed.positions_T, spare)[None],
        "segments": _with_spare(packed.segments, spare),
        "use_cache": False,
    }


def spare_rows(rows: int, like: torch.Tensor, step: int = STEP) -> int:
    """How many rows products get that nobody asked for. What multiplies bfloat16 on a processor (oneDNN) makes code for
    every number of rows that it meets and keeps it, which takes longer and more memory than the product itself: so
    there are only a few numbers of them."""
    return -rows % step if like.device.type == "cpu" and product_dtype(like) == torch.bfloat16 else 0


def pieces(count: int, most: int) -> Iterator[slice]:
    """So many rows or columns of the output layer in pieces of like size, at most `most` each, whose sizes are few, as
    above."""
    most = most // OUTPUT_STEP * OUTPUT_STEP or most
    each = math.ceil(count / max(1, math.ceil(count / most)))
    step = min(most, OUTPUT_STEP * max(1, math.ceil(each / OUTPUT_STEP)))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def longer(tensor: torch.Tensor, spare: int) -> torch.Tensor:
    """With so many rows of zeros more."""
    return torch.cat((tensor, tensor.new_zeros(spare, *tensor.shape[1:]))) if spare else tensor


def _with_spare(segments: Segments, spare: int) -> Segments:
    """With a segment that nobody reads."""
    if not spare:
        return segments
    return Segments((*segments.bounds, segments.bounds[-1] + spare), (*segments.prefix, -1))


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
    inputs = decoder_inputs(output.decoder, packed)
    hidden = output.decoder.get_input_embeddings()(inputs["input_ids"])
    return _run(output.decoder, inputs, hidden, slice(0, frozen_blocks(model)))[0, : len(packed.tokens_T)]


def above(decoder: Any, packed: Packed, wanted_S: torch.Tensor) -> torch.Tensor:
    """The last hidden states [S, H] of the wanted tokens of a pack whose `below_TH` is known; the blocks above are
    those that train. The last of them makes no others: few blocks are computed here, and one of them counts."""
    assert packed.below_TH is not None
    first, inputs = _first_trained(decoder.layers), decoder_inputs(decoder, packed)
    below_TH = longer(packed.below_TH, inputs["input_ids"].shape[1] - len(packed.below_TH))
    hidden = below_TH.to(decoder.norm.weight.dtype)[None]
    hidden = _run(decoder, inputs, hidden, slice(first, None), wanted_S)[0]
    assert len(hidden) == len(wanted_S)
    return decoder.norm(hidden)


def _first_trained(blocks: Iterable[torch.nn.Module]) -> int:
    """The lowest block in which anything is trained; 0 where nothing is."""
    return next((i for i, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())), 0)


def _run(
    decoder: Any,
    inputs: dict[str, Any],
    hidden: torch.Tensor,
    blocks: slice,
    wanted_S: torch.Tensor | None = None,
) -> torch.Tensor:
    turns = decoder.rotary_emb(hidden, position_ids=inputs["position_ids"])
    told = {"position_embeddings": turns, "segments": inputs["segments"], "attention_mask": None}
    chosen = decoder.layers[blocks]
    for block in chosen:
        hidden = block(hidden, **told, wanted_S=wanted_S if block is chosen[-1] else None)
    return hidden
