"""Fresh prompts that no stage has seen, and whether a model's answers to them pass their checks."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from nomoat.assets.starter import Row, make_fresh, make_prompts, make_rows
from nomoat.chat.conversation import Conversation, Message
from nomoat.engine.base import Sampling
from nomoat.engine.rollouts import roll_out
from nomoat.evaluate.checks import parse_checks, run_checks
from nomoat.model.adapters import load_adapter
from nomoat.model.load import Machine, load_model
from nomoat.night.base import Base
from nomoat.night.reinforcement import reader_of
from nomoat.night.sources import STARTER
from nomoat.night.stages import tokenizer_with_template

MOST_TOKENS = 256
Weights = Mapping[str, torch.Tensor]


def fresh_prompts(count: int, checks: list[dict[str, Any]] | None = None) -> list[Row]:
    """Requests from the generator of the starter data, with these checks in place of their own. None shares its
    combination of name, words and phrases, or nine tenths of its words, with a prompt of training, of `prompts.jsonl`
    or of the held-out suite."""
    train, held_out = make_rows(0)
    seen = [*train, *held_out, *make_prompts(0, train, held_out)]
    rows = make_fresh(random.Random("fresh prompts of bench/learning.py"), count, seen)
    shipped = {
        json.loads(line)["messages"][0]["content"]
        for name in ("train", "prompts", "heldout")
        for line in (STARTER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    }
    assert shipped == {row.prompt for row in seen}, "the files are not what the generator makes"
    assert not {row.prompt for row in rows} & shipped
    assert not {row.combination for row in rows} & {row.combination for row in seen}
    return rows if checks is None else [replace(row, checks=checks) for row in rows]


class Examiner:
    """The base with an adapter whose weights are changed from one examination to the next; answers are greedy."""

    def __init__(self, base: Base, adapter: Path, rows: Sequence[Row], machine: Machine) -> None:
        tokenizer, template = tokenizer_with_template(base.folder, None)
        self._reader = reader_of(tokenizer, template)
        self._checks = [parse_checks(row.checks) for row in rows]
        self._prompts = [
            np.array(
                template.encode(Conversation((Message("user", row.prompt),)), add_generation_prompt=True),
                dtype=np.uint32,
            )
            for row in rows
        ]
        bare = load_model(base.folder, machine)
        self._model = load_adapter(bare, adapter, base_sha256=base.sha256, trainable=True)

    def of_adapter(self, folder: Path) -> list[bool]:
        """Which of all prompts the adapter in PEFT's layout passes."""
        set_peft_model_state_dict(self._model, load_file(folder / "adapter_model.safetensors"))
        return self._passed(len(self._prompts))

    def of_checkpoint(self, scratch: Path, most: int) -> tuple[int, list[bool]]:
        """The step of the newest checkpoint of a stage that was stopped, and which of the first `most` prompts its
        weights pass."""
        newest = max(scratch.rglob("step-*"))
        stored = load_file(newest / "weights.safetensors")
        named = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(stored[name])
        return int(newest.name.removeprefix("step-")), self._passed(most)

    def _passed(self, most: int) -> list[bool]:
        rolled = roll_out(
            self._model,
            self._prompts[:most],
            sampling=Sampling(MOST_TOKENS),
            stop_tokens=self._reader.stop_tokens,
        )
        texts = [self._reader.text(rollout.tokens) for rollout in rolled]
        return [
            all(result.passed for result in run_checks(text, checks))
            for text, checks in zip(texts, self._checks, strict=False)
        ]
