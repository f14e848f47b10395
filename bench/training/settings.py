"""How each side is set. What a peer was tried with is all here; `train.py --tune` tries it again."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

Settings = dict[str, Any]

NOMOAT, TRL_DEFAULT, TRL, TRAINER = "nomoat", "trl-default", "trl", "trainer"
SIDES = (TRL_DEFAULT, TRL, TRAINER, NOMOAT)
DPO_DEFAULT, DPO = "trl-dpo-default", "trl-dpo"
PAIR_SIDES = (DPO_DEFAULT, DPO, NOMOAT)
LEFT_OUT = {
    "llama-factory": "its newest release, 0.9.5, asks for trl<=0.24.0, transformers<=5.6.0 and datasets<=4.0.0, so it "
    "cannot be installed beside what is measured here"
}

ROWS_A_STEP = 16
"""About as many tokens of Alpaca as nomoat's step of 2,048; peers reach it by accumulation where they are faster
on smaller batches."""

_QUICK = {"gradient_checkpointing": False, "logging_strategy": "no", "optim": "adamw_torch_fused"}


def _grouped(rows: int) -> Settings:
    return _QUICK | {
        "train_sampling_strategy": "group_by_length",
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": max(1, ROWS_A_STEP // rows),
    }


def _packed(bins: int) -> Settings:
    """Bins of 512 tokens, 2,048 a step."""
    return _QUICK | {
        "packing": True,
        "per_device_train_batch_size": bins,
        "gradient_accumulation_steps": 4 // bins,
    }


def _compiled(settings: Settings) -> Settings:
    return settings | {"torch_compile": True}


_GROUPED = {f"grouped {rows}": _grouped(rows) for rows in (1, 2, 4, 8, 16, 32)}
_GROUPED_COMPILED = {f"grouped {rows}, compiled": _compiled(_grouped(rows)) for rows in (2, 4, 8, 16)}

TRIED: dict[str, dict[str, Settings]] = {
    TRL: _GROUPED
    | _GROUPED_COMPILED
    | {f"packed {bins}": _packed(bins) for bins in (1, 2, 4)}
    | {"packed 1, compiled": _compiled(_packed(1))},
    TRAINER: _GROUPED | _GROUPED_COMPILED,
}

PAIRS_A_STEP = 8
"""About as many tokens of HH-RLHF as nomoat's step of 2,048, which holds every prompt once."""


def _sorted(pairs: int) -> Settings:
    """Pairs of like length together; the reference before the first step, as nomoat computes it."""
    return _QUICK | {
        "precompute_ref_log_probs": True,
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": pairs,
        "gradient_accumulation_steps": PAIRS_A_STEP // pairs,
    }


TRIED[DPO] = {f"sorted {pairs}": _sorted(pairs) for pairs in (1, 2, 4, 8)} | {
    f"sorted {pairs}, compiled": _compiled(_sorted(pairs)) for pairs in (1, 4)
}

BEST = {
    "s-lora": {TRL: "packed 1, compiled", TRAINER: "grouped 4, compiled"},
    "m-lora": {TRL: "grouped 4", TRAINER: "grouped 4, compiled"},
    "s-full": {TRL: "grouped 4", TRAINER: "grouped 4, compiled"},
    "m-top": {TRL: "packed 1, compiled", TRAINER: "grouped 4, compiled"},
}
"""The fastest of those tried on two cores with bfloat16 (docs/benchmarks.md); elsewhere `--tune` finds others. Of
DPO the fastest is compiled, but then policy and reference differ before the first step, by rounding."""
ELSE = {TRL: "grouped 2", TRAINER: "grouped 2", DPO: "sorted 1"}


def settings_of(side: str, best: dict[str, str]) -> Settings:
    """TRL's defaults and nomoat's are their own; the others are set as `best` names it."""
    return TRIED[side][best[side]] if side in TRIED else {}


def missing(side: str) -> str | None:
    """Why a side cannot run here; None where it can."""
    if side.startswith("trl") and find_spec("trl") is None:
        return "trl is not installed (pip install -e '.[dev]')"
    return None
