"""A reward model on what people preferred: how many held-out judgements it follows.

    python bench/reward.py --workspace DIR --data DIR [--seeds 1 2 3] [--threads 1] [--set KEY=VALUE ...]

`--data` holds PandaLM's and Auto-J's human comparisons as they were published (pandalm/testset_v1_split_a.jsonl.gz,
autoj/testdata_pairwise_split_a.jsonl.gz); judgements that are no ties and on which most annotators agree become pairs.
The product's own stage trains on some and is measured on others: of the pairs held out half steer the training, and the
other half say what came of it. Prints the share of judgements followed with its 95% interval, beside what preferring
the longer answer follows of all pairs. Minutes are of one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from learned.stages import House, make_once
from nomoat.ledger.files import atomic_write
from nomoat.model.load import choose_machine, resolve_base, set_threads
from nomoat.night.base import Base
from nomoat.night.recipes import resolve_reward_rate

Pair = dict[str, str]
TIE = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of data, reward or base")
    args = parser.parse_args()

    pairs = [*pandalm(args.data / "pandalm" / "testset_v1_split_a.jsonl.gz")]
    pairs += autoj(args.data / "autoj" / "testdata_pairwise_split_a.jsonl.gz")
    longer = [len(pair["chosen"]) > len(pair["rejected"]) for pair in pairs]
    print(f"{len(pairs)} pairs; the longer answer is preferred in {sum(longer) / len(pairs):.1%}")
    args.workspace.mkdir(parents=True, exist_ok=True)
    file = args.workspace.resolve() / "pairs.jsonl"
    atomic_write(file, "".join(json.dumps(pair) + "\n" for pair in pairs).encode())

    threads, machine = set_threads(args.threads), choose_machine("auto")
    house = House(args.workspace.resolve(), machine, threads, args.set)
    print("\n| seed | judgements followed, % (95%) | of | minutes |\n| --- | --- | --- | --- |")
    with house.store.lock():
        for seed in args.seeds:
            clock = time.process_time()
            orders = house.orders([f"reward.train=[{file}]", f"seed={seed}"])
            base = Base.of(resolve_base(orders.recipe.base, house.workspace), orders.recipe.base)
            rate, _ = resolve_reward_rate(orders.recipe, base.width)
            compared = make_once(house.store, orders.comparisons(base))
            found = make_once(house.store, orders.reward(base, compared, rate, lambda: None, "auto")).meta
            low, value, high = (
                100 * found[key] for key in ("accuracy_low", "held_out_accuracy", "accuracy_high")
            )
            minutes = (time.process_time() - clock) / 60
            print(
                f"| {seed} | {value:.1f} ({low:.1f} to {high:.1f}) | {found['decided']} | {minutes:.1f} |",
                flush=True,
            )


def pandalm(file: Path) -> Iterator[Pair]:
    """What most of three annotators said."""
    for row in _rows(file):
        (verdict, votes), *_ = Counter(row[f"annotator{n}"] for n in (1, 2, 3)).most_common()
        if votes > 1 and verdict != TIE:
            prompt = "\n".join(text for text in (row["instruction"], row["input"]) if text)
            yield from _pair(prompt, row["response1"], row["response2"], first_wins=verdict == 1)


def autoj(file: Path) -> Iterator[Pair]:
    """Labels 0 and 1 are the first and the second, 2 a tie."""
    for row in _rows(file):
        if row["label"] != 2:
            yield from _pair(
                row["prompt"], row["response 1"], row["response 2"], first_wins=row["label"] == 0
            )


def _pair(prompt: str, one: str, other: str, *, first_wins: bool) -> Iterator[Pair]:
    chosen, rejected = (one, other) if first_wins else (other, one)
    are_texts = all(isinstance(text, str) and text.strip() for text in (chosen, rejected))
    if are_texts and chosen.strip() != rejected.strip():
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
