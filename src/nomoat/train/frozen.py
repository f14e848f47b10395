"""The frozen lower blocks computed once: what they make of every row, kept on the disk, so that every pass over the
rows begins above them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nomoat.data.pack import Rows, RowsBelow, fill, pack_rows
from nomoat.ledger.files import atomic_write, disk_errors
from nomoat.model.fused.parts import below
from nomoat.train.hooks import Hooks, Interrupted


def rows_below(
    model: Any, rows: Rows, folder: Path, *, batch_tokens: int, device: str, hooks: Hooks
) -> RowsBelow:
    """Compute the frozen blocks' outputs for all rows, or find them in `folder`, where a run before has left them.

    They are kept in bfloat16, two bytes a number, and rounded also for the first pass, so that all passes
    see the same. Raises Interrupted when `hooks.stop_asked`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, done = folder / "below.bin", folder / "below.done"
    shape = int(rows.lengths.sum()), model.config.get_text_config().hidden_size
    if not done.exists():
        with disk_errors(file), file.open("wb") as out:
            for which in fill(range(len(rows)), rows.lengths, batch_tokens):
                if hooks.stop_asked():
                    raise Interrupted("stopped before the first step, while computing the frozen blocks")
                states_TH = below(model, pack_rows(rows, which, device)).to(torch.bfloat16).cpu()
                out.write(states_TH.view(torch.int16).numpy().tobytes())
            out.flush()
            os.fsync(out.fileno())
        atomic_write(done, b"")
    return RowsBelow(rows, np.memmap(file, dtype=np.int16, mode="r", shape=shape))
