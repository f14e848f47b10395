"""Where the recipe stops: its sections as the plain keywords that the rooms take."""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec
from typing import Any

from nomoat.engine.vllmrollouts import RANKS
from nomoat.errors import ModelError, RecipeError
from nomoat.model.bits import require_bitsandbytes
from nomoat.model.load import Machine
from nomoat.recipe import Recipe
from nomoat.recipe_training import ADAPTER_KEYS, Optimiser, Prefer, Pretrain, Reinforce, Sft
from nomoat.train.prefer import PreferenceKeys
from nomoat.train.run import TrainingKeys
from nomoat.train.sampled import PolicyKeys

WIDE = 2048
LORA_RATE_WHEN_WIDE = 2e-4
FULL_SHARE = 0.1
PREFER_SHARE = 0.1
BETA, SIMPO_BETA = 0.1, 2.0


def first_training(recipe: Recipe) -> Sft | Prefer | Pretrain:
    """The section of the first stage that trains on a base, or that makes one."""
    section = recipe.sft or recipe.prefer or recipe.pretrain
    assert section is not None
    return section


def adapter_keys(recipe: Recipe) -> dict[str, Any]:
    """How the weights of the base are adapted: `sft`'s keys, or else `prefer`'s, with `sft`'s defaults."""
    first = recipe.sft or Sft()
    own = {} if recipe.sft or not recipe.prefer else recipe.prefer.model_dump(include=set(ADAPTER_KEYS))
    return {key: getattr(first, key) for key in ADAPTER_KEYS} | {
        k: v for k, v in own.items() if v is not None
    }


def resolve_preference_rate(recipe: Recipe, width: int) -> tuple[float, str]:
    """The learning rate of `prefer` and a sentence that gives its reason.

    A tenth of `sft`'s: what it teaches is a direction, not new text, and the rates of the papers on preferences are
    about a tenth of those for instructions, for adapters and for all weights (as TRL's defaults are: 1e-6, 2e-5)."""
    section = recipe.prefer
    assert section is not None
    if section.learning_rate is not None:
        return section.learning_rate, f"prefer: learning rate {section.learning_rate:g}, as the recipe says"
    first = (recipe.sft or Sft()).model_copy(update={"method": adapter_keys(recipe)["method"]})
    rate = PREFER_SHARE * resolve_learning_rate(first, width)[0]
    return rate, f"prefer: learning rate {rate:g}, a tenth of that of sft (prefer.learning_rate)"


def resolve_reinforcement_rate(recipe: Recipe, width: int) -> tuple[float, str]:
    """The learning rate of `reinforce` and a sentence that gives its reason: a tenth of `sft`'s, as for `prefer`."""
    section = recipe.reinforce
    assert section is not None
    if section.learning_rate is not None:
        return (
            section.learning_rate,
            f"reinforce: learning rate {section.learning_rate:g}, as the recipe says",
        )
    first = (recipe.sft or Sft()).model_copy(update={"method": adapter_keys(recipe)["method"]})
    rate = PREFER_SHARE * resolve_learning_rate(first, width)[0]
    return rate, f"reinforce: learning rate {rate:g}, a tenth of that of sft (reinforce.learning_rate)"


def resolve_reward_rate(recipe: Recipe, width: int) -> tuple[float, str]:
    """The learning rate of `reward` and a sentence that gives its reason: `sft`'s, since a head learns from nothing."""
    section = recipe.reward
    assert section is not None
    if section.learning_rate is not None:
        return section.learning_rate, f"reward: learning rate {section.learning_rate:g}, as the recipe says"
    rate, _ = resolve_learning_rate(Sft(method=section.method), width)
    return rate, f"reward: learning rate {rate:g}, that of sft by default (reward.learning_rate)"


def reward_adapter(recipe: Recipe) -> dict[str, Any]:
    """How the reward model's weights are adapted, under the names of `adapter_keys`."""
    section = recipe.reward
    assert section is not None
    own = {key: getattr(section, key, None) for key in ADAPTER_KEYS}
    return own | {"load_in_4bit": False}


def policy_keys(section: Reinforce) -> PolicyKeys:
    """The keys of reinforcement."""
    return PolicyKeys(**{field.name: getattr(section, field.name) for field in fields(PolicyKeys)})


def prompt_keys(recipe: Recipe) -> dict[str, Any]:
    """The keys that the stage `prompts` depends on."""
    section = recipe.reinforce
    assert section is not None
    return {
        "held_out_share": recipe.data.held_out,
        "max_seq_len": section.max_seq_len,
        "max_new_tokens": section.max_new_tokens,
        "needs_checks": not section.rewards or all(reward.kind == "checks" for reward in section.rewards),
    }


def preference_keys(section: Prefer) -> PreferenceKeys:
    """The keys of the loss."""
    beta = section.beta or (SIMPO_BETA if section.loss_type == "simpo" else BETA)
    names = ("loss_type", "label_smoothing", "simpo_gamma", "desirable_weight", "undesirable_weight")
    return PreferenceKeys(beta=beta, **{name: getattr(section, name) for name in names})


def judgement_keys(recipe: Recipe) -> dict[str, Any]:
    """The keys that the stage `judgements` of `prefer` depends on, as `prepare_judgements` takes them."""
    prefer = recipe.prefer
    assert prefer is not None
    wanted = "any" if prefer.loss_type == "kto" else "pairs"
    return {"wanted": wanted, "max_seq_len": prefer.max_seq_len, **_split_keys(recipe)}


