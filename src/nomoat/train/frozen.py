"""The frozen lower blocks computed once: what they make of every row, kept on the disk, so that every pass over the
rows begins above them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nomoat.data.pack import Rows, RowsBelow, fill, pack_rows
from nomoat.errors import BudgetError
from nomoat.ledger.files import atomic_write, disk_errors
from nomoat.model.fused.parts import below
from nomoat.model.memory import in_batches_that_fit
from nomoat.train.hooks import Hooks, Interrupted


def rows_below(
    model: Any, rows: Rows, folder: Path, *, batch_tokens: int, device: str, hooks: Hooks
) -> RowsBelow:
    """Compute the frozen blocks' outputs for all rows, or find them in `folder`, where a run before has left them.

    They are kept in bfloat16, two bytes a number, and rounded also for the first pass, so that all passes
    see the same. Running out of memory halves the batch. Raises Interrupted when `hooks.stop_asked`; BudgetError
    when the time is over before they are computed, or one row does not fit into memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, done = folder / "below.bin", folder / "below.done"
    shape = int(rows.lengths.sum()), model.config.get_text_config().hidden_size
    whole = done.exists() and file.exists() and file.stat().st_size == 2 * shape[0] * shape[1]
    if not whole:
        with disk_errors(file):
            in_batches_that_fit(
                lambda tokens: _write(model, rows, file, batch_tokens=tokens, device=device, hooks=hooks),
                batch_tokens,
                int(rows.lengths.max()),
            )
        atomic_write(done, b"")
    return RowsBelow(rows, np.memmap(file, dtype=np.int16, mode="r", shape=shape))


def _write(model: Any, rows: Rows, file: Path, *, batch_tokens: int, device: str, hooks: Hooks) -> None:
    with file.open("wb") as out:
        for which in fill(range(len(rows)), rows.lengths, batch_tokens):
            left_s = hooks.seconds_left()
            if left_s is not None and left_s <= 0:
                raise BudgetError(
                    f"the time was over when the frozen blocks had read {which[0]} of {len(rows)} rows",
                    hint="Give the night more time, or set sft.frozen_cache: false to train on a part of the rows.",
                )
            if hooks.stop_asked():
                raise Interrupted("stopped before the first step, while computing the frozen blocks")
            hooks.on_preparation(which[0] / len(rows))
            states_TH = below(model, pack_rows(rows, which, device)).to(torch.bfloat16).cpu()
            out.write(states_TH.view(torch.int16).numpy().tobytes())
        out.flush()
        os.fsync(out.fileno())
