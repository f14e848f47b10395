"""How much memory a training step takes, and whether it must compute its blocks twice to have enough. Pure functions
over numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nomoat.plan.cost import train_bytes

Checkpointing = bool | Literal["auto"]
"""The recipe's `gradient_checkpointing`; `auto`: off, until memory demands it."""


@dataclass(frozen=True)
class StepSize:
    """What a step's memory follows from: the weights as they are held, what a trained number adds to them as
    gradient and optimiser state, the blocks that backward goes through, the logits that are there at once, and the
    bytes of a number of what they keep."""

    weights_bytes: float
    trainable: int
    trained_bytes: float
    micro_batch_tokens: int
    width: int
    layers: int
    logits: int
    number_bytes: float = 4.0

    def bytes(self, *, recomputed: bool) -> float:
        """Of one step; `recomputed`: with blocks computed again in backward."""
        return train_bytes(
            self.weights_bytes + self.trainable * self.trained_bytes,
            micro_batch_tokens=self.micro_batch_tokens,
            width=self.width,
            layers=self.layers,
            logits=self.logits,
            number_bytes=self.number_bytes,
            recomputed=recomputed,
        )


@dataclass(frozen=True)
class MemoryPlan:
    """What training is told, what it will need, and the sentences that say what was chosen and why."""

    gradient_checkpointing: Checkpointing
    bytes: float
    sentences: tuple[str, ...]

    @property
    def recomputes(self) -> bool:
        """From the first step on."""
        return self.gradient_checkpointing is True


def plan_memory(step: StepSize, asked: Checkpointing, free_bytes: int) -> MemoryPlan:
    """Turn checkpointing on where it was left open and the step does not fit without it: it costs time and changes
    nothing, while a smaller micro-batch also changes how sums are rounded."""
    kept, sentences = step.bytes(recomputed=False), []
    free = f"{_gib(free_bytes)} are free"
    chosen: Checkpointing = asked
    if asked == "auto" and kept > free_bytes:
        chosen = True
        sentences.append(
            f"gradient checkpointing is on: a step would need about {_gib(kept)} and {free}; every block is computed "
            f"again in backward instead of being kept, so that it needs {_gib(step.bytes(recomputed=True))}"
        )
    needed = step.bytes(recomputed=chosen is True)
    if needed > free_bytes:
        sentences.append(
            f"training needs about {_gib(needed)} and {free}: the micro-batch of {step.micro_batch_tokens} tokens "
            "will be halved until it fits"
        )
    return MemoryPlan(chosen, needed, tuple(sentences))


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
