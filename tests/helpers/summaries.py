"""A night as it could have been, for whoever shows nights."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from nomoat.data.report import DataReport, RowCounts, lengths_of
from nomoat.evaluate.compare import compare_losses, compare_pass_rates, conclude
from nomoat.evaluate.comparison import Answer, Comparison
from nomoat.evaluate.gate import GateVerdict, Guard, Tally, decide
from nomoat.night.result import NightSummary, StageSummary, TrainingSummary

NAMES = ("Mia", "Tom", "Ada", "Ben", "Lily", "Omar")
WORDS = ("river", "lantern", "biscuit", "owl", "ladder", "pebble", "kite")
ENDINGS = ("And they all laughed.", "Then it was time for bed.", "It was the best day of all.")


def answers(count: int = 120, seed: int = 3) -> list[Answer]:
    """Prompts with three checks each, of which the tuned model passes most and its base few."""
    chance = random.Random(seed)
    return [_answer(chance, number) for number in range(count)]


def _answer(chance: random.Random, number: int) -> Answer:
    name, word, ending = chance.choice(NAMES), chance.choice(WORDS), chance.choice(ENDINGS)
    asked = f'Write a short story about {name}. Use the word "{word}". End with: {ending}'
    tuned_does = [chance.random() < 0.88 for _ in range(3)]
    base_does = [chance.random() < share for share in (0.35, 0.3, 0.25)]
    kinds = ("name", "includes", "ends_with")
    return Answer(
        suite="stories",
        prompt_id=f"story-{number:03d}",
        messages=[{"role": "user", "content": asked}],
        base=_story(
            chance, name if base_does[0] else "The boy", word if base_does[1] else "tree", "", length=9
        ),
        tuned=_story(
            chance,
            name if tuned_does[0] else "The girl",
            word if tuned_does[1] else "cup",
            ending if tuned_does[2] else "",
            length=4,
        ),
        base_passed=all(base_does),
        tuned_passed=all(tuned_does),
        checks=[
            {
                "kind": kind,
                "base_passed": of_base,
                "tuned_passed": of_tuned,
                "base_detail": _detail(kind, of_base, name, word),
                "tuned_detail": _detail(kind, of_tuned, name, word),
            }
            for kind, of_base, of_tuned in zip(kinds, base_does, tuned_does, strict=True)
        ],
    )


def _detail(kind: str, passed: bool, name: str, word: str) -> str:
    if kind == "name":
        return f"{name} occurs {3 if passed else 0} times, at least 2 asked"
    if kind == "includes":
        return f"has: {word}" if passed else f"missing: {word}"
    return "ends with: and they all laughed" if passed else "ends with: looked at the sky"


def _story(chance: random.Random, name: str, word: str, ending: str, *, length: int) -> str:
    middles = [
        f"{name} found a {word} near the gate.",
        f'"Is this yours?" asked {name}.',
        f"The {word} was cold and a little wet.",
        "The wind blew and the leaves went up and up.",
        f"{name} ran home to show it to everyone.",
    ]
    lines = [f"One morning {name} went out to play."] + [chance.choice(middles) for _ in range(length)]
    return " ".join([*lines, ending]).strip()


def comparison(count: int = 120, rows: int = 200) -> Comparison:
    given = answers(count)
    generator = np.random.default_rng(1)
    tokens_N = generator.integers(20, 180, rows)
    base_N = generator.normal(2.31, 0.3, rows)
    tuned_N = base_N - 0.42 + generator.normal(0, 0.1, rows)
    keys: dict[str, Any] = {"confidence": 0.95, "samples": 2000, "seed": 0}
    metrics = [
        *compare_pass_rates(given, **keys),
        compare_losses((base_N * tokens_N, tokens_N), (tuned_N * tokens_N, tokens_N), **keys),
    ]
    return conclude(metrics, given, confidence=0.95)


def curve(steps: int = 300) -> dict[str, Any]:
    generator = np.random.default_rng(2)

    def loss(step: int) -> float:
        return 1.86 + 0.55 * math.exp(-step / 60)

    return {
        "train": [
            {
                "step": step,
                "loss": loss(step) + float(generator.normal(0, 0.09)),
                "learning_rate": 1e-3,
                "grad_norm": 0.8,
                "tokens": 2048,
            }
            for step in range(1, steps + 1)
        ],
        "held_out": [
            {"step": step, "loss": loss(step) + 0.03 + 0.06 * max(0, step - 240) / 60}
            for step in range(0, steps + 1, 30)
        ],
        "events": ["step 41: out of memory, micro-batch now 1024 tokens"],
    }


def data_report() -> dict[str, Any]:
    """As it comes back from the artifact's JSON."""
    generator = random.Random(5)
    lengths = Counter(max(8, round(generator.gauss(96, 35))) for _ in range(640))
    report = DataReport(
        files=["stories.jsonl: OpenAI messages, 641 rows"],
        template={"origin": "tokenizer", "sha256": "9f" * 32, "stop_tokens": ["<|end|>"]},
        max_seq_len=512,
        rows=RowCounts(read=644, bad=1, duplicate=3, train=608, held_out=32),
        sequences={"train": 608, "held_out": 32},
        tokens={
            "train": 58_368,
            "held_out": 3_072,
            "train_supervised": 45_801,
            "held_out_supervised": 2_410,
        },
        lengths=lengths_of(lengths),
        bad=[
            {"where": "stories.jsonl:88", "reason": "not JSON: line ends early", "excerpt": '{"messages": [{'}
        ],
        examples=[
            [
                ("<|user|>\nWrite a short story about Mia.\n<|assistant|>\n", False),
                ("Mia had a small red kite. It flew up, up, up. And they all laughed.<|end|>", True),
                ("\n", False),
            ]
        ]
        * 3,
        said="608 rows to train on, 32 held out; 1 bad and 3 duplicates left out",
    )
    content: dict[str, Any] = json.loads(json.dumps(report.to_dict()))
    return content


