"""What packing is worth: one training step on the same rows, padded through plain transformers and packed.

    python bench/packing.py [--threads N] [--rounds N]

Both compute the same loss on the embedded base and the starter rows, full fine-tuning, float32, forward and
backward, interleaved after a warm-up. Prints real tokens a second (padding does not count) and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

import nomoat
from nomoat.chat.conversation import Conversation, parse_messages
from nomoat.chat.mask import render_trained
from nomoat.chat.template import ChatTemplate
from nomoat.data.pack import Tokens, Trained, pack
from nomoat.model.load import Machine, load_model, load_tokenizer
from nomoat.model.logprobs import token_logprobs

ASSETS = Path(nomoat.__file__).parent / "assets"
BATCH_ROWS = 16


def starter_rows() -> list[tuple[Tokens, Trained]]:
    """The starter data as tokens and mask."""
    template = ChatTemplate.of(load_tokenizer(ASSETS / "base"))
    rows = []
    for line in (ASSETS / "starter" / "train.jsonl").read_text().splitlines():
        conversation = Conversation(parse_messages(json.loads(line)["messages"], "starter"))
        rendered = render_trained(template, conversation)
        rows.append((np.array(rendered.tokens, dtype=np.uint32), np.array(rendered.trained)))
    return rows


def padded_step(model: torch.nn.Module, rows: list[tuple[Tokens, Trained]]) -> float:
    """As a plain loop over transformers does it: pad to the longest, label -100 where nothing is trained."""
    width = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for index, (tokens, trained) in enumerate(rows):
        ids[index, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        mask[index, : len(tokens)] = 1
        labels[index, : len(tokens)] = torch.where(torch.from_numpy(trained), ids[index, : len(tokens)], -100)
    loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    loss.backward()
    return float(loss)


def packed_step(model: torch.nn.Module, rows: list[tuple[Tokens, Trained]]) -> float:
    """As nomoat does it."""
    loss = -token_logprobs(model, pack(rows)).mean()
    loss.backward()
    return float(loss)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    rows = starter_rows()
    plain = AutoModelForCausalLM.from_pretrained(
        ASSETS / "base", dtype=torch.float32, attn_implementation="sdpa"
    )
    ours = load_model(ASSETS / "base", Machine("cpu", torch.float32))
    speeds: dict[str, list[float]] = {"padded": [], "packed": []}
    for step in range(args.rounds + 1):
        batch = rows[step * BATCH_ROWS : (step + 1) * BATCH_ROWS]
        real = sum(len(tokens) for tokens, _ in batch)
        sides: list[tuple[str, Callable[..., float], torch.nn.Module]] = [
            ("padded", padded_step, plain),
            ("packed", packed_step, ours),
        ]
        losses = []
        for name, run, model in sides:
            started = time.perf_counter()
            losses.append(run(model, batch))
            if step:  # the first round is the warm-up
                speeds[name].append(real / (time.perf_counter() - started))
            model.zero_grad(set_to_none=True)
        assert abs(losses[0] - losses[1]) < 1e-4, losses
    for name, measured in speeds.items():
        print(f"{name}: {statistics.median(measured):,.0f} real tokens/s (median of {len(measured)})")
    ratios = [fast / slow for fast, slow in zip(speeds["packed"], speeds["padded"], strict=True)]
    print(f"packed / padded: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
