"""Training side by side: nomoat, TRL's SFTTrainer at its defaults and at its best, and transformers' Trainer tuned
by hand, on the same rows from the same weights.

    python bench/train.py [--case NAME ...] [--side NAME ...] [--threads N] [--quick] [--tune] [--json FILE]

Random-weight Llamas; completion-only loss on rows of at most 512 tokens; rank-16 LoRA on all linear layers, or all
weights; AdamW at a constant rate. Everything runs in bfloat16 where the hardware has it, and in float32 otherwise,
all sides alike. First all sides train the same few steps, and their losses must agree (exit status 1 where they do
not). Then each trains the same rows, pass by pass, one side after the other in every round, each in a process of
its own and in the batches it likes best; the first pass is the warm-up. `--tune` first tries every setting of
bench/training/settings.py for a pass and takes the fastest of each peer.
"""

from __future__ import annotations

from training.cases import CASES, MEASURED
from training.command import Subject, run_bench
from training.settings import LEFT_OUT, SIDES

SUBJECT = Subject(
    cases={name: case for name, case in CASES.items() if not case.pairs},
    measured=MEASURED,
    sides=SIDES,
    skipped=LEFT_OUT,
)

if __name__ == "__main__":
    run_bench(SUBJECT, __doc__)
