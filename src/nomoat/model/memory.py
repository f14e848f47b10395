"""Running out of memory: how it is known, and what answers it: a smaller batch, then blocks computed twice."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from nomoat.errors import BudgetError, NomoatError

T = TypeVar("T")


@dataclass(frozen=True)
class Room:
    """What a training step keeps small: the tokens computed at once, and, with `recompute`, what it keeps of them
    for backward (model/recompute.py)."""

    tokens: int
    recompute: bool


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate, on a GPU or in main memory. What another program says of its own, which our
    errors quote, is none of it."""
    if isinstance(error, NomoatError):
        return False
    said = "can't allocate memory", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED"
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def thriftier(error: RuntimeError, room: Room, longest: int, *, may_recompute: bool) -> Room:
    """What to try after `error`: half of the tokens, and when they are one row of `longest` tokens, recomputing.

    Raises `error` itself where it is about anything else; BudgetError where neither is left.
    """
    if room.tokens > longest or room.recompute or not may_recompute:
        return replace(room, tokens=smaller_batch(error, room.tokens, longest))
    _free(error)
    return replace(room, recompute=True)


def smaller_batch(error: RuntimeError, batch_tokens: int, longest: int) -> int:
    """Tokens of the batch to try after `error`: half as many, but enough for one row of `longest` tokens.

    Raises `error` itself where it is about anything else; BudgetError where the batch held one row already.
    """
    _free(error)
    if batch_tokens <= longest:
        raise BudgetError(
            f"one row of {longest} tokens does not fit into memory",
            hint="Lower sft.max_seq_len or sft.lora_r, or choose a smaller base.",
        ) from error
    return max(longest, batch_tokens // 2)


def _free(error: RuntimeError) -> None:
    """Let go of what filled the memory. Raises `error` where that was not its cause."""
    if not out_of_memory(error):
        raise error
    traceback.clear_frames(error.__traceback__)  # they hold it
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_batches_that_fit(run: Callable[[int], T], batch_tokens: int, longest: int) -> T:
    """`run` with batches of `batch_tokens`, and anew with half as many each time memory runs out.

    Raises BudgetError where one row of `longest` tokens does not fit.
    """
    while True:
        try:
            return run(batch_tokens)
        except RuntimeError as error:
            batch_tokens = smaller_batch(error, batch_tokens, longest)
