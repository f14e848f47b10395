"""Runs the sides of one case: first the losses at the same steps, then the interleaved passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

from nomoat.model.load import Machine
from training.cases import Case, pass_flops
from training.figures import TOLERANCE, Curves, ratio, side_figures
from training.material import Material
from training.process import Job, Pass, Process
from training.settings import NOMOAT, TRIED, Settings, settings_of

GEMM_SIZE = 2048
Say = Callable[[str], None]


class Bench:
    """One case on one machine; every pass is told to `say` when it is done."""

    def __init__(self, case: Case, material: Material, machine: Machine, threads: int, say: Say) -> None:
        self._case, self._material, self._machine = case, material, machine
        self._threads, self._say = threads, say

    def curves(self, sides: list[str], best: dict[str, str], steps: int) -> Curves:
        """The losses of every side at the same `steps`, from the same weights on the same batches."""
        losses = {}
        for side in sides:
            with self._start(side, settings_of(side, best), passes=1, curve_steps=steps) as process:
                losses[side] = process.next_pass().losses
        tolerance = TOLERANCE["bfloat16" if self._machine.bf16 else "float32"]
        return Curves.of(losses, tolerance)

    def speeds(self, sides: list[str], best: dict[str, str], rounds: int) -> dict[str, Any]:
        """Every side trains one pass to warm up, then one in each round."""
        passes: dict[str, list[Pass]] = {side: [] for side in sides}
        peaks = [gemm_peak(self._machine)]
        with ExitStack() as stack:
            processes = {
                side: stack.enter_context(self._start(side, settings_of(side, best), passes=rounds + 1))
                for side in sides
            }
            for number in range(rounds + 1):
                for side, process in processes.items():
                    passes[side].append(self._pass(process, f"round {number}" if number else "warm-up"))
                peaks.append(gemm_peak(self._machine))
        self._check_same_rows([done for each in passes.values() for done in each])
        return self._figures(passes, max(peaks))

    def tune(self, side: str, names: list[str]) -> tuple[str, dict[str, float]]:
        """The fastest of these settings of a peer, and real tokens a second of each."""
        rates = {}
        for name in names:
            with self._start(side, TRIED[side][name], passes=2) as process:
                self._pass(process, f"{name}, warm-up")
                done = self._pass(process, name)
                rates[name] = done.real_tokens / done.seconds
        return max(rates, key=rates.__getitem__), rates

    def _start(
        self, side: str, settings: Settings, *, passes: int, curve_steps: int | None = None
    ) -> Process:
        job = Job(
            side=side,
            settings=settings,
            case=self._case,
            folder=str(self._material.folder),
            rows=self._material.rows_in_a_pass,
            passes=passes,
            curve_steps=curve_steps,
            device=self._machine.device,
            bf16=self._machine.bf16,
            threads=self._threads,
        )
        kind = "speed" if curve_steps is None else "curve"
        return Process(job, self._material.folder / f"{side}-{kind}.log")

    def _pass(self, process: Process, what: str) -> Pass:
        done = process.next_pass()
        took = f"{done.seconds:.1f} s ({done.cpu_seconds:.1f} s of processor)"
        rate = f"{done.real_tokens / done.seconds:,.0f} real tokens/s"
        self._say(f"  {process.job.side}, {what}: {took}, {rate}, {done.peak_bytes / 1e9:.2f} GB")
        return done

    def _check_same_rows(self, passes: list[Pass]) -> None:
        expected = (int(self._material.rows.lengths.sum()), int(self._material.count_supervised().sum()))
        seen = {(done.real_tokens, done.supervised_tokens) for done in passes}
        assert seen == {expected}, f"tokens and supervised tokens of a pass: {seen}, expected {expected}"

    def _figures(self, passes: dict[str, list[Pass]], peak_flops: float) -> dict[str, Any]:
        lengths, supervised = self._material.rows.lengths, int(self._material.count_supervised().sum())
        flops = pass_flops(self._case, lengths, supervised)
        measured = {side: each[1:] for side, each in passes.items()}
        return {
            "pass": {
                "rows": len(lengths),
                "real_tokens": int(lengths.sum()),
                "supervised_tokens": supervised,
                "flops": flops and asdict(flops),
            },
            "gemm_peak_flops_per_second": peak_flops,
            "sides": {
                side: side_figures(passes[side][0], rounds, flops, peak_flops)
                for side, rounds in measured.items()
            },
            "ratios": {
                side: ratio(measured[NOMOAT], rounds)
                for side, rounds in measured.items()
                if side != NOMOAT and NOMOAT in measured
            },
        }


def gemm_peak(machine: Machine, size: int = GEMM_SIZE) -> float:
    """FLOPs a second of the best of five square products in the machine's precision."""
    left, right = (torch.randn(size, size, device=machine.device, dtype=machine.dtype) for _ in range(2))
    fastest = min(_seconds(left, right) for _ in range(5))
    return 2.0 * size**3 / fastest


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    _wait(left)
    started = time.perf_counter()
    torch.mm(left, right)
    _wait(left)
    return time.perf_counter() - started


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()
