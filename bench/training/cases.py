"""What is trained: shapes of random-weight Llamas, methods, and the FLOPs that one pass over rows needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nomoat.plan.cost import train_flops


@dataclass(frozen=True)
class Shape:
    """A Llama; `tied`: its embeddings are its output layer."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool = True

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each linear layer of one block."""
        keys = self.width // self.heads * self.kv_heads
        square, narrow = (self.width, self.width), (self.width, keys)
        up, down = (self.width, self.intermediate), (self.intermediate, self.width)
        return [square, narrow, narrow, square, up, up, down]

    @property
    def body(self) -> int:
        """Weights of all blocks, without norms."""
        return self.layers * _weights(self.linears)

    @property
    def head(self) -> int:
        """Weights of the output layer; embeddings of their own multiply nothing."""
        return self.width * self.vocabulary

    @property
    def tail(self) -> list[tuple[int, int]]:
        """Those of the last block that follow its attention."""
        return self.linears[3:]

    def adapter(self, rank: int, layers: int) -> int:
        """Weights of LoRA of this rank on all linear layers of so many blocks."""
        return layers * _adapter(rank, self.linears)


def _weights(linears: list[tuple[int, int]]) -> int:
    return sum(inputs * outputs for inputs, outputs in linears)


def _adapter(rank: int, linears: list[tuple[int, int]]) -> int:
    return sum(rank * (inputs + outputs) for inputs, outputs in linears)


@dataclass(frozen=True)
class Case:
    """One row of the issue's table. `method` is "lora" or "full"; `pairs` says that judged pairs are learned from
    (DPO), and not answers.

    LoRA is on all linear layers, of all blocks or of the top `lora_layers`; what lies below those nomoat computes
    once, before its first pass, which is the warm-up."""

    name: str
    shape: Shape
    method: str
    learning_rate: float
    lora_layers: int | None = None
    lora_r: int = 16
    max_tokens: int = 512
    pairs: bool = False

    @property
    def lora(self) -> bool:
        return self.method == "lora"

    @property
    def trainable(self) -> int:
        """Weights that learn, without norms."""
        if self.lora:
            return self.shape.adapter(self.lora_r, self.lora_layers or self.shape.layers)
        return self.shape.body + self.shape.head


S = Shape(width=288, layers=6, heads=6, kv_heads=6, intermediate=768, vocabulary=32_000)
M = Shape(width=576, layers=30, heads=9, kv_heads=3, intermediate=1536, vocabulary=49_152)
TINY = Shape(width=64, layers=2, heads=4, kv_heads=2, intermediate=128, vocabulary=2_048)
# the widths, blocks and vocabularies of Llama 3.2 1B, Llama 3 8B and Llama 2 13B
B1 = Shape(width=2048, layers=16, heads=32, kv_heads=8, intermediate=8192, vocabulary=128_256)
B8 = Shape(width=4096, layers=32, heads=32, kv_heads=8, intermediate=14_336, vocabulary=128_256, tied=False)
B13 = Shape(width=5120, layers=40, heads=40, kv_heads=40, intermediate=13_824, vocabulary=32_000, tied=False)

CASES = {
    case.name: case
    for case in (
        Case("s-lora", S, "lora", learning_rate=1e-3),
        Case("m-lora", M, "lora", learning_rate=1e-3),
        Case("s-full", S, "full", learning_rate=5e-4),
        Case("m-top", M, "lora", learning_rate=1e-3, lora_layers=6),
        Case("1b-lora", B1, "lora", learning_rate=1e-4),
        Case("8b-lora", B8, "lora", learning_rate=1e-4),
        Case("13b-lora", B13, "lora", learning_rate=1e-4),
        Case("s-dpo", S, "lora", learning_rate=2e-4, pairs=True),
        Case("m-dpo", M, "lora", learning_rate=2e-4, pairs=True),
        Case("tiny-dpo", TINY, "lora", learning_rate=2e-4, pairs=True),
        Case("tiny-lora", TINY, "lora", learning_rate=1e-3),
        Case("tiny-full", TINY, "full", learning_rate=5e-4),
        Case("tiny-top", TINY, "lora", learning_rate=1e-3, lora_layers=1),
    )
}
MEASURED = ("s-lora", "m-lora", "s-full", "m-top")
PAIRS_MEASURED = ("s-dpo", "m-dpo")
"""The cases of the issues on a processor; those of billions are for a GPU, the tiny ones to try the bench itself."""

FLOPS_SAID = (
    "FLOPs: 4 a frozen and 6 a trained weight and real token (nomoat.plan.cost; embeddings count once, as output "
    "layer), and of causal attention 6·L²·width a row and layer; (b) counts what follows the last attention at "
    "supervised tokens only, where the loss needs it"
)


@dataclass(frozen=True)
class Flops:
    """Of one pass over rows: with everything at every token, and with what follows the last attention at supervised
    ones only."""

    everywhere: float
    needed: float


def pass_flops(case: Case, lengths: NDArray[np.int64], supervised: int) -> Flops | None:
    """The arithmetic that training once on rows of these lengths asks for (see FLOPS_SAID); padding is none of
    it, and neither is anything computed twice. None where only the top blocks learn: who keeps what the others
    make has less to do."""
    if case.lora_layers is not None:
        return None
    shape, tokens = case.shape, int(lengths.sum())
    frozen = case.lora
    # scores and weighted values, half of each under the causal mask, forward and twice that back
    rest = 6.0 * shape.layers * shape.width * float((lengths.astype(np.float64) ** 2).sum())
    rest += train_flops(shape.body, tokens, frozen=frozen)
    if case.lora:
        rest += train_flops(case.trainable, tokens, frozen=False)
    unread = tokens - supervised
    spared = train_flops(_weights(shape.tail), unread, frozen=frozen)
    if case.lora:
        spared += train_flops(_adapter(case.lora_r, shape.tail), unread, frozen=False)
    return Flops(
        everywhere=rest + train_flops(shape.head, tokens, frozen=frozen),
        needed=rest - spared + train_flops(shape.head, supervised, frozen=frozen),
    )
