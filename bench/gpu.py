"""LoRA on a GPU: Llamas of 1, 8 and 13 billion random weights on real packed rows, and what three epochs of Alpaca
cost.

    python bench/gpu.py [--case NAME ...] [--price-per-hour DOLLARS] [--steps N] [--json FILE]

Each model is made on the device in its precision, gets rank-16 LoRA on all linear layers, and is trained by
`run_training`, as a night trains it: packing, forward, backward, clipping, optimiser. What is measured lies between
the end of the warm-up (compiling included) and the last step but one, since a run evaluates at its last. Gradient
checkpointing is on where the plan's forecast asks for it, and what that computes twice counts once. The minutes are
those of training alone, for 52,002 rows of the measured mean length; bench/train.py --case 1b-lora 8b-lora compares
with TRL on the same machine. Without a GPU only `--case tiny` runs, to try the bench itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from nomoat.data.pack import StepPlan
from nomoat.model.attention import PACKED
from nomoat.model.fused.families import fuse
from nomoat.model.fused.output import logits_at_once
from nomoat.model.load import Machine, choose_machine
from nomoat.night.forecast import GRADIENT_BYTES
from nomoat.plan.cost import MOMENT_BYTES
from nomoat.plan.memory import Checkpointing, StepSize, plan_memory
from nomoat.plan.probe import free_bytes
from nomoat.train.hooks import Hooks, Progress
from nomoat.train.loop import TrainResult
from nomoat.train.run import run_training
from training.cases import CASES, FLOPS_SAID, Case, pass_flops
from training.material import (
    SEED,
    SOURCES_SAID,
    Material,
    add_adapter,
    llama_config,
    open_tokenizer,
    sources,
    write_rows,
)
from training.measure import gemm_peak
from training.ours import NEVER, OPTIM, constant_keys
from training.process import peak_bytes

ALPACA_ROWS, EPOCHS = 52_002, 3
NAMES = {"1b": "1b-lora", "8b": "8b-lora", "13b": "13b-lora", "tiny": "tiny-lora"}
ON_A_GPU = ("1b", "8b", "13b")
PEAK_SIZE = {"cuda": 8192, "cpu": 2048}
"""Width of the square product whose speed is the peak: a GPU needs a larger one to be busy."""


@dataclass(frozen=True)
class Figures:
    """Of one case; rates a second of wall time, shares of the peak measured in the same run."""

    case: str
    data: str
    mean_row_tokens: float
    parameters: int
    steps: int
    real_tokens: int
    seconds: float
    tokens_per_second: float
    gemm_peak_flops_per_second: float
    mfu: float
    mfu_needed: float
    peak_bytes: int
    recomputed: bool
    events: list[str]
    minutes: float
    dollars: float | None

    def said(self) -> str:
        """A few lines."""
        cost = "" if self.dollars is None else f", {self.dollars:.2f} dollars"
        again = ", blocks computed twice" if self.recomputed else ""
        lines = [
            f"{self.case}: {self.parameters / 1e9:.4g}B weights; {self.real_tokens:,} tokens in "
            f"{self.steps} steps; GEMM peak {self.gemm_peak_flops_per_second / 1e12:,.2f} TFLOP/s",
            f"  {self.tokens_per_second:,.0f} real tokens/s, MFU {self.mfu:.0%}, (b) {self.mfu_needed:.0%}, "
            f"peak memory {self.peak_bytes / 1e9:.2f} GB{again}",
            f"  {EPOCHS} epochs of {ALPACA_ROWS:,} rows of {self.mean_row_tokens:.0f} tokens: "
            f"{self.minutes:,.1f} minutes{cost}",
        ]
        return "\n".join([*lines, *(f"  {event}" for event in self.events)])


def main() -> None:
    parser = _parser()
    args = parser.parse_args()
    machine = choose_machine()
    if machine.device == "cpu" and args.case is None:
        print("not run: there is no GPU here (--case tiny tries the bench)")
        return
    cases = args.case or ON_A_GPU
    if machine.device == "cpu" and set(cases) & set(ON_A_GPU):
        parser.error("there is no GPU here; only --case tiny runs")
    if args.warm_up < 1 or args.steps < args.warm_up + 2:
        parser.error(
            f"--steps {args.steps} --warm-up {args.warm_up}: expected a step of warm-up at least, and two more steps"
        )
    said = _machine(machine)
    print(" · ".join(f"{key} {value}" for key, value in said.items()), flush=True)
    found = []
    for name in cases:
        found.append(_measure(CASES[NAMES[name]], machine, args))
        print(found[-1].said(), flush=True)
    print(FLOPS_SAID)
    if args.json is not None:
        result = {"machine": said, "cases": [asdict(figures) for figures in found]}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


@dataclass(frozen=True)
class Run:
    """What was seen of one: when its steps ended, the peaks of speed and memory, and what was chosen."""

    parameters: int
    ends: list[float]
    result: TrainResult
    peak_flops: float
    peak_bytes: int
    recomputed: bool


def _measure(case: Case, machine: Machine, args: argparse.Namespace) -> Figures:
    if machine.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    data, tokenizer_path = sources(case, args.data, args.tokenizer)
    with tempfile.TemporaryDirectory(prefix="nomoat-gpu-") as folder:
        tokenizer = open_tokenizer(tokenizer_path)
        write_rows(case, tokenizer, data, Path(folder), at_least=1)
        material = Material(Path(folder), rows_in_a_pass=args.rows)
        return _figures(case, material, args, str(data), _run(case, tokenizer, material, machine, args))


def _run(case: Case, tokenizer: Any, material: Material, machine: Machine, args: argparse.Namespace) -> Run:
    peak_flops = gemm_peak(machine, PEAK_SIZE[machine.device])
    torch.manual_seed(SEED)
    with torch.device(machine.device):
        model: Any = AutoModelForCausalLM.from_config(
            llama_config(case.shape, tokenizer), dtype=machine.dtype, attn_implementation=PACKED
        )
    fuse(model)
    parameters = sum(p.numel() for p in model.parameters())
    model = add_adapter(model, case)
    memory = plan_memory(_still_to_come(case, args), "auto", free_bytes(machine))
    for sentence in memory.sentences:
        print(f"{case.name}: beside its weights, {sentence}", flush=True)
    ends: list[float] = []
    result = _train(model, material, machine, args, memory.gradient_checkpointing, ends)
    again = any("computed again" in event for event in result.curve.events)
    return Run(parameters, ends, result, peak_flops, peak_bytes(), memory.recomputes or again)


def _still_to_come(case: Case, args: argparse.Namespace) -> StepSize:
    """What a step needs beside the weights, which are there already."""
    return StepSize(
        weights_bytes=0.0,
        trainable=case.trainable,
        trained_bytes=GRADIENT_BYTES + MOMENT_BYTES[OPTIM],
        micro_batch_tokens=args.micro_batch_tokens,
        width=case.shape.width,
        layers=case.shape.layers,
        logits=logits_at_once(args.micro_batch_tokens, case.shape.vocabulary, 2),
    )


def _train(
    model: Any,
    material: Material,
    machine: Machine,
    args: argparse.Namespace,
    checkpointing: Checkpointing,
    ends: list[float],
) -> TrainResult:
    """Train, and note when every step ended."""

    def on_progress(_: Progress) -> None:
        if machine.device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    return run_training(
        model,
        material.rows,
        material.held_out,
        material.folder / "checkpoints",
        keys=constant_keys(
            learning_rate=1e-4,
            num_train_epochs=float(NEVER),
            max_steps=args.steps,
            tokens_per_step=args.tokens_per_step,
            micro_batch_tokens=args.micro_batch_tokens,
        ),
        gradient_checkpointing=checkpointing,
        machine=machine,
        hooks=Hooks(on_progress=on_progress),
    )


def _figures(case: Case, material: Material, args: argparse.Namespace, data: str, run: Run) -> Figures:
    rows = material.rows
    plan = StepPlan(
        rows.lengths,
        tokens_per_step=args.tokens_per_step,
        epochs=float(NEVER),
        max_steps=args.steps,
        seed=SEED,
    )
    measured = [row for step in range(args.warm_up, args.steps - 1) for row in plan[step]]
    seconds = run.ends[args.steps - 2] - run.ends[args.warm_up - 1]
    tokens = int(rows.lengths[measured].sum())
    flops = pass_flops(case, rows.lengths[measured], int(material.count_supervised()[measured].sum()))
    assert flops is not None
    mean = float(rows.lengths.mean())
    minutes = EPOCHS * ALPACA_ROWS * mean / (tokens / seconds) / 60
    price = args.price_per_hour
    return Figures(
        case=case.name,
        data=data,
        mean_row_tokens=mean,
        parameters=run.parameters,
        steps=args.steps - 1 - args.warm_up,
        real_tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        gemm_peak_flops_per_second=run.peak_flops,
        mfu=flops.everywhere / seconds / run.peak_flops,
        mfu_needed=flops.needed / seconds / run.peak_flops,
        peak_bytes=run.peak_bytes,
        recomputed=run.recomputed,
        events=run.result.curve.events,
        minutes=minutes,
        dollars=None if price is None else minutes / 60 * price,
    )


def _machine(machine: Machine) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if machine.device == "cuda" else "no GPU"
    dtype = str(machine.dtype).removeprefix("torch.")
    return {
        "device": name,
        "dtype": dtype,
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument(
        "--price-per-hour", type=float, metavar="DOLLARS", help="what the machine costs an hour"
    )
    parser.add_argument("--steps", type=int, default=30, help="steps of a run (default 30)")
    parser.add_argument("--warm-up", type=int, default=8, help="steps that are not measured (default 8)")
    parser.add_argument("--tokens-per-step", type=int, default=8192)
    parser.add_argument("--micro-batch-tokens", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=2000, help="rows to take from the data (default 2,000)")
    parser.add_argument(
        "--data", type=Path, help=f"rows in any format nomoat reads (default: {SOURCES_SAID})"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with tokenizer.json, or a SentencePiece *.model"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    return parser


if __name__ == "__main__":
    main()