def comparison_keys(recipe: Recipe) -> dict[str, Any]:
    """The keys that the stage `judgements` of `reward` depends on."""
    reward = recipe.reward
    assert reward is not None
    keys = {"wanted": "comparisons", "section": "reward", "max_seq_len": reward.max_seq_len}
    return keys | _split_keys(recipe)


def _split_keys(recipe: Recipe) -> dict[str, Any]:
    section = recipe.data
    return {
        "held_out_share": section.held_out,
        "split_by": section.split_by,
        "max_bad_rows": section.max_bad_rows,
        "max_truncated": section.max_truncated,
        "dedup": section.dedup,
    }


def resolve_learning_rate(section: Sft, width: int) -> tuple[float, str]:
    """The learning rate and a sentence that gives its reason.

    The best rate falls about as the width grows (Yang et al. 2022, arXiv:2203.03466, for Adam and matrices);
    an adapter takes about ten times that of all weights (Schulman et al. 2025, "LoRA without regret").
    """
    if section.learning_rate is not None:
        return section.learning_rate, f"learning rate {section.learning_rate:g}, as the recipe says"
    rate = LORA_RATE_WHEN_WIDE * max(1.0, WIDE / width) * (1.0 if section.method == "lora" else FULL_SHARE)
    whom = "an adapter" if section.method == "lora" else "all weights"
    return rate, f"learning rate {rate:g} for {whom} of a base {width} wide (sft.learning_rate)"


def require_extras(recipe: Recipe, device: str) -> None:
    """ModelError where the recipe asks for what an extra would bring, and it is not there: before anything is done.
    RecipeError where it asks for paging or vLLM, and there is no GPU, or for vLLM without an adapter that it can be
    told."""
    if adapter_keys(recipe)["load_in_4bit"]:
        require_bitsandbytes("sft.load_in_4bit" if recipe.sft else "prefer.load_in_4bit", device)
    if recipe.reinforce is not None and recipe.reinforce.rollouts == "vllm":
        _require_vllm(adapter_keys(recipe), device)
    sections = {
        "sft": recipe.sft,
        "reward": recipe.reward,
        "prefer": recipe.prefer,
        "pretrain": recipe.pretrain,
    }
    for name, section in sections.items():
        if section is None or section.optim == "adamw_torch":
            continue
        if section.optim == "paged_adamw_8bit" and device != "cuda":
            raise RecipeError(
                f"{name}.optim: paged_adamw_8bit moves moments between a GPU's memory and the machine's, and there is "
                "no GPU here",
                hint=f"Set {name}.optim to adamw_8bit or adamw_torch.",
            )
        require_bitsandbytes(f"{name}.optim", device)


def _require_vllm(adapter: dict[str, Any], device: str) -> None:
    most = RANKS[-1]
    for key, is_wrong, wanted in (
        ("method", adapter["method"] != "lora", "lora: it is told an adapter, not all weights"),
        ("load_in_4bit", adapter["load_in_4bit"], "false: it computes with the base in 16 bits"),
        ("lora_r", adapter["lora_r"] > most, f"at most {most}"),
    ):
        if is_wrong:
            raise RecipeError(
                f"reinforce.rollouts: vllm, but {key} is {adapter[key]}; expected {wanted}",
                hint="Leave reinforce.rollouts out: the model then writes the answers itself.",
            )
    if device != "cuda":
        raise RecipeError(
            "reinforce.rollouts: vllm needs a GPU, and there is none here",
            hint="Leave it out: the model then writes the answers itself.",
        )
    if find_spec("vllm") is None:
        raise ModelError(
            "reinforce.rollouts: vllm is not installed", hint='Install it: pip install "nomoat[vllm]"'
        )


def default_micro_batch_tokens(machine: Machine, method: str) -> int:
    """With an adapter on a CPU in float32, more at once takes much more memory and is hardly faster; in bfloat16 it is
    faster by half, and all weights add up a gradient each time (docs/benchmarks.md). A GPU's is not measured yet."""
    return 512 if machine.device == "cpu" and not machine.bf16 and method == "lora" else 2048


def micro_batch_tokens(section: Optimiser, machine: Machine, method: str) -> int:
    """Tokens computed at once, a whole row at least; `method` says what is trained, an adapter or all weights."""
    return max(section.micro_batch_tokens or default_micro_batch_tokens(machine, method), section.max_seq_len)


def training_keys(
    section: Optimiser, learning_rate: float, seed: int, machine: Machine, method: str
) -> TrainingKeys:
    """The training keys of a section that trains."""
    return TrainingKeys(
        learning_rate=learning_rate,
        num_train_epochs=section.num_train_epochs,
        max_steps=section.max_steps,
        tokens_per_step=section.tokens_per_step,
        micro_batch_tokens=micro_batch_tokens(section, machine, method),
        lr_scheduler_type=section.lr_scheduler_type,
        warmup_ratio=section.warmup_ratio,
        weight_decay=section.weight_decay,
        adam_beta2=section.adam_beta2,
        optim=section.optim,
        max_grad_norm=section.max_grad_norm,
        eval_steps=section.eval_steps,
        save_steps=section.save_steps,
        seed=seed,
    )


def data_keys(recipe: Recipe) -> dict[str, Any]:
    """The keys that the stage `data` depends on, as `prepare` takes them."""
    section, sft = recipe.data, recipe.sft
    assert sft is not None
    return {
        "format": section.format,
        "held_out_share": section.held_out,
        "split_by": section.split_by,
        "max_seq_len": sft.max_seq_len,
        "max_bad_rows": section.max_bad_rows,
        "max_truncated": section.max_truncated,
        "dedup": section.dedup,
        "train_on": section.train_on,
        "use_preferred": section.use_preferred,
    }
