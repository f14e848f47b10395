"""Bradley-Terry, Davidson and Elo against published ratings, and their intervals against simulated votes."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from nomoat.evaluate.stats.ratings import (
    ELO,
    Battles,
    bootstrap_ratings,
    bradley_terry,
    comparable,
    elo,
)

SCORES = {"left": 1.0, "tie": 0.5, "right": 0.0}


def read_votes(path: Path) -> tuple[Battles, list[str]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = list(csv.DictReader(io.StringIO(raw.decode())))
    names = sorted({row[side] for row in rows for side in ("left", "right")})
    at = {name: n for n, name in enumerate(names)}
    left, right = ([at[row[side]] for row in rows] for side in ("left", "right"))
    return Battles.of(left, right, [SCORES[row["winner"]] for row in rows], models=len(names)), names


def shares(points: np.ndarray) -> np.ndarray:
    strength = np.exp(points / ELO)
    return strength / strength.sum()


@pytest.mark.parametrize("name", ["simple", "food"])
def test_evalicas_ratings_are_ours(name: str, shared_data: Path) -> None:
    """dustalov/evalica (Apache-2.0), <name>-golden.csv: a tie is half a win of each."""
    battles, names = read_votes(shared_data / "evalica" / f"{name}.csv")
    golden: dict[str, dict[str, float]] = {}
    for row in csv.DictReader((shared_data / "evalica" / f"{name}-golden.csv").open()):
        golden.setdefault(row["algorithm"], {})[row["item"]] = float(row["score"])
    found = shares(bradley_terry(battles).points_M)
    assert found == pytest.approx([golden["bradley_terry"][n] for n in names], abs=2e-6)
    assert elo(battles) == pytest.approx([golden["elo"][n] for n in names], abs=1e-9)


def test_evalicas_crowd_votes(shared_data: Path) -> None:
    """dustalov/llmfao's 8,931 votes (CC BY 4.0) and evalica's llmfao-golden.csv."""
    battles, names = read_votes(shared_data / "llmfao" / "crowd_comparisons.csv.gz")
    assert (len(battles.score_N), len(names), int((battles.score_N == 0.5).sum())) == (8931, 59, 3471)
    found = dict(zip(names, shares(bradley_terry(battles).points_M), strict=True))
    assert found["GPT 4"] == pytest.approx(0.041217874, abs=1e-8)
    assert found["Platypus-2 Instruct (70B)"] == pytest.approx(0.029233178, abs=1e-8)
    online = dict(zip(names, elo(battles), strict=True))
    assert online["GPT 4"] == pytest.approx(1095.593548, abs=1e-6)
    assert online["command"] == pytest.approx(1094.545052, abs=1e-6)


def test_arena_ranks_worked_example() -> None:
    """lmarena/arena-rank tests/test_bradley_terry.py: 22 games of Wikipedia's example; geometric mean 1."""
    games = [("AB", 2), ("BA", 3), ("AD", 1), ("DA", 4), ("BC", 5), ("CB", 3), ("CD", 1), ("DC", 3)]
    won = [pair for pair, count in games for _ in range(count)]
    left, right = (["ABCD".index(pair[side]) for pair in won] for side in (0, 1))
    theta = bradley_terry(Battles.of(left, right, np.ones(22), models=4)).points_M / ELO
    strength = np.exp(theta - theta.mean())
    assert strength == pytest.approx([0.640, 1.043, 0.660, 2.270], rel=1e-3)


def test_two_models_are_rated_by_their_odds() -> None:
    battles = Battles.of([0] * 30, [1] * 30, [1.0] * 20 + [0.0] * 10, models=2)
    ratings = bradley_terry(battles, anchor=1)
    assert ratings.points_M == pytest.approx([400 * np.log10(2), 0.0], abs=1e-9)
    # the sandwich of one parameter: sd of the logit is 1/sqrt(n p q), with n/(n-1) of the clusters
    error = ELO / np.sqrt(30 * 2 / 9) * np.sqrt(30 / 29)
    assert np.sqrt(ratings.covariance_MM[0, 0]) == pytest.approx(error, rel=1e-9)
    assert (ratings.low_M[1], ratings.high_M[1]) == (0.0, 0.0)


