"""Reinforcement: an adapter or full weights, trained further on what the model's own answers are worth."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from nomoat.data.pack import Rows
from nomoat.engine.vllmrollouts import VllmRollouts
from nomoat.model.adapters import save_adapter
from nomoat.model.load import Machine
from nomoat.model.merge import check_saved, probe_logits, probe_rows, save_model
from nomoat.model.recompute import recompute_blocks
from nomoat.train.finetune import keep_adapter
from nomoat.train.hooks import Hooks
from nomoat.train.loop import TrainResult
from nomoat.train.opened import open_to_train
from nomoat.train.policy_loop import Passes, learn
from nomoat.train.rewards import Rewards
from nomoat.train.run import TrainingKeys
from nomoat.train.sampled import PolicyKeys, Prompt, Reader

HELD_OUT_PROMPTS = 64
"""Held-out prompts that steer training: their pass rate is a compass, not the verdict."""


def reinforce(
    base: Path,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    held_out: Sequence[Prompt],
    probes: Rows,
    out: Path,
    scratch: Path,
    *,
    adapter: Path | None,
    base_name: str,
    base_sha256: str,
    method: str,
    lora_r: int,
    lora_alpha: float,
    lora_dropout: float,
    lora_target_modules: str | list[str],
    lora_layers: int | None,
    load_in_4bit: bool,
    reader: Reader,
    rewards: Rewards,
    passes: Passes,
    policy: PolicyKeys,
    keys: TrainingKeys,
    machine: Machine,
    hooks: Hooks,
    gradient_checkpointing: bool | Literal["auto"] = "auto",
    vllm_memory: float | None = None,
) -> TrainResult:
    """Train further and write `out/adapter/` (method "lora") or `out/model/` (method "full"), as `prefer` does.

    The reference is the model as it is before the first step. The weights that are kept are those of the highest pass
    rate on `held_out`, or of the highest mean reward there where nothing can be passed; what training began with,
    where nothing was better. A run is resumed from the checkpoints in `scratch`. With `vllm_memory`, answers come
    from a vLLM that takes this share of the GPU's memory. Raises DataError when most answers go without a reward;
    ModelError when training diverges; ServeError where vLLM does not start, or ends.
    """
    model = open_to_train(
        base,
        machine,
        adapter=adapter,
        base_sha256=base_sha256,
        method=method,
        lora_r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_target_modules=lora_target_modules,
        lora_layers=lora_layers,
        load_in_4bit=load_in_4bit,
        seed=keys.seed,
    )
    if gradient_checkpointing is True:
        recompute_blocks(model)
    held_out = held_out[:HELD_OUT_PROMPTS]
    with ExitStack() as held:
        roll = None
        if vllm_memory is not None:
            longest = max(len(prompt.tokens) for prompt in (*prompts, *held_out)) + policy.max_new_tokens
            vllm = VllmRollouts(
                base,
                scratch / "rollouts",
                lora_r=lora_r,
                n_ctx=min(longest, model.config.get_text_config().max_position_embeddings),
                memory_share=vllm_memory,
                stop_tokens=reader.stop_tokens,
            )
            held.enter_context(vllm)
            roll = partial(vllm.roll_out, partial(save_adapter, model, base="", base_sha256=""))
        result = learn(
            model,
            prompts,
            held_out,
            scratch,
            reader=reader,
            rewards=rewards,
            passes=passes,
            policy=policy,
            keys=keys,
            machine=machine,
            hooks=hooks,
            roll=roll,
        )
    if method == "lora":
        keep_adapter(model, tokenizer, out / "adapter", base_name=base_name, base_sha256=base_sha256)
    else:
        trained_TV = probe_logits(model.eval(), probe_rows(probes), machine.device)
        save_model(model, tokenizer, out / "model")
        del model
        check_saved(trained_TV, out / "model", probe_rows(probes), machine, torch.float32)
    return result
