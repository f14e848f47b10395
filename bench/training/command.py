"""The command line that the scripts beside this folder share: which cases and sides, and what is printed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import nomoat
from nomoat.model.load import choose_machine
from training.cases import FLOPS_SAID, Case
from training.material import SOURCES_SAID, build, open_tokenizer, sources
from training.measure import Bench
from training.settings import BEST, ELSE, TRIED, missing, settings_of
from training.table import case_table


@dataclass(frozen=True)
class Subject:
    """What one script measures: of all `cases` the `measured` ones where none is named, and of all `sides` those that
    are not `skipped`, each with its reason."""

    cases: dict[str, Case]
    measured: tuple[str, ...]
    sides: tuple[str, ...]
    skipped: dict[str, str]


def run_bench(subject: Subject, description: str | None) -> None:
    """The whole command."""
    args = _arguments(subject, description)
    torch.set_num_threads(args.threads)
    machine = choose_machine()
    skipped = subject.skipped | {side: why for side in args.side if (why := missing(side)) is not None}
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
        result["cases"][name] = _run(subject.cases[name], sides, machine, args)
        _say(case_table(subject.cases[name], result["cases"][name]))
    _say(FLOPS_SAID)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if not all(case["curves"]["agree"] for case in result["cases"].values()):
        sys.exit(1)


def _run(case: Case, sides: list[str], machine: Any, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="nomoat-bench-") as folder:
        data, tokenizer = sources(case, args.data, args.tokenizer)
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
        if args.tune is not None:
            for side in sides:
                if side in TRIED:
                    named = [name for name in args.tune if name in TRIED[side]]
                    best[side], tried[side] = bench.tune(side, named or list(TRIED[side]))
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


def _arguments(subject: Subject, description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help=f"rows in any format nomoat reads (default: {SOURCES_SAID})"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with tokenizer.json, or a SentencePiece *.model"
    )
    parser.add_argument(
        "--case",
        nargs="+",
        choices=subject.cases,
        default=subject.measured,
        metavar="NAME",
        help=f"of {', '.join(subject.cases)}",
    )
    parser.add_argument(
        "--side", nargs="+", choices=subject.sides, default=subject.sides, help="only some of them"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rows", type=int, default=128, help="rows of a pass")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each side")
    parser.add_argument("--steps", type=int, default=8, help="steps at which losses are compared")
    parser.add_argument("--quick", action="store_true", help="32 rows, 1 round, 2 steps")
    parser.add_argument(
        "--tune",
        nargs="*",
        metavar="SETTINGS",
        help="find each peer's best settings first, of all or of these, such as 'grouped 4'",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    args = parser.parse_args()
    known = dict.fromkeys(name for side in args.side for name in TRIED.get(side, ()))
    if unknown := set(args.tune or ()) - set(known):
        parser.error(f"--tune: got {', '.join(sorted(unknown))}; expected some of: {'; '.join(known)}")
    for name in args.case:
        data, _ = sources(subject.cases[name], args.data, args.tokenizer)
        if not data.is_file():
            parser.error(f"{name}: there is no {data}; give rows with --data")
    if args.quick:
        args.rows, args.rounds, args.steps = 32, 1, 2
    return args


def _say(line: str) -> None:
    print(line, flush=True)
