"""The comparison of tuned model and base, as every reader of it sees it: ledger, report, command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; `n` independent observations stand behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Metric:
    """One measure of both models and of their difference, paired by prompt or row.

    `difference` is tuned minus base; `higher_is_better` says which sign is good.
    """

    suite: str
    name: str
    unit: str
    higher_is_better: bool
    base: Estimate
    tuned: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Answer:
    """One prompt answered by both models; `checks` are [{kind, base_passed, tuned_passed, base_detail,
    tuned_detail}], empty where the prompt has none."""

    suite: str
    prompt_id: str
    messages: list[dict[str, Any]]
    base: str
    tuned: str
    base_passed: bool | None
    tuned_passed: bool | None
    checks: list[dict[str, Any]] = field(default_factory=list)


Verdict = Literal["better", "not shown better", "worse", "not compared"]


@dataclass(frozen=True)
class Comparison:
    """All of it. `verdict` follows from `decided_by`: the pass rate where there are checks, else the loss; a
    base from scratch has nothing to be compared with."""

    metrics: list[Metric]
    answers: list[Answer]
    verdict: Verdict
    decided_by: str
    said: str
