"""The figures of a case as the lines that are printed."""

from __future__ import annotations

from typing import Any

from training.cases import Case

HEADINGS = ("", "real tok/s", "supervised tok/s", "peak memory", "MFU", "MFU (b)", "nomoat is", "its memory")


def case_table(case: Case, figures: dict[str, Any]) -> str:
    """A line on what was trained, and a row for each side."""
    title = f"\n{case.name}: {_weights(case)}; {_pass(figures['pass'])}; GEMM peak {_giga(figures)} GFLOP/s"
    rows = [HEADINGS, *(_row(side, figures) for side in figures["sides"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([title, *lines])


def _weights(case: Case) -> str:
    base = f"{(case.shape.body + case.shape.head) / 1e6:.1f}M weights"
    if not case.lora:
        return f"{base}, all trained"
    where = "" if case.lora_layers is None else f" on the top {case.lora_layers} blocks"
    return f"{base}, frozen, and {case.trainable / 1e6:.2f}M of LoRA{where}"


def _pass(done: dict[str, Any]) -> str:
    tokens = f"{done['real_tokens']:,} tokens, {done['supervised_tokens']:,} of them supervised"
    return f"a pass is {done['rows']} rows, {tokens}"


def _giga(figures: dict[str, Any]) -> str:
    return f"{figures['gemm_peak_flops_per_second'] / 1e9:,.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _row(side: str, figures: dict[str, Any]) -> tuple[str, ...]:
    of = figures["sides"][side]
    ratio = figures["ratios"].get(side)
    speed = ratio["speed"] if ratio else None
    return (
        side,
        f"{of['real_tokens_per_second']['median']:,.0f}",
        f"{of['supervised_tokens_per_second']['median']:,.0f}",
        f"{of['peak_bytes'] / 1e9:.2f} GB",
        _share(of["mfu"]),
        _share(of["mfu_needed"]),
        f"{speed['median']:.2f}× ({speed['min']:.2f}–{speed['max']:.2f})" if speed else "",
        f"{ratio['memory']:.2f}×" if ratio else "",
    )