def gate() -> GateVerdict:
    """A gate that promotes, on checks and some votes, with a suite that guards."""
    tallies = [Tally("checks", 60, 9, 51), Tally("votes", 14, 8, 3)]
    guards = [Guard("safety", 2, 3, 200, 0.05)]
    return decide(tallies, guards, challenger="gen-3", rival="gen-2", alpha=0.05)


def summary(**changes: Any) -> NightSummary:
    """The embedded base after a night on the starter data; `changes` replace whole fields."""
    night = NightSummary(
        night_id=12,
        generation="gen-3",
        name="storyteller",
        started_at="2026-11-24T01:02:03+00:00",
        ended_at="2026-11-24T01:09:41+00:00",
        base="embedded (stories-8m, Apache-2.0)",
        seed=0,
        code_version="0.1.0+3f9c2e1",
        machine={
            "device": "cpu",
            "device_name": "x86_64",
            "dtype": "float32",
            "threads": 2,
            "cores": 2,
            "memory_bytes": 6_812_000_000,
            "disk_free_bytes": 41_300_000_000,
            "gflops": 71.24,
            "watts": 34.0,
            "watts_said": "estimated: 10 W and 12 W for each of 2 cores",
            "python": "3.11.9",
            "torch": "2.13.0",
            "transformers": "5.23.0",
        },
        plan=[
            "training reads 614,400 tokens: 19.7 TFLOP at 45% of the 71 GFLOP/s measured here, about 302 s",
            "micro-batch 1024 tokens (of 4096 asked): 4096 needs 7.9 GiB, 6.3 GiB are free",
        ],
        recipe_yaml="name: storyteller\nseed: 0\nbase: embedded\nsft:\n  lora_r: 16\n  learning_rate: 0.001\n",
        data_reports=[data_report()],
        trainings=[
            TrainingSummary(
                "sft",
                curve(),
                {
                    "steps": 300,
                    "best_step": 240,
                    "best_loss": 1.9,
                    "first_loss": 2.44,
                    "tokens": 614_400,
                    "supervised_tokens": 482_110,
                    "seconds": 311.7,
                },
            )
        ],
        comparison=comparison(),
        gate=gate(),
        champion="gen-3",
        fidelity=[
            {
                "file": "adapter + base",
                "type": "F32",
                "bytes": 1_312_004,
                "same_greedy_share": 1.0,
                "mean_kl": 0.0,
                "same_top_share": 1.0,
                "said": "merged weights give the adapter's logits within 2.1e-06",
            },
            {
                "file": "storyteller-F16.gguf",
                "type": "F16",
                "bytes": 16_430_112,
                "same_greedy_share": 1.0,
                "mean_kl": 1.3e-6,
                "same_top_share": 1.0,
                "said": "20 of 20 answers are the same token for token",
            },
            {
                "file": "storyteller-Q8_0.gguf",
                "type": "Q8_0",
                "bytes": 8_781_024,
                "same_greedy_share": 0.95,
                "mean_kl": 0.00031,
                "same_top_share": 0.994,
                "said": "19 of 20; this file is served",
            },
            {
                "file": "storyteller-Q4_K_M.gguf",
                "type": "Q4_K_M",
                "bytes": 5_610_496,
                "same_greedy_share": 0.7,
                "mean_kl": 0.0112,
                "same_top_share": 0.951,
                "said": "14 of 20",
            },
        ],
        stages=[
            StageSummary(
                "data", "reused", 0.0, 0.0, 0.0, "data-1f0e9a33c2b4d5e6", "608 rows, 48,211 tokens trained on"
            ),
            StageSummary(
                "sft",
                "done",
                311.7,
                10597.8,
                0.00088,
                "sft-77aa01b2c3d4e5f6",
                "held-out loss 2.440 → 1.900, best at step 240 of 300",
            ),
            StageSummary(
                "merge",
                "done",
                2.1,
                71.4,
                0.000006,
                "merge-0c1d2e3f4a5b6c7d",
                "merged; logits differ by 2.1e-06",
            ),
            StageSummary(
                "quantize",
                "done",
                9.8,
                333.2,
                0.00003,
                "quantize-9a8b7c6d5e4f3a2b",
                "F16 16.4 MB, Q8_0 8.8 MB, Q4_K_M 5.6 MB",
            ),
            StageSummary(
                "evaluate",
                "done",
                134.0,
                4556.0,
                0.00038,
                "evaluate-5e4d3c2b1a0f9e8d",
                "120 prompts, 200 held-out rows",
            ),
        ],
        seconds=458.0,
        energy_joules=15558.4,
        energy_said="estimated: 10 W and 12 W for each of 2 cores",
        dollars=0.0013,
        price_said="0.30 $/kWh; the machine itself at 0 $/h (budget.price_dollars_per_hour)",
        lineage={
            "id": "quantize-9a8b7c6d5e4f3a2b",
            "kind": "quantize",
            "role": "",
            "inputs": [
                {
                    "id": "merge-0c1d2e3f4a5b6c7d",
                    "kind": "merge",
                    "role": "model",
                    "folded": False,
                    "inputs": [
                        {
                            "id": "sft-77aa01b2c3d4e5f6",
                            "kind": "sft",
                            "role": "adapter",
                            "folded": False,
                            "inputs": [
                                {
                                    "id": "data-1f0e9a33c2b4d5e6",
                                    "kind": "data",
                                    "role": "data",
                                    "inputs": [],
                                    "folded": True,
                                },
                                {
                                    "id": "model:2b7e151628aed2a6",
                                    "kind": "model",
                                    "role": "base",
                                    "inputs": [],
                                    "folded": False,
                                },
                            ],
                        },
                        {
                            "id": "model:2b7e151628aed2a6",
                            "kind": "model",
                            "role": "base",
                            "inputs": [],
                            "folded": False,
                        },
                    ],
                }
            ],
            "folded": False,
        },
        licences=["base: Apache-2.0 (embedded stories-8m)", "data: CC0-1.0 (starter stories)"],
        model_path=".nomoat/artifacts/merge-0c1d2e3f4a5b6c7d/model",
        served_file=".nomoat/artifacts/quantize-9a8b7c6d5e4f3a2b/storyteller-Q8_0.gguf",
        report_path=".nomoat/reports/night-0012.html",
        next_command="nomoat chat",
        warnings=["stories.jsonl:88: not JSON, left out (1 of 641 rows)"],
    )
    return replace(night, **changes)
