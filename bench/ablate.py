"""What each idea of the training core is worth: the same rows with one of them switched off at a time.

    python bench/ablate.py [--case NAME] [--threads N] [--rounds N] [--json FILE]

All variants train the same model on the same rows, forward, backward and optimiser, in one process, one after the
other in every round, after a warm-up. Prints real tokens a second (median of the rounds) and the share of the speed
with every idea on, round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from nomoat.data.pack import Packed, Rows, fill, pack_rows
from nomoat.model import logprobs
from nomoat.model.adapters import add_lora
from nomoat.model.fused import compiled, families, frozen_output
from nomoat.model.heap import keep_freed_memory
from nomoat.model.load import Machine, choose_machine, load_model
from nomoat.night.recipes import default_micro_batch_tokens
from nomoat.train.frozen import rows_below
from nomoat.train.hooks import Hooks
from nomoat.train.loop import autocast
from nomoat.train.objectives.sft import sft
from training.cases import CASES, Case
from training.material import (
    ASSETS,
    LORA_ALPHA,
    SEED,
    SHARED,
    TOKENS_PER_STEP,
    Material,
    build,
    open_tokenizer,
)

ROWS = 96


@dataclass(frozen=True)
class Variant:
    """`off` switches an idea off while its steps run."""

    name: str
    tokens_per_step: int = TOKENS_PER_STEP
    micro_batch_tokens: int | None = None
    lora_layers: int | None = None
    cached: bool = False
    dtype: torch.dtype | None = None
    off: Callable[[], Any] = ExitStack


@contextmanager
def blocks_as_transformers_has_them() -> Iterator[None]:
    with patch.object(families, "_can_fuse", lambda *_: False):
        yield


@contextmanager
def output_layer_in_one_go() -> Iterator[None]:
    with patch.object(logprobs, "read_output", lambda _: None):
        yield


@contextmanager
def output_layer_at_every_token() -> Iterator[None]:
    def everywhere(model: Any, packed: Packed) -> torch.Tensor:
        logits_TV = model(**logprobs.decoder_inputs(model, packed)).logits[0].float()
        logp_TV = torch.log_softmax(logits_TV, dim=-1)
        return logp_TV[packed.source_S, packed.targets_S]

    with patch.object(logprobs, "token_logprobs", everywhere):
        yield


@contextmanager
def logits_in_whole_rows() -> Iterator[None]:
    with patch.multiple(frozen_output, ROWS=512, COLUMNS=1 << 30):
        yield


@contextmanager
def elementwise_by_torch() -> Iterator[None]:
    with patch.object(compiled, "training", lambda *_: None):
        yield


@contextmanager
def attention_by_torch() -> Iterator[None]:
    with patch.object(compiled, "attention", lambda _: None):
        yield


@contextmanager
def without_c() -> Iterator[None]:
    with elementwise_by_torch(), attention_by_torch():
        yield


def variants(case: Case, machine: Machine) -> list[Variant]:
    """Everything on, and each idea off; for an adapter also on the top fifth of the blocks."""
    found = [
        Variant("everything on"),
        Variant("blocks as transformers has them", off=blocks_as_transformers_has_them),
        Variant("output layer in one go", off=output_layer_in_one_go),
        Variant("output layer at every token", off=output_layer_at_every_token),
        Variant("elementwise pieces by torch", off=elementwise_by_torch),
        Variant("attention by torch", off=attention_by_torch),
        Variant("both by torch, without C", off=without_c),
        *(
            Variant(f"{tokens:,} tokens at once", micro_batch_tokens=tokens)
            for tokens in (512, 1024, TOKENS_PER_STEP)
            if tokens != default_micro_batch_tokens(machine, case.method)
        ),
        Variant("1,024 tokens a step", tokens_per_step=1024),
    ]
    if machine.bf16:
        found.append(Variant("float32", dtype=torch.float32))
    if case.lora:
        top = max(1, case.shape.layers // 5)
        found += [
            Variant("logits in whole rows", off=logits_in_whole_rows),
            Variant(f"adapter on the top {top} blocks", lora_layers=top),
            Variant("the same, frozen blocks from the disk", lora_layers=top, cached=True),
        ]
    return found


class Trainer:
    """A model and its optimiser, and the rows it reads."""

    def __init__(self, case: Case, material: Material, machine: Machine, variant: Variant) -> None:
        machine = Machine(machine.device, variant.dtype or machine.dtype)
        weights = None if case.lora else torch.float32
        self.model = load_model(material.base, machine, weights=weights)
        if case.lora:
            self.model = add_lora(
                self.model,
                lora_r=case.lora_r,
                lora_alpha=LORA_ALPHA,
                lora_dropout=0.0,
                target_modules="all-linear",
                seed=SEED,
                lora_layers=variant.lora_layers,
            )
        self.rows: Rows = material.rows
        if variant.cached:
            self.rows = rows_below(
                self.model,
                self.rows,
                material.folder / "below",
                batch_tokens=TOKENS_PER_STEP,
                device=machine.device,
                hooks=Hooks(),
            )
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        self.variant, self.machine = variant, machine
        at_once = default_micro_batch_tokens(machine, case.method)
        self.micro_batch_tokens = variant.micro_batch_tokens or at_once
        self.steps = fill(range(len(self.rows)), self.rows.lengths, variant.tokens_per_step)

    def one_pass(self) -> float:
        """Seconds of one pass over the rows."""
        self.model.train()
        started = time.perf_counter()
        with self.variant.off():
            for step in self.steps:
                for micro in fill(step, self.rows.lengths, self.micro_batch_tokens):
                    packed = pack_rows(self.rows, micro, self.machine.device)
                    with autocast(self.machine.device, self.machine.bf16):
                        loss = sft(logprobs.token_logprobs(self.model, packed), packed)
                    loss.total.backward()  # undivided, as the loop has it: the output layer foresees that
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--case", choices=[name for name, case in CASES.items() if not case.pairs], default="s-lora"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--data", type=Path, default=SHARED / "alpaca" / "alpaca_random_sample.jsonl.gz")
    parser.add_argument("--tokenizer", type=Path, default=ASSETS / "base")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    case, machine = CASES[args.case], choose_machine()
    if machine.device == "cpu":
        keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="nomoat-ablate-") as folder:
        material = build(
            case,
            machine,
            data=args.data,
            tokenizer=open_tokenizer(args.tokenizer),
            rows=args.rows,
            folder=Path(folder),
        )
        trainers = [Trainer(case, material, machine, variant) for variant in variants(case, machine)]
        rounds = [[trainer.one_pass() for trainer in trainers] for _ in range(args.rounds + 1)][1:]
    tokens = int(trainers[0].rows.lengths.sum())
    figures = []
    for index, trainer in enumerate(trainers):
        shares = [seconds[0] / seconds[index] for seconds in rounds]
        speed = tokens / statistics.median(seconds[index] for seconds in rounds)
        figures.append({"variant": trainer.variant.name, "tokens_per_second": speed, "shares": shares})
        print(
            f"{trainer.variant.name:42} {speed:8.0f} tokens/s  {statistics.median(shares):5.2f} "
            f"({min(shares):.2f} to {max(shares):.2f})"
        )
    if args.json is not None:
        args.json.write_text(json.dumps({"case": case.name, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
