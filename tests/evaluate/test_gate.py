"""The gate's verdict: when it promotes, when it keeps, and what it says is missing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nomoat.evaluate.gate import GateVerdict, Guard, Judged, Tally, decide
from nomoat.evaluate.stats.sequential import log_e_value


def of(*tallies: Tally, guards: tuple[Guard, ...] = (), alpha: float = 0.05) -> GateVerdict:
    return decide(tallies, guards, challenger="gen-0002", rival="gen-0001", alpha=alpha)


def checks(wins: int, losses: int, ties: int = 20) -> Tally:
    return Tally("checks", wins, losses, ties)


def votes(wins: int, losses: int, ties: int = 0) -> Tally:
    return Tally("votes", wins, losses, ties)


def loss(wins: int, losses: int) -> Tally:
    return Tally("loss", wins, losses, 0)


def test_clear_evidence_promotes() -> None:
    found = of(checks(32, 1, 27))
    assert found.verdict == "promote"
    assert found.said == (
        "gen-0002 replaces gen-0001. Evidence over a million to 1 that it is better, where 20 to 1 are asked: "
        "32 held-out prompts only it passes, 1 only the other."
    )
    (weighed,) = found.weighed
    assert weighed.rate is not None
    assert weighed.rate.value == pytest.approx((32 + 27 / 2) / 60)
    assert weighed.rate.low > 0.5


def test_checks_and_votes_add_up_where_neither_is_enough() -> None:
    apart = [of(checks(16, 7)), of(votes(34, 16, 4))]
    assert [found.verdict for found in apart] == ["not yet", "not yet"]
    both = of(checks(16, 7), votes(34, 16, 4))
    assert both.e_value == pytest.approx(apart[0].e_value * apart[1].e_value)
    assert both.verdict == ("promote" if both.e_value >= 20 else "not yet")
    assert both.e_value > 20


def test_nothing_measured_decides_nothing() -> None:
    found = of()
    assert (found.verdict, found.e_value, found.e_against) == ("not yet", 1.0, 1.0)
    assert found.votes_needed is not None
    assert found.said == (
        "Not yet: gen-0001 stays for now. There is nothing to decide on yet. "
        f"About {found.votes_needed} decided votes would do if it won 60% of them: nomoat arena."
    )
    assert 120 < found.votes_needed < 260


def test_not_enough_says_how_many_more() -> None:
    found = of(votes(14, 8, 3))
    assert found.verdict == "not yet"
    assert found.votes_needed is not None
    assert (
        f"About {found.votes_needed} more decided votes would do at the present rate: nomoat arena."
        in found.said
    )
    wins = 14 + round(found.votes_needed * 15 / 24)
    assert of(votes(wins, 8 + found.votes_needed - (wins - 14), 3)).verdict == "promote"
    losing = of(votes(8, 14))
    assert (losing.verdict, losing.votes_needed) == ("not yet", None)
    assert "At the present rate no number of votes would do." in losing.said


def test_a_rival_that_is_shown_better_stays_for_good() -> None:
    found = of(checks(2, 30))
    assert found.verdict == "keep"
    assert found.said.startswith("gen-0001 stays, and gen-0002 is not promoted.")
    assert "gen-0001 is shown to be better: evidence " in found.said


def test_loss_rows_cannot_veto_votes() -> None:
    found = of(loss(60, 140), votes(500, 100))
    assert found.verdict == "promote"
    assert found.e_value == pytest.approx(math.prod(one.e_value for one in found.weighed))
    assert 0.5 < found.weighed[0].e_value < 0.51


def test_less_loss_counts_with_half_of_the_stake() -> None:
    found = of(loss(15, 5))
    whole = math.exp(float(log_e_value(15, 5, best_at=20)))
    assert found.e_value == found.weighed[0].e_value == pytest.approx((1 + whole) / 2)
    assert of(loss(20, 1)).verdict == "promote"


def test_loss_speaks_against_a_challenger_until_there_are_votes() -> None:
    assert of(loss(60, 140)).verdict == "keep"
    some = of(loss(60, 140), votes(3, 2))
    assert (some.verdict, some.e_against) == ("not yet", of(votes(3, 2)).e_against)
    assert of(loss(12, 9), votes(10, 90)).verdict == "keep"


def test_evidence_that_shows_both_decides_nothing_and_says_so() -> None:
    found = of(checks(0, 40, 0), votes(300, 100))
    assert min(found.e_value, found.e_against) >= 20
    assert (found.verdict, found.votes_needed) == ("not yet", 0)
    assert "The evidence contradicts itself: " in found.said
    assert "that gen-0001 is better. More votes would tell: nomoat arena." in found.said


def test_votes_that_a_judge_lends_weight_are_needed_in_smaller_number() -> None:
    alone, beside = votes(60, 40), replace(votes(60, 40), judged=Judged(2.0, -4.0, 100))
    plain, found = of(alone).votes_needed, of(beside).votes_needed
    assert plain is not None
    assert found == math.ceil((math.log(20) - 2.0) / (2.0 / 100)) < plain
    # a judge that has lent nothing promises nothing
    idle = of(replace(alone, judged=Judged(-0.5, 0.0, 100))).votes_needed
    assert idle is not None
    assert idle > plain


def test_a_guarded_suite_that_got_worse_blocks_whatever_the_evidence() -> None:
    found = of(checks(32, 1), guards=(Guard("safety", 20, 2, 60, 0.05),))
    assert found.verdict == "keep"
    assert found.guards[0].finding == "regressed"
    assert "It got worse on safety: -30.0 points (" in found.said
    assert found.said.endswith("where -5 points are allowed.")


def test_a_guarded_suite_must_be_shown_to_hold() -> None:
    few, many = Guard("safety", 1, 1, 20, 0.05), Guard("safety", 3, 4, 400, 0.05)
    unclear, held = of(checks(32, 1), guards=(few,)), of(checks(32, 1), guards=(many,))
    assert (unclear.verdict, unclear.guards[0].finding) == ("not yet", "unclear")
    needed = unclear.guards[0].prompts_needed
    assert needed is not None
    assert "A loss of more than 5 points on safety is not ruled out: +0.0 points (" in unclear.said
    assert f"About {needed:,} more prompts would show it." in unclear.said
    assert (held.verdict, held.guards[0].finding) == ("promote", "holds")
    missing = of(checks(32, 1), guards=(Guard("safety", 0, 0, 0, 0.05),))
    assert missing.verdict == "not yet"
    assert "safety guards the gate and was not measured against this rival." in missing.said


def test_a_guard_is_not_passed_by_a_loss_of_its_margin_oftener_than_alpha() -> None:
    """True loss 10 points, margin 10 points: non-inferiority is false by a hair, and rarely granted."""
    generator = np.random.default_rng(2)
    outcomes = generator.multinomial(150, [0.15, 0.05, 0.8], size=1500)
    passed = [
        of(checks(32, 1), guards=(Guard("s", int(rival), int(own), 150, 0.1),)).verdict == "promote"
        for rival, own, _ in outcomes
    ]
    assert 0.02 < np.mean(passed) < 0.07


def test_a_model_that_is_no_better_is_rarely_promoted_on_checks_and_votes_together() -> None:
    generator = np.random.default_rng(5)
    promoted = 0
    for _ in range(400):
        won = int(generator.binomial(24, 0.5))
        answers = generator.random((6, 20)) < 0.5
        promoted += any(
            of(checks(won, 24 - won), votes(int(seen.sum()), int((~seen).sum()))).verdict == "promote"
            for seen in (answers[:looks] for looks in range(1, 7))
        )
    assert promoted / 400 <= 0.05


def test_a_stricter_alpha_asks_for_more() -> None:
    lenient, strict = (of(checks(22, 6), alpha=alpha) for alpha in (0.05, 0.001))
    assert (lenient.verdict, strict.verdict) == ("promote", "not yet")
    assert lenient.e_value == strict.e_value
    assert "where 1,000 to 1 are asked" in strict.said


def test_overwhelming_evidence_is_still_a_number() -> None:
    assert math.isfinite(of(checks(5000, 0)).e_value)
