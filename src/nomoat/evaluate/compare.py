"""From two models' losses and answers to a verdict: pure functions that build a `Comparison`.

Letters: N held-out rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from nomoat.errors import DataError, ModelError
from nomoat.evaluate.comparison import Answer, Comparison, Estimate, Metric, Verdict
from nomoat.evaluate.stats import intervals

PASS_RATE = "pass rate"
LOSS = "loss"

RowLosses = tuple[npt.ArrayLike, npt.ArrayLike]
"""Summed negative log-likelihood of each row in nats [N], and its number of supervised tokens [N]."""


def compare_losses(
    base: RowLosses,
    tuned: RowLosses,
    *,
    confidence: float,
    samples: int,
    seed: int,
    suite: str = "held-out rows",
) -> Metric:
    """Mean loss per token of both models on the same rows, rows being the independent unit.

    Rows without a supervised token carry no evidence and are left out.

    Raises DataError where fewer than two rows are left, ModelError where a loss is not finite.
    """
    base_nll_N, tokens_N = (np.asarray(column, dtype=np.float64) for column in base)
    tuned_nll_N, tuned_tokens_N = (np.asarray(column, dtype=np.float64) for column in tuned)
    assert np.array_equal(tokens_N, tuned_tokens_N), "base and tuned were measured on different rows"
    _refuse_not_finite("base", base_nll_N)
    _refuse_not_finite("tuned", tuned_nll_N)
    kept = tokens_N > 0
    if kept.sum() < 2:
        raise DataError(
            f"{suite}: got {int(kept.sum())} with a trained token; expected at least 2 to compare two models",
            hint="Give more rows, or keep more of them out of training: data.held_out=0.2",
        )
    losses = intervals.paired_bootstrap_ratio(
        base_nll_N[kept], tokens_N[kept], tuned_nll_N[kept], confidence=confidence, samples=samples, seed=seed
    )
    return Metric(suite, LOSS, "nats per token", False, losses.base, losses.tuned, losses.difference)


def compare_pass_rates(
    answers: Sequence[Answer], *, confidence: float, samples: int, seed: int
) -> list[Metric]:
    """The pass rate of whole prompts, which decides, then one for every kind of check, which do not.

    Where a prompt has several checks of a kind, it passes that kind when it passes all of them. Empty where
    no answer was checked.
    """
    checked = [answer for answer in answers if answer.base_passed is not None]
    if not checked:
        return []
    suites = sorted({answer.suite for answer in checked})

    def measure(name: str, passes: Iterable[tuple[bool, bool]]) -> Metric:
        counts = Counter(passes)  # (base, tuned) -> prompts
        n = counts.total()
        return Metric(
            suite=", ".join(suites),
            name=name,
            unit="share of prompts",
            higher_is_better=True,
            base=intervals.wilson(counts[True, True] + counts[True, False], n, confidence),
            tuned=intervals.wilson(counts[True, True] + counts[False, True], n, confidence),
            difference=intervals.paired_difference_of_rates(
                counts[True, False], counts[False, True], n, confidence=confidence, samples=samples, seed=seed
            ),
        )

    by_kind: dict[str, list[tuple[bool, bool]]] = {}
    for answer in checked:
        for kind in dict.fromkeys(check["kind"] for check in answer.checks):
            of_kind = [check for check in answer.checks if check["kind"] == kind]
            base_passed, tuned_passed = (
                all(check[key] for check in of_kind) for key in ("base_passed", "tuned_passed")
            )
            by_kind.setdefault(kind, []).append((base_passed, tuned_passed))
    whole = measure(PASS_RATE, ((bool(a.base_passed), bool(a.tuned_passed)) for a in checked))
    return [whole, *(measure(f"{PASS_RATE}: {kind}", by_kind[kind]) for kind in sorted(by_kind))]


def conclude(metrics: Sequence[Metric], answers: Sequence[Answer], *, confidence: float) -> Comparison:
    """The verdict: better or worse only where the interval of the deciding difference excludes zero."""
    by_name = {metric.name: metric for metric in metrics}
    decisive = by_name.get(PASS_RATE) or by_name.get(LOSS)
    assert decisive is not None, f"neither {PASS_RATE} nor {LOSS} among {list(by_name)}"
    verdict = _verdict(decisive)
    said = _say_passes if decisive.name == PASS_RATE else _say_loss
    return Comparison(
        list(metrics), list(answers), verdict, decisive.name, said(decisive, verdict, confidence)
    )


def no_rival(held_out_loss: float) -> Comparison:
    """What can be said of a base trained from scratch, whose held-out loss in nats a token is known."""
    said = f"A new base was trained from scratch: held-out loss {held_out_loss:.3f} nats a token. It has no rival yet."
    return Comparison([], [], "not compared", "", said)


def _verdict(metric: Metric) -> Verdict:
    is_higher, is_lower = metric.difference.low > 0, metric.difference.high < 0
    if not is_higher and not is_lower:
        return "not shown better"
    return "better" if is_higher == metric.higher_is_better else "worse"


def _say_passes(metric: Metric, verdict: Verdict, confidence: float) -> str:
    n = metric.tuned.n
    tuned, base = (round(estimate.value * n) for estimate in (metric.tuned, metric.base))
    difference, low, high = (100 * x for x in _three(metric.difference))
    said = (
        f"The tuned model passes {tuned} of {n} held-out {'prompt' if n == 1 else 'prompts'}, the base {base}: "
        f"{_fixed(difference, '+.1f')} points "
        f"({confidence * 100:g}% interval {_fixed(low, '.1f')} to {_fixed(high, '.1f')})."
    )
    return said + _consequence(verdict, worst=-low, best=high, form=".1f", unit=" points", evidence="answers")


def _say_loss(metric: Metric, verdict: Verdict, confidence: float) -> str:
    difference, low, high = _three(metric.difference)
    said = (
        f"The tuned model's loss on {metric.tuned.n} {metric.suite} is {metric.tuned.value:.3f} nats per token, "
        f"the base's {metric.base.value:.3f}: {_fixed(difference, '+.3f')} "
        f"({confidence * 100:g}% interval {_fixed(low, '.3f')} to {_fixed(high, '.3f')}; lower is better)."
    )
    return said + _consequence(verdict, worst=high, best=-low, form=".3f", unit="", evidence="rows")


def _consequence(verdict: Verdict, *, worst: float, best: float, form: str, unit: str, evidence: str) -> str:
    """What the interval means where it is no plain success; `worst` and `best` are how far it reaches."""
    if verdict == "better":
        return ""
    if verdict == "worse":
        return " It is worse than its base."
    reach = (
        f"{_fixed(size, form)}{unit} {word}" if size else "no change"
        for size, word in ((worst, "worse"), (best, "better"))
    )
    return f" It is not shown better than its base: anything from {' to '.join(reach)} fits these {evidence}."


def _three(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _fixed(value: float, form: str) -> str:
    """A number with fixed decimals, but never a zero that it is not: the verdict hangs on that."""
    text = format(value, form)
    is_false_zero = value != 0 and float(text) == 0
    return format(value, form[:-2] + "1g") if is_false_zero else text


def _refuse_not_finite(who: str, nll_N: npt.NDArray[np.float64]) -> None:
    broken = np.flatnonzero(~np.isfinite(nll_N))
    if len(broken):
        raise ModelError(
            f"the {who} model's loss on held-out row {broken[0] + 1} is {nll_N[broken[0]]}; "
            "expected a finite number",
            hint="Its weights hold values that are not finite: lower the learning rate, or use dtype float32.",
        )
