"""The verdict and the sentence, from answers and losses."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from nomoat.errors import DataError, ModelError
from nomoat.evaluate.compare import compare_losses, compare_pass_rates, conclude
from nomoat.evaluate.comparison import Answer, Estimate, Metric
from nomoat.evaluate.stats.intervals import tango, wilson

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "samples": 4000, "seed": 1}


def answers(both: int, only_tuned: int, only_base: int, neither: int, kind: str = "words") -> list[Answer]:
    outcomes = [(True, True)] * both + [(False, True)] * only_tuned + [(True, False)] * only_base
    outcomes += [(False, False)] * neither
    return [
        Answer(
            suite="stories",
            prompt_id=str(index),
            messages=[{"role": "user", "content": "Tell a story."}],
            base="b",
            tuned="t",
            base_passed=base,
            tuned_passed=tuned,
            checks=[
                {
                    "kind": kind,
                    "base_passed": base,
                    "tuned_passed": tuned,
                    "base_detail": "",
                    "tuned_detail": "",
                }
            ],
        )
        for index, (base, tuned) in enumerate(outcomes)
    ]


def unchecked(answer: Answer) -> Answer:
    return Answer(answer.suite, answer.prompt_id, answer.messages, answer.base, answer.tuned, None, None)


def rows(difference: float, n: int = 60, noise: float = 0.1) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Losses (nll, tokens) of base and tuned, which is `difference` nats per token apart."""
    generator = np.random.default_rng(n)
    tokens_N = generator.integers(10, 200, n)
    base_N = generator.normal(2.4, 0.4, n)
    tuned_N = base_N + difference + generator.normal(0, noise, n)
    return (base_N * tokens_N, tokens_N), (tuned_N * tokens_N, tokens_N)


def said(*counts: int) -> tuple[str, str]:
    given = answers(*counts)
    comparison = conclude(compare_pass_rates(given, **BOOTSTRAP), given, confidence=0.95)
    assert comparison.decided_by == "pass rate"
    return comparison.verdict, comparison.said


def test_a_clear_gain_is_better_and_says_by_how_much() -> None:
    given = answers(7, 74, 2, 37)
    metrics = compare_pass_rates(given, **BOOTSTRAP)
    whole = metrics[0]
    assert (whole.suite, whole.name, whole.unit) == ("stories", "pass rate", "share of prompts")
    assert whole.base == wilson(9, 120, 0.95)
    assert whole.tuned == wilson(81, 120, 0.95)
    assert whole.difference.value == pytest.approx(0.6, abs=1e-12)
    # Tango's interval of the same table is 0.503 to 0.684: where pairs are many, the two agree.
    reference = tango(2, 74, 120, 0.95)
    assert whole.difference.low == pytest.approx(reference.low, abs=0.02)
    assert whole.difference.high == pytest.approx(reference.high, abs=0.02)
    comparison = conclude(metrics, given, confidence=0.95)
    assert comparison.verdict == "better"
    low, high = 100 * whole.difference.low, 100 * whole.difference.high
    assert comparison.said == (
        "The tuned model passes 81 of 120 held-out prompts, the base 9: "
        f"+60.0 points (95% interval {low:.1f} to {high:.1f})."
    )
    assert comparison.answers == given


def test_no_clear_gain_says_how_far_the_interval_reaches() -> None:
    estimate = tango(4, 5, 120, 0.95)
    low, high = 100 * estimate.low, 100 * estimate.high
    assert said(30, 5, 4, 81) == (
        "not shown better",
        "The tuned model passes 35 of 120 held-out prompts, the base 34: +0.8 points "
        f"(95% interval {low:.1f} to {high:.1f}). It is not shown better than its base: anything from "
        f"{-low:.1f} points worse to {high:.1f} points better fits these answers.",
    )