def test_davidson_is_the_likeliest_and_of_two_models_has_a_closed_form() -> None:
    # Davidson (1970): of two models, π1/π2 = w/l and ν = t/sqrt(w l)
    battles = Battles.of([0] * 30, [1] * 30, [1.0] * 16 + [0.5] * 10 + [0.0] * 4, models=2)
    ratings = bradley_terry(battles, anchor=1, ties="davidson")
    assert ratings.points_M[0] == pytest.approx(400 * np.log10(4), abs=1e-6)
    assert ratings.tie == pytest.approx(10 / 8, rel=1e-9)

    generator = np.random.default_rng(1)
    left, right = generator.integers(0, 4, 400), generator.integers(1, 4, 400)
    right = (left + right) % 4
    score = generator.choice([0.0, 0.5, 1.0], 400)
    many = bradley_terry(Battles.of(left, right, score, models=4), ties="davidson")

    def loss(parameters: np.ndarray) -> float:
        theta = np.insert(parameters[:3], 0, 0.0)
        d, tie = theta[left] - theta[right], np.full(400, parameters[3])
        total = np.logaddexp(np.logaddexp(d / 2, -d / 2), tie)
        return float(-np.where(score == 0.5, tie, (2 * score - 1) * d / 2).sum() + total.sum())

    best = optimize.minimize(loss, np.zeros(4), tol=1e-10).x
    assert many.points_M[1:] / ELO == pytest.approx(best[:3], abs=1e-4)
    assert many.tie == pytest.approx(np.exp(best[3]), abs=1e-4)


def votes_of(theta: np.ndarray, n: int, seed: int, repeats: int = 1) -> Battles:
    """Votes of models of known strength; each prompt is judged `repeats` times alike."""
    generator = np.random.default_rng(seed)
    models = len(theta)
    left = generator.integers(0, models, n)
    right = (left + generator.integers(1, models, n)) % models
    won = (generator.random(n) < 1 / (1 + np.exp(theta[right] - theta[left]))).astype(float)
    left, right, won, prompts = (np.repeat(x, repeats) for x in (left, right, won, np.arange(n)))
    return Battles.of(left, right, won, models=models, clusters=prompts)


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_interval_holds_the_truth_as_often_as_it_says(repeats: int) -> None:
    theta = np.array([0.0, 0.4, -0.3, 0.8])
    held_M = np.zeros(4)
    for seed in range(1000):
        ratings = bradley_terry(votes_of(theta, 300, seed, repeats))
        held_M += (ratings.low_M <= ELO * theta) & (ELO * theta <= ratings.high_M)
    assert held_M[1:] / 1000 == pytest.approx([0.95] * 3, abs=0.015)


def test_votes_on_one_prompt_do_not_count_as_many() -> None:
    theta = np.array([0.0, 0.5])
    once, thrice = (bradley_terry(votes_of(theta, 200, 1, repeats)) for repeats in (1, 3))
    assert thrice.points_M == pytest.approx(once.points_M, abs=1e-6)
    assert thrice.high_M == pytest.approx(once.high_M, abs=1e-6)


def test_bootstrap_and_sandwich_agree() -> None:
    battles = votes_of(np.array([0.0, 0.4, -0.3]), 400, 5)
    sandwich, bootstrap = bradley_terry(battles), bootstrap_ratings(battles, samples=400, seed=1)
    assert bootstrap.points_M == pytest.approx(sandwich.points_M)
    width = sandwich.high_M[1] - sandwich.low_M[1]
    assert bootstrap.low_M == pytest.approx(sandwich.low_M, abs=0.12 * width)
    assert bootstrap.high_M == pytest.approx(sandwich.high_M, abs=0.12 * width)


def test_a_model_without_a_loss_has_no_rating() -> None:
    battles = Battles.of([0, 0, 0, 1, 2], [1, 1, 2, 0, 1], [1, 0, 1, 0.5, 0], models=3)
    assert comparable(battles).tolist() != [0, 0, 0]
    with pytest.raises(
        ValueError, match="model 2 has not both won and lost .* group of model 0: its rating has"
    ):
        bradley_terry(battles)
    assert len(set(comparable(Battles.of([0, 1], [1, 2], [0.5, 0.5], models=3)).tolist())) == 1


@pytest.mark.parametrize(
    ("left", "right", "scores", "message"),
    [
        ([0], [1], [1.0], "got 1 votes; expected at least 2"),
        ([0, 0], [1, 1], [1.0, 0.7], "scores: expected win 1, tie 0.5 or loss 0 for the left model"),
        ([0, 0], [1, 2], [1.0, 0.0], "models: expected numbers from 0 to 1"),
        ([0, 1], [1, 1], [1.0, 0.0], "a vote between a model and itself says nothing of strength"),
        ([0, 1], [1], [1.0, 0.0], "lengths differ"),
    ],
)
def test_votes_that_say_nothing_are_refused(
    left: list[int], right: list[int], scores: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Battles.of(left, right, scores, models=2)


def test_one_prompt_has_no_error() -> None:
    battles = Battles.of([0, 0], [1, 1], [1.0, 0.0], models=2, clusters=[5, 5])
    with pytest.raises(ValueError, match="all votes are of one cluster; expected at least 2 for an error"):
        bradley_terry(battles)
