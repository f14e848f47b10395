"""Agreement of judges and people against published figures and by hand."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from nomoat.evaluate.stats.agreement import (
    COIN,
    FIRST,
    LONGEST,
    agreement,
    baselines,
    cohens_kappa,
    krippendorffs_alpha,
    position_bias,
    prediction_powered,
    verbosity_bias,
)


def test_krippendorffs_alpha_is_evalicas(shared_data: Path) -> None:
    """dustalov/evalica, codings.csv: nominal α 0.743421053, bootstrap interval 0.443 to 0.941 (by coincidences)."""
    rows = [
        [cell or None for cell in row] for row in csv.reader((shared_data / "evalica" / "codings.csv").open())
    ]
    found = krippendorffs_alpha(rows, confidence=0.95, seed=42)
    assert found.value == pytest.approx(0.743421053, abs=1e-9)
    assert found.n == 11  # one of the twelve units was coded once only
    assert (found.low, found.high) == pytest.approx(
        (0.443, 0.941), abs=0.12
    )  # another bootstrap: see the docstring


def test_pandalms_annotators(shared_data: Path) -> None:
    """WeOpenML/PandaLM data/testset-v1.json: κ 0.85, 0.88, 0.86 over 999 pairs, of which 561 are at hand."""
    with gzip.open(shared_data / "pandalm" / "testset_v1_split_a.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    one, two, three = ([row[f"annotator{n}"] for row in rows] for n in (1, 2, 3))
    for (a, b), published in (((one, two), 0.85), ((one, three), 0.88), ((two, three), 0.86)):
        found = cohens_kappa(a, b, 0.95)
        assert found.n == 561
        assert found.low < published < found.high
        assert found.value == pytest.approx(published, abs=0.03)


def test_kappas_error_is_the_spread_of_kappa() -> None:
    table = np.array([[106, 10, 4], [22, 28, 10], [2, 12, 6]])
    cells = [(row, column) for row in range(3) for column in range(3)]
    ratings = np.repeat(cells, table.ravel(), axis=0)
    found = cohens_kappa(ratings[:, 0], ratings[:, 1], 0.95)
    # by hand: they agree on 140 of 200, and would by chance on (120·130 + 60·50 + 20·20) / 200² = 0.475
    assert found.value == pytest.approx((0.7 - 0.475) / (1 - 0.475), rel=1e-12)
    generator = np.random.default_rng(1)
    resampled = [ratings[generator.integers(0, 200, 200)] for _ in range(2000)]
    spread = np.std([cohens_kappa(drawn[:, 0], drawn[:, 1], 0.95).value for drawn in resampled])
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(spread, rel=0.06)


def test_llmbars_baselines(shared_data: Path) -> None:
    """princeton-nlp/LLMBar's 200 human pairs (LLMEval²): length alone agrees with people far oftener than a coin,
    and on the adversarial pairs, made against it, far less often. LLMBar's published kappa_False and kappa_True
    are wrong: winner "2" was mapped to 0 while labels are 1 and 2; its counts and agreement stand."""

    def of(name: str) -> dict[str, float]:
        path = shared_data / "llmbar" / name
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = [json.loads(line) for line in raw.decode().splitlines()]
        human = [float(row["label"] == 1) for row in rows]
        lengths = np.array([[len(row["output_1"]), len(row["output_2"])] for row in rows])
        longer = (np.sign(lengths[:, 0] - lengths[:, 1]) + 1) / 2
        return {key: found.value for key, found in baselines(human, longer, 0.95).items()}

    people, adversarial = of("llmeval2_human.jsonl.gz"), of("adversarial_neighbor.jsonl.gz")
    assert people[COIN] == adversarial[COIN] == 0.5
    assert people[LONGEST] > 0.6
    assert adversarial[LONGEST] < 0.5
    assert people[FIRST] == pytest.approx(0.5, abs=0.1)


def test_a_judge_who_always_takes_the_first() -> None:
    assert position_bias([1, 1, 1, 1], 0.95).value == 0.5
    assert position_bias([1, 0, 0.5, 0.5], 0.95).value == 0.0
    # asked with answers swapped, "the first" is another answer each time
    assert agreement(["a", "a", "b"], ["b", "b", "a"], 0.95).value == 0.0
    assert agreement(["a", "b", "a"], ["a", "b", "b"], 0.95).value == pytest.approx(2 / 3)


def test_a_judge_who_likes_length_more_than_people_do() -> None:
    longer = np.array([1, 1, 0, 0, 1, 0])
    human = np.array([1, 0, 0, 1, 0.5, 0.5])
    judge = longer.astype(float)
    # people take the longer one in 3 of 6, the judge in 6 of 6
    assert verbosity_bias(judge, human, longer, 0.95).value == pytest.approx(0.5)
    assert verbosity_bias(human, judge, longer, 0.95).value == pytest.approx(-0.5)


def test_many_votes_of_a_good_judge_narrow_few_human_ones_and_a_useless_judge_does_no_harm() -> None:
    held, widths = {"good": 0, "useless": 0}, {"good": 0.0, "useless": 0.0, "human": 0.0}
    runs = 400
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        human = (generator.random(1060) < 0.62).astype(float)
        flipped = np.where(generator.random(1060) < 0.1, 1 - human, human)
        judges = {
            "good": 0.9 * flipped + 0.1,
            "useless": generator.random(1060),
        }  # the good one is biased, too
        widths["human"] += 2 * 1.96 * human[:60].std(ddof=1) / np.sqrt(60) / runs
        for name, judge in judges.items():
            found = prediction_powered(human[:60], judge[:60], judge[60:], 0.95)
            held[name] += int(found.low <= 0.62 <= found.high)
            widths[name] += (found.high - found.low) / runs
    assert {name: 0.92 <= count / runs <= 0.98 for name, count in held.items()} == {
        "good": True,
        "useless": True,
    }
    assert widths["good"] < 0.72 * widths["human"]
    assert widths["useless"] < 1.05 * widths["human"]


def test_the_judges_weight_by_hand() -> None:
    # cov(human, judge) = 1/6, the judge's variance over all twelve 12·(2/9)/11, n/N = 4/8: λ = 11/24; the judge is a
    # quarter higher where it is alone.
    found = prediction_powered([1, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 0, 1, 0, 1, 1], 0.95)
    assert found.value == pytest.approx(0.75 + 11 / 24 / 4, rel=1e-12)
    assert found.n == 4


def test_alpha_does_not_care_who_said_what_first() -> None:
    rows: list[list[object | None]] = [[1, 2, None, 1, 2, 2], [1, 2, 2, 1, 1, 2], [None, 2, 2, 2, 1, 2]]
    columns = list(zip(*rows, strict=True))
    random.Random(1).shuffle(columns)
    shuffled = [list(row) for row in zip(*columns, strict=True)]
    assert krippendorffs_alpha(rows[::-1], confidence=0.9).value == pytest.approx(
        krippendorffs_alpha(shuffled, confidence=0.9).value
    )


def test_too_little_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"got \(1,\) and \(1,\) labels; expected as many of both, at least 2"
    ):
        cohens_kappa([1], [1], 0.95)
    with pytest.raises(ValueError, match="both raters always say 1: nothing is left beyond chance"):
        cohens_kappa([1, 1], [1, 1], 0.95)
    for other in ([1, 1, 0], [0, 0, 0]):
        with pytest.raises(ValueError, match="an error cannot be told"):
            cohens_kappa([1, 1, 0], other, 0.95)
    with pytest.raises(ValueError, match="an error cannot be told"):
        krippendorffs_alpha([[1, 2, 1], [1, 2, 1]], confidence=0.95)
    with pytest.raises(ValueError, match="got 1 items with two labels; expected at least 2"):
        krippendorffs_alpha([[1, None], [1, 2]], confidence=0.95)
    with pytest.raises(ValueError, match="all labels are the same: nothing is left beyond chance"):
        krippendorffs_alpha([[1, 1], [1, 1]], confidence=0.95)
    with pytest.raises(ValueError, match="got 1 decided votes; expected at least 2"):
        baselines([1, 0.5], [1, 0], 0.95)
    with pytest.raises(ValueError, match="human: got shape .* with at least 2 values"):
        prediction_powered([1], [1], [1, 0], 0.95)
    with pytest.raises(ValueError, match="all votes are alike: no spread to take an error from"):
        prediction_powered([1, 1], [1, 1], [1, 1], 0.95)