def test_a_clear_loss_is_worse() -> None:
    verdict, sentence = said(10, 1, 40, 9)
    assert verdict == "worse"
    assert sentence.startswith(
        "The tuned model passes 11 of 60 held-out prompts, the base 50: -65.0 points (95% "
    )
    assert sentence.endswith("). It is worse than its base.")


@pytest.mark.parametrize(("both", "neither", "passes"), [(40, 0, 40), (0, 40, 0)])
def test_ceiling_and_floor_have_no_zero_width(both: int, neither: int, passes: int) -> None:
    # z^2 / (40 + z^2) = 0.0876 (Tango 1998 with no discordant pair)
    assert said(both, 0, 0, neither) == (
        "not shown better",
        f"The tuned model passes {passes} of 40 held-out prompts, the base {passes}: +0.0 points "
        "(95% interval -8.8 to 8.8). It is not shown better than its base: anything from 8.8 points worse to "
        "8.8 points better fits these answers.",
    )


def test_five_prompts_all_gained_are_too_few_for_a_bootstrap_but_not_for_a_verdict() -> None:
    assert said(0, 3, 0, 117)[0] == "not shown better"
    assert said(0, 5, 0, 115)[0] == "better"


def test_one_prompt_decides_nothing() -> None:
    verdict, sentence = said(0, 1, 0, 0)
    assert verdict == "not shown better"
    assert sentence.startswith("The tuned model passes 1 of 1 held-out prompt, the base 0: +100.0 points")


def test_each_kind_of_check_is_counted_once_a_prompt() -> None:
    def check(kind: str, base: bool, tuned: bool) -> dict[str, Any]:
        return {
            "kind": kind,
            "base_passed": base,
            "tuned_passed": tuned,
            "base_detail": "",
            "tuned_detail": "",
        }

    given = [
        Answer(
            "a", "1", [], "", "", False, True, [check("includes", True, True), check("includes", False, True)]
        ),
        Answer(
            "b", "2", [], "", "", False, False, [check("includes", False, True), check("words", False, False)]
        ),
        Answer("b", "3", [], "", "", None, None),
    ]
    whole, includes, words = compare_pass_rates(given, **BOOTSTRAP)
    assert (whole.suite, whole.tuned.n, whole.tuned.value) == ("a, b", 2, 0.5)
    assert (includes.name, includes.base.value, includes.tuned.value, includes.base.n) == (
        "pass rate: includes",
        0.0,
        1.0,
        2,
    )
    assert (words.name, words.tuned.value, words.difference.n) == ("pass rate: words", 0.0, 1)


def test_without_checks_there_is_no_pass_rate_and_the_loss_decides() -> None:
    given = [unchecked(answer) for answer in answers(1, 1, 1, 1)]
    assert compare_pass_rates(given, **BOOTSTRAP) == []
    loss = compare_losses(*rows(-0.5), **BOOTSTRAP)
    assert (loss.suite, loss.name, loss.unit, loss.higher_is_better) == (
        "held-out rows",
        "loss",
        "nats per token",
        False,
    )
    comparison = conclude([loss], given, confidence=0.95)
    assert (comparison.verdict, comparison.decided_by) == ("better", "loss")
    assert comparison.said == (
        f"The tuned model's loss on 60 held-out rows is {loss.tuned.value:.3f} nats per token, the base's "
        f"{loss.base.value:.3f}: {loss.difference.value:+.3f} (95% interval {loss.difference.low:.3f} to "
        f"{loss.difference.high:.3f}; lower is better)."
    )
    assert loss.difference.value == pytest.approx(-0.5, abs=0.05)


def test_pass_rate_decides_even_where_the_loss_says_otherwise() -> None:
    given = answers(20, 1, 30, 20)
    metrics = [compare_losses(*rows(-0.5), **BOOTSTRAP), *compare_pass_rates(given, **BOOTSTRAP)]
    comparison = conclude(metrics, given, confidence=0.95)
    assert (comparison.verdict, comparison.decided_by) == ("worse", "pass rate")
    assert comparison.metrics == metrics


