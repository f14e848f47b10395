"""`python -m training.side`: the process of one side (see process.py)."""

from __future__ import annotations

import os
import sys

import torch

from nomoat.model.heap import keep_freed_memory
from training.process import Job, Meter


def main() -> None:
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print would garble the reports
    job = Job.from_json(sys.stdin.readline())
    torch.set_num_threads(job.threads)
    if job.side == "nomoat":
        if job.device == "cpu":
            keep_freed_memory()  # as a night's process does
        from training.ours import train
    elif job.case.pairs:
        from training.pairs import train
    else:
        from training.peers import train
    train(job, Meter(sys.stdin, reports))


if __name__ == "__main__":
    main()
