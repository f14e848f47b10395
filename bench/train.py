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

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import nomoat
from nomoat.model.load import choose_machine
from training.cases import CASES, FLOPS_SAID, MEASURED, Case
from training.material import SOURCES_SAID, build, open_tokenizer, sources
from training.measure import Bench
from training.settings import BEST, ELSE, LEFT_OUT, SIDES, TRIED, missing, settings_of
from training.table import case_table


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    machine = choose_machine()
    skipped = LEFT_OUT | {side: why for side in args.side if (why := missing(side)) is not None}
    sides = [side for side in args.side if side not in skipped]
    result: dict[str, Any] = {
        "machine": _machine(machine.device, machine.bf16, args.threads),
        "flops": FLOPS_SAID,
        "skipped": skipped,
        "cases": {},
    }
    _say(" · ".join(f"{key} {value}" for key, value in result["machine"].items()))
    for side, why in skipped.items():
        _say(f"{side} is left out: {why}")
    for name in args.case:
        result["cases"][name] = _run(CASES[name], sides, machine, args)
        _say(case_table(CASES[name], result["cases"][name]))
    _say(FLOPS_SAID)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if not all(case["curves"]["agree"] for case in result["cases"].values()):
        sys.exit(1)


def _run(case: Case, sides: list[str], machine: Any, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="nomoat-bench-") as folder:
        data, tokenizer = sources(case.shape, args.data, args.tokenizer)
        material = build(
            case,
            machine,
            data=data,
            tokenizer=open_tokenizer(tokenizer),
            rows=args.rows,
            folder=Path(folder),
        )
        bench = Bench(case, material, machine, args.threads, _say)
        best, tried = dict(BEST.get(case.name, ELSE)), {}
        if args.tune:
            for side in sides:
                if side in TRIED:
                    best[side], tried[side] = bench.tune(side)
        curves = bench.curves(sides, best, args.steps)
        _say(f"{case.name}: {curves.said()}")
        settings = {side: settings_of(side, best) for side in sides}
        return {
            "data": str(data),
            "settings": settings,
            "tried": tried,
            "curves": curves.to_dict(),
            **bench.speeds(sides, best, args.rounds),
        }


def _machine(device: str, bf16: bool, threads: int) -> dict[str, Any]:
    libraries = ("torch", "transformers", "peft", "trl")
    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": threads,
        "dtype": "bfloat16" if bf16 else "float32 (no bfloat16 arithmetic in this hardware)",
        "nomoat": nomoat.__version__,
        **{name: version(name) for name in libraries if missing(name) is None},
    }


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].split(":")[1].strip() if names else platform.processor()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help=f"rows in any format nomoat reads (default: {SOURCES_SAID})"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with tokenizer.json, or a SentencePiece *.model"
    )
    parser.add_argument(
        "--case", nargs="+", choices=CASES, default=MEASURED, metavar="NAME", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--side", nargs="+", choices=SIDES, default=SIDES, help="only some of them")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rows", type=int, default=128, help="rows of a pass")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each side")
    parser.add_argument("--steps", type=int, default=8, help="steps at which losses are compared")
    parser.add_argument("--quick", action="store_true", help="32 rows, 1 round, 2 steps")
    parser.add_argument("--tune", action="store_true", help="find each peer's best settings first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.rounds, args.steps = 32, 1, 2
    return args


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