def test_a_higher_loss_is_worse_and_an_equal_one_is_not_better() -> None:
    worse = conclude([compare_losses(*rows(0.4), **BOOTSTRAP)], [], confidence=0.95)
    assert worse.verdict == "worse"
    assert worse.said.endswith("; lower is better). It is worse than its base.")
    base, _ = rows(0.0)
    same = compare_losses(base, base, **BOOTSTRAP)
    assert same.difference.low < 0 < same.difference.high
    equal = conclude([same], [], confidence=0.95)
    assert equal.verdict == "not shown better"
    reach = f"{same.difference.high:.3f} worse to {-same.difference.low:.3f} better"
    assert equal.said.endswith(
        f"It is not shown better than its base: anything from {reach} fits these rows."
    )


def test_rows_without_a_trained_token_are_left_out() -> None:
    (base_nll_N, tokens_N), (tuned_nll_N, _) = rows(-0.5, n=20)
    with_empty = np.append(tokens_N, 0)
    loss = compare_losses(
        (np.append(base_nll_N, 0.0), with_empty), (np.append(tuned_nll_N, 0.0), with_empty), **BOOTSTRAP
    )
    assert loss == compare_losses((base_nll_N, tokens_N), (tuned_nll_N, tokens_N), **BOOTSTRAP)
    assert loss.difference.n == 20


def test_one_row_is_refused_with_a_way_out() -> None:
    with pytest.raises(DataError) as caught:
        compare_losses(([2.0, 0.0], [3, 0]), ([1.0, 0.0], [3, 0]), **BOOTSTRAP)
    assert str(caught.value) == (
        "held-out rows: got 1 with a trained token; expected at least 2 to compare two models\n"
        "  Give more rows, or keep more of them out of training: data.held_out=0.2"
    )


def test_a_model_that_diverged_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        compare_losses(([2.0, 3.0], [3, 4]), ([1.0, float("nan")], [3, 4]), **BOOTSTRAP)
    assert str(caught.value) == (
        "the tuned model's loss on held-out row 2 is nan; expected a finite number\n"
        "  Its weights hold values that are not finite: lower the learning rate, or use dtype float32."
    )


def test_losses_of_different_rows_are_our_own_fault() -> None:
    with pytest.raises(AssertionError, match="base and tuned were measured on different rows"):
        compare_losses(([2.0, 3.0], [3, 4]), ([1.0, 2.0], [4, 3]), **BOOTSTRAP)


def test_a_bound_beside_zero_is_not_printed_as_zero() -> None:
    sure, barely = Estimate(2.0, 1.9, 2.1, 50), Estimate(-0.002, -0.004, -0.00003, 50)
    metric = Metric("held-out rows", "loss", "nats per token", False, sure, sure, barely)
    comparison = conclude([metric], [], confidence=0.95)
    assert comparison.verdict == "better"
    assert "-0.002 (95% interval -0.004 to -3e-05; lower is better)" in comparison.said


def test_an_interval_that_ends_at_zero_shows_nothing() -> None:
    level, touching = Estimate(0.5, 0.4, 0.6, 50), Estimate(0.02, 0.0, 0.06, 50)
    metric = Metric("stories", "pass rate", "share of prompts", True, level, level, touching)
    comparison = conclude([metric], [], confidence=0.95)
    assert comparison.verdict == "not shown better"
    assert comparison.said.endswith("anything from no change to 6.0 points better fits these answers.")


def test_a_comparison_is_plain_json() -> None:
    given = answers(7, 24, 2, 37)
    metrics = [*compare_pass_rates(given, **BOOTSTRAP), compare_losses(*rows(-0.1), **BOOTSTRAP)]
    comparison = conclude(metrics, given, confidence=0.95)
    assert json.loads(json.dumps(asdict(comparison)))["metrics"][0]["tuned"]["value"] == 31 / 70
