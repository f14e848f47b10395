"""What learning from people's and programs' judgements adds to fine-tuning: DPO, GRPO, RLOO against a
reward model and best of n after `sft`, on the embedded base, each over some seeds.

    python bench/learning.py --workspace DIR [--method NAME ...] [--seeds 1 2 3] [--prompts 300] [--threads 1]
                             [--checks JSON] [--set KEY=VALUE ...] [--json FILE] [--plot FILE]

One `sft` on the starter data; from it every method learns with the embedded prompts and their checks, by the product's
own stages at its defaults, but for what METHODS says; the reward model learns from the pairs that DPO learns from. The
judge is held-out prompts that the starter generator makes afresh and no stage has seen; answers are greedy. Prints pass
rates and their difference to `sft` with a 95% interval: the mean of the seeds for each prompt, paired with `sft`'s,
bootstrapped over prompts. With --checks every prompt, fresh ones too, has these in place of its own: an owner's taste.
What is in the workspace already is not done again. Minutes are of one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from learned.figure import draw
from learned.fresh import Examiner, fresh_prompts
from learned.stages import House, Run
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats.intervals import paired_bootstrap_mean, tango, wilson
from nomoat.model.load import choose_machine, set_threads
from nomoat.night.stages import ADAPTER

METHODS: dict[str, list[str]] = {
    "dpo": ["prefer.loss_type=sigmoid"],
    "grpo": ["reinforce.method=grpo"],
    "rloo": ["reinforce.method=rloo", "reinforce.rewards=[{kind: reward_model}]"],
    "best_of_n": ["reinforce.method=best_of_n"],
}
"""Overrides of the recipe that make a method."""
CURVE_PROMPTS = 120


def difference(sft: Sequence[bool], runs: Sequence[Run]) -> Estimate:
    """Pass rate of the runs minus that of `sft`. A prompt's runs depend on each other, so they are one observation."""
    mean_N = np.mean([run.passed for run in runs], axis=0) - np.asarray(sft, dtype=float)
    if not mean_N.any():
        return tango(0, 0, len(mean_N), 0.95)
    return paired_bootstrap_mean(mean_N, confidence=0.95, samples=10_000, seed=0)


def line(method: str, sft: Sequence[bool], runs: Sequence[Run]) -> str:
    """A row of the table."""
    found, each = difference(sft, runs), [100 * np.mean(run.passed) for run in runs]
    rates, minutes = ", ".join(f"{rate:.1f}" for rate in each), np.mean([run.seconds for run in runs]) / 60
    low, value, high = (100 * number for number in (found.low, found.value, found.high))
    return f"| {method} | {rates} | {value:+.1f} ({low:.1f} to {high:.1f}) | {minutes:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--prompts", type=int, default=300, help="fresh prompts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="of data, sft, prefer, reward or reinforce"
    )
    parser.add_argument("--checks", type=json.loads, help="a JSON list of checks")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()

    threads, machine = set_threads(args.threads), choose_machine("auto")
    args.workspace.mkdir(parents=True, exist_ok=True)
    house = House(args.workspace.resolve(), machine, threads, args.set, args.checks)
    most = min(CURVE_PROMPTS, args.prompts)
    with house.store.lock():
        begun = house.begin()
        examiner = Examiner(
            begun.base, begun.sft.path / ADAPTER, fresh_prompts(args.prompts, args.checks), machine
        )
        sft = examiner.of_adapter(begun.sft.path / ADAPTER)
        rate = wilson(sum(sft), len(sft), 0.95)
        print(
            f"after sft: {sum(sft)} of {len(sft)} fresh prompts ({rate.low:.1%} to {rate.high:.1%})",
            flush=True,
        )
        print(
            "\n| method | passed, %, by seed | minus sft, points (95%) | minutes |\n| --- | --- | --- | --- |"
        )
        runs: dict[str, list[Run]] = {}
        for method in args.method:
            runs[method] = [
                house.run(begun, method, seed, METHODS[method], examiner, most) for seed in args.seeds
            ]
            print(line(method, sft, runs[method]), flush=True)
    if args.json:
        found = {
            method: {"difference": asdict(difference(sft, own)), "runs": [asdict(run) for run in own]}
            for method, own in runs.items()
        }
        args.json.write_text(json.dumps({"sft": sft, "words": METHODS, "methods": found}, indent=1) + "\n")
    if args.plot:
        draw([run for own in runs.values() for run in own], sft, most, args.plot)


if __name__ == "__main__":
    main()
