"""The stage `reward`: a reward model from judged answers, and how far its word can be believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.data.judged import JudgedStore
from nomoat.errors import DataError
from nomoat.evaluate.stats.calibration import cross_fitted, reliability, temperature
from nomoat.evaluate.stats.intervals import Floats
from nomoat.evaluate.stats.winrate import win_rate
from nomoat.model.load import Machine
from nomoat.night.held_out import HELD_OUT
from nomoat.night.jobs import Folders, Outcome, Report
from nomoat.night.stages import hooks_of, tokenizer_with_template, trained
from nomoat.train.reward_model import Measured, reward_model

LEAST_HELD_OUT = 4
"""Held-out pairs: half of them steer training, and an interval of the rest needs two."""
MEASURED = "measured.json"


def run_reward(
    folders: Folders,
    report: Report,
    *,
    base: Path,
    comparisons: Path,
    chat_template: Path | None,
    confidence: float,
    machine: Machine,
    seconds_left: Callable[[], float | None],
    stop_asked: Callable[[], bool],
    **keys: Any,
) -> Outcome:
    """Train a reward model and write it as `model/`, with what it makes of held-out pairs in `measured.json`."""
    held_out = JudgedStore(comparisons / "judged" / HELD_OUT)
    if len(held_out) < LEAST_HELD_OUT:
        raise DataError(
            f"reward: {len(held_out)} pairs are held out; expected at least {LEAST_HELD_OUT}, of which half steer "
            "training and the others say what came of it.",
            hint="Raise data.held_out, or add rows.",
        )
    tokenizer, _ = tokenizer_with_template(base, chat_template)
    result, measured = reward_model(
        base,
        tokenizer,
        JudgedStore(comparisons / "judged" / "train"),
        held_out,
        folders.out,
        folders.scratch,
        temperature_of=lambda found: temperature(found.difference_P, _wins(found)),
        machine=machine,
        hooks=hooks_of(report, seconds_left, stop_asked),
        **keys,
    )
    outcome = trained(folders.out, result)
    found = measure(measured, confidence)
    (folders.out / MEASURED).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    said = (
        f"held-out loss {result.first_loss:.3f} → {result.best_loss:.3f}, best at step {result.best_step} of "
        f"{result.steps}; follows {found['held_out_accuracy']:.1%} of {found['decided']} other held-out judgements "
        f"({confidence:.0%} interval {found['accuracy_low']:.1%} to {found['accuracy_high']:.1%}); calibration error "
        f"{found['calibration_error']:.1%}, before calibration {found['uncalibrated_error']:.1%}"
    )
    return replace(outcome, meta=outcome.meta | found, said=said)


def measure(measured: Measured, confidence: float) -> dict[str, Any]:
    """How many held-out judgements the scores follow, with an interval that takes pairs of one prompt as one piece of
    evidence, and how far σ of a difference can be believed, before and after the temperature.

    The temperature of the model is that of all pairs; the error is told of temperatures that did not see the pair.
    Raises DataError where all pairs are ties, or fewer than two prompts are judged.
    """
    difference_P, prompt_P = measured.difference_P, measured.prompt_P
    decided_P = ~measured.tie_P
    if len(np.unique(prompt_P[decided_P])) < 2:
        raise DataError(
            "reward: the held-out pairs that are no ties have fewer than two prompts; an interval needs two.",
            hint="Raise data.held_out, or add rows.",
        )
    followed_P = 0.5 + 0.5 * np.sign(difference_P[decided_P])
    accuracy = win_rate(followed_P, prompt_P[decided_P], confidence=confidence)
    wins_P = _wins(measured)
    calibrated = reliability(cross_fitted(difference_P, wins_P, prompt_P), wins_P)
    plain = reliability(1 / (1 + np.exp(-difference_P)), wins_P)
    return {
        "held_out_accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "confidence": confidence,
        "decided": int(decided_P.sum()),
        "ties": int(measured.tie_P.sum()),
        "prompts": accuracy.n,
        "temperature": temperature(difference_P, wins_P),
        "calibration_error": calibrated.error,
        "uncalibrated_error": plain.error,
        "bins": [asdict(each) for each in calibrated.bins],
    }


def _wins(measured: Measured) -> Floats:
    return np.where(measured.tie_P, 0.5, 1.0)
