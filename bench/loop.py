"""What the gate says of votes without a taste, and of votes with one: whole ledgers, looked at after every few votes.

    python bench/loop.py [--seeds N] [--votes N] [--every N] [--json FILE]

For every seed a ledger with a champion, a challenger and fixed answers of both to as many prompts as there are votes.
Voters see the two on sides drawn by chance, one prompt after the other: `coin` votes by chance, `left` always for the
left side (neither has read anything), `70%` prefers the challenger's answer so often. After every few votes the owner
asks the gate, as `nomoat gate` does, and promotes when it says so. Prints for each voter how often that happened, with
Wilson's interval, and the mean number of votes. Counts, no timings.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nomoat.evaluate.gatebook import verdict_on
from nomoat.evaluate.stats.intervals import wilson
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.rows import GenerationRow, Vote
from nomoat.ledger.store import Ledger

Voter = Callable[[random.Random, bool], bool]
"""(chance, whether the challenger stands on the left) -> whether the left side gets the vote."""
VOTERS: dict[str, Voter] = {
    "coin": lambda chance, _: chance.random() < 0.5,
    "left": lambda *_: True,
    "70%": lambda chance, is_left: is_left == (chance.random() < 0.7),
}


@dataclass(frozen=True)
class Row:
    """One voter: how many of `seeds` challengers were promoted, with Wilson's interval, and votes in the mean."""

    voter: str
    promoted: int
    seeds: int
    low: float
    high: float
    votes: float


def votes_until_promoted(made: Path, voter: Voter, seed: int, *, votes: int, every: int) -> int | None:
    """After how many votes the challenger of a copy of a ledger was promoted; None where it was not."""
    chance, copy = random.Random(seed), made.with_name("copy.db")
    shutil.copyfile(made, copy)
    with Ledger.open(copy) as ledger:
        champion, challenger = ledger.generation(1), ledger.generation(2)
        cast = _cast(voter, chance, challenger, champion)
        for number in range(every, votes + 1, every):
            ledger.judgements.add_votes([next(cast) for _ in range(every)])
            if verdict_on(ledger, challenger, ArtifactStore(made.parent)).verdict == "promote":
                return number
    return None


def _champion_and_challenger(ledger: Ledger) -> None:
    for number in (1, 2):
        night = ledger.start_night(
            name="simulated",
            recipe_text="",
            recipe_resolved={},
            code_version="",
            seed=number,
            machine={},
            alone=True,
        ).night
        ledger.add_generation(
            night.id, base="base:x", served_file=f".nomoat/artifacts/quantize-{number}/simulated-Q8_0.gguf"
        )
        ledger.finish_night(night.id, status="done", seconds=0.0, energy_joules=None, dollars=None)
    ledger.judgements.crown(1, by="owner", said="")


def _cast(
    voter: Voter, chance: random.Random, challenger: GenerationRow, champion: GenerationRow
) -> Iterator[Vote]:
    number = 0
    while True:
        number += 1
        is_left = chance.random() < 0.5
        left, right = (challenger, champion) if is_left else (champion, challenger)
        prompt = {"messages": [{"role": "user", "content": f"Question {number}?"}]}
        yield Vote(
            cast_at=f"2026-01-01T00:00:00.{number:06d}Z",
            voter="simulated",
            verdict="left" if voter(chance, is_left) else "right",
            left_model=left.model,
            right_model=right.model,
            left_name=left.name,
            right_name=right.name,
            source="pool",
            prompt_hash=canonical_key(prompt),
            prompt=prompt,
            left_answer=f"{left.name} on question {number}.",
            right_answer=f"{right.name} on question {number}.",
            sampling={},
        )


def simulate(*, seeds: int, votes: int, every: int) -> list[Row]:
    """Every voter on every seed."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "ledger.db"
        with Ledger.open(made) as ledger:
            _champion_and_challenger(ledger)
        for name, voter in VOTERS.items():
            found = [
                votes_until_promoted(made, voter, seed, votes=votes, every=every) for seed in range(seeds)
            ]
            promoted = sum(number is not None for number in found)
            share = wilson(promoted, seeds, 0.95)
            mean = sum(number or votes for number in found) / seeds
            rows.append(Row(name, promoted, seeds, share.low, share.high, mean))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--votes", type=int, default=500)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    settings = {key: getattr(asked, key) for key in ("seeds", "votes", "every")}
    rows = simulate(**settings)
    print(f"{asked.seeds} ledgers a voter, a look after every {asked.every} of at most {asked.votes} votes")
    print(f"{'voter':<6}  {'promoted':>26}  {'mean votes':>10}")
    for row in rows:
        told = f"{row.promoted} of {row.seeds} ({100 * row.low:.1f}% to {100 * row.high:.1f}%)"
        print(f"{row.voter:<6}  {told:>26}  {row.votes:>10.0f}")
    if asked.json:
        found = {**settings, "rows": [asdict(row) for row in rows]}
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
