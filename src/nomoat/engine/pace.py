"""How fast a GGUF file reads and writes on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from nomoat.engine.cmodel import CModel, Context, Row

_READ, _WRITTEN = 64, 8


@dataclass(frozen=True)
class Pace:
    """Tokens a second: of a prompt that is read at once, and of an answer that is written one by one."""

    read_tokens_per_s: float
    write_tokens_per_s: float


def measure_pace(gguf: Path, *, n_threads: int) -> Pace:
    """Read a short prompt and write a few tokens, once to warm up and once by the clock.

    Raises:
        EngineError: the file cannot be loaded.
    """
    with CModel(gguf) as model:
        written = min(_WRITTEN, model.context_length // 2)
        read = min(_READ, model.context_length - written)
        with Context(model, n_ctx=read + written, n_batch=read, n_outputs=1, n_threads=n_threads) as context:
            for _ in range(2):
                context.forget(0, from_position=0)
                started = time.perf_counter()
                context.decode([Row(0, i, 0, i + 1 == read) for i in range(read)])
                context.logits(read - 1)
                middle = time.perf_counter()
                for i in range(written):
                    context.decode([Row(0, read + i, 0, True)])
                    context.logits(0)
                ended = time.perf_counter()
    return Pace(read / (middle - started), written / (ended - middle))
