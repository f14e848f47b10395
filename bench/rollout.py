"""Rollouts beside transformers' `generate`: tokens a second of the same sampling on the same model.

    python bench/rollout.py [--shape s] [--threads N] [--batch 16] [--new 128] [--rounds N] [--lora]

Both sides sample at temperature 1 without cuts, from prompts of 8 to 32 tokens, in float32, and no answer ends
early, so both write the same number of tokens. transformers runs its default cache and, with --static, its static
one; rounds are interleaved after a warm-up. Prints tokens a second, the ratio, and the largest gap between the
two models' log-probabilities of the same answers, which says that both sample from one distribution.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nomoat.data.pack import Tokens
from nomoat.engine.base import Sampling
from nomoat.engine.rollouts import Rollout, roll_out
from nomoat.model.adapters import add_lora
from nomoat.model.attention import PACKED
from nomoat.model.fused import compiled
from nomoat.model.fused.families import fuse
from training.cases import TINY, M, S, Shape

SHAPES = {"tiny": TINY, "s": S, "m": M}


def make(shape: Shape, attention: str, *, lora: bool) -> Any:
    """A random Llama, the same for both sides."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        attn_implementation=attention,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    fuse(model)
    if not lora:
        return model
    return add_lora(
        model, lora_r=16, lora_alpha=32.0, lora_dropout=0.0, target_modules="all-linear", seed=0
    ).eval()


def ours(model: Any, prompts: list[Tokens], new: int, seed: int) -> list[Rollout]:
    sampling = Sampling(new, temperature=1.0, seed=seed)
    return roll_out(model, prompts, sampling=sampling, stop_tokens=frozenset())


@torch.no_grad()
def theirs(model: Any, prompts: list[Tokens], new: int, seed: int, cache: str | None) -> torch.Tensor:
    """Padded on the left, as `generate` wants it."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, width - len(prompt) :] = 1
    torch.manual_seed(seed)
    keys: dict[str, Any] = {} if cache is None else {"cache_implementation": cache}
    said: torch.Tensor = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=new, **keys
    )
    return said


@torch.no_grad()
def largest_gap(model: Any, prompts: list[Tokens], rolled: list[Rollout]) -> float:
    """Between the log-probabilities that rollouts say and those of transformers' own forward."""
    gap = 0.0
    for prompt, rollout in zip(prompts, rolled, strict=True):
        tokens = torch.from_numpy(np.concatenate((prompt, rollout.tokens)).astype(np.int64))
        logp = model(tokens[None]).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
        said = torch.from_numpy(rollout.logps)
        found = logp.gather(1, tokens[len(prompt) :, None])[:, 0]
        gap = max(gap, float((said - found).abs().max()))
    return gap


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="s")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lora", action="store_true", help="with an adapter of rank 16 on all linear layers")
    parser.add_argument("--static", action="store_true", help="transformers with its static cache too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    rng = np.random.default_rng(0)
    shape = SHAPES[args.shape]
    lengths = rng.integers(8, 33, args.batch)
    prompts = [rng.integers(3, shape.vocabulary, int(length)).astype(np.uint32) for length in lengths]
    plain, rolled = (make(shape, kind, lora=args.lora) for kind in ("sdpa", PACKED))
    caches: dict[str, str | None] = {"transformers": None}
    if args.static:
        caches["transformers, static cache"] = "static"
    started = time.perf_counter()
    if compiled.decoding() is not None:
        print(f"C functions compiled in {time.perf_counter() - started:.1f} s, once a process; not counted")
    speeds: dict[str, list[float]] = {name: [] for name in ("nomoat", *caches)}
    written = args.batch * args.new
    for index in range(args.rounds + 1):
        started = time.perf_counter()
        answers = ours(rolled, prompts, args.new, index)
        speeds["nomoat"].append(written / (time.perf_counter() - started))
        for name, cache in caches.items():
            started = time.perf_counter()
            said = theirs(plain, prompts, args.new, index, cache)
            speeds[name].append(written / (time.perf_counter() - started))
            assert said.shape[1] == max(lengths) + args.new, said.shape
        assert all(len(answer.tokens) == args.new for answer in answers)
    for name, measured in speeds.items():
        print(f"{name}: {statistics.median(measured[1:]):,.0f} tokens/s (median of {args.rounds})")
    for name in caches:
        ratios = [a / b for a, b in zip(speeds["nomoat"][1:], speeds[name][1:], strict=True)]
        print(
            f"nomoat / {name}: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"largest gap between log-probabilities: {largest_gap(plain, prompts, answers):.1e}")


if __name__ == "__main__":
    main()
