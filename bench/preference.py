"""Learning from pairs side by side: nomoat's DPO, and TRL's DPOTrainer at its defaults and at its best, on the same
pairs from the same weights with the same loss.

    python bench/preference.py [--case NAME ...] [--side NAME ...] [--threads N] [--quick] [--tune] [--json FILE]

Random-weight Llamas; prompt and answer of at most 512 tokens together; rank-16 LoRA on all linear layers; AdamW at a
constant rate. nomoat and TRL at its best compute the reference before the first step, which is not measured; TRL at
its defaults computes it in every step. Tokens are counted as TRL reads them, every prompt twice, whoever reads it
once. All else is as in bench/train.py: first the losses of the same few steps must agree, then each side trains the
same pairs, one after the other in every round, each in a process of its own.
"""

from __future__ import annotations

from training.cases import CASES, PAIRS_MEASURED
from training.command import Subject, run_bench
from training.settings import PAIR_SIDES

SUBJECT = Subject(
    cases={name: case for name, case in CASES.items() if case.pairs},
    measured=PAIRS_MEASURED,
    sides=PAIR_SIDES,
    skipped={},
)

if __name__ == "__main__":
    run_bench(SUBJECT, __doc__)
