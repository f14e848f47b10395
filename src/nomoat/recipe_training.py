"""The sections of nomoat.yaml that train: `sft`, `reward`, `prefer`, `reinforce` and `pretrain`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from nomoat.recipe_part import Count, Part, Positive, Share


class Optimiser(Part):
    """What supervised fine-tuning and pre-training have in common."""

    num_train_epochs: Positive = 3.0
    """Passes over the training rows; may be a fraction."""
    max_steps: Count | None = None
    """End after this many steps, whatever the epochs say."""
    max_seq_len: Annotated[int, Field(ge=8)] = 512
    """Longest row in tokens; a longer one is cut at its end (text is split instead)."""
    tokens_per_step: Annotated[int, Field(ge=8)] = 2048
    """Tokens of one optimiser step: the effective batch. Rows are packed without padding."""
    micro_batch_tokens: Annotated[int, Field(ge=8)] | None = None
    """Tokens computed at once. Changes memory, not the result; halved by itself when memory runs out. Default: 512
    for an adapter on a CPU in float32, where more is hardly faster, else 2048. A longest row is always computed at
    once."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Compute every block again in backward instead of keeping what it made: far less memory, a third to a half more
    work, the same result. `auto` does so only where memory does not suffice otherwise, and says so."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_ratio: Share = 0.05
    """Share of the steps over which the learning rate rises."""
    optim: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "adamw_torch"
    """The optimiser. `adamw_8bit` keeps AdamW's moments in a byte each instead of four, `paged_adamw_8bit` also lets
    them leave a GPU's memory when it is short. Both need the extra `gpu`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay, on matrices only."""
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """AdamW's second beta; its first is 0.9."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation. `auto` takes bfloat16 where the hardware has it."""
    eval_steps: Count | None = None
    """Steps between two held-out losses. Default: ten in a run."""
    save_steps: Count | None = None
    """Steps between two checkpoints. Default: ten in a run."""

    @model_validator(mode="after")
    def _step_holds_a_row(self) -> Optimiser:
        if self.tokens_per_step < self.max_seq_len:
            raise ValueError(
                f"tokens_per_step ({self.tokens_per_step}) must be at least max_seq_len ({self.max_seq_len})"
            )
        return self


def _refuse_training_in_4bit(load_in_4bit: bool | None, method: str | None) -> None:
    if load_in_4bit and method == "full":
        raise ValueError("load_in_4bit holds a frozen base, and method full trains it: set method to lora")


class Sft(Optimiser):
    """Supervised fine-tuning on instructions and conversations."""

    learning_rate: Positive | None = None
    """Peak learning rate of AdamW. Default: by the base's width, 2e-4 for an adapter on a base 2,048 wide and
    larger on a narrower one; a tenth of that for all weights. The plan says the number."""
    method: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter on the frozen base, `full` every weight."""
    load_in_4bit: bool = False
    """Hold the frozen base in four bits (NF4) while its adapter is trained: a quarter of the memory, more slowly. The
    adapter is then folded into the base as it is, unquantised. Needs the extra `gpu`."""
    lora_r: Count = 16
    """Rank of the adapter."""
    lora_alpha: Positive = 32.0
    """Scale of the adapter; the update is multiplied by lora_alpha / lora_r."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapter."""
    lora_target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: `all-linear` or a list of names such as [q_proj, v_proj]."""
    lora_layers: Count | None = None
    """Adapt only this many blocks, from the top: faster, and less is learned. Default: all."""
    frozen_cache: bool = True
    """Where `lora_layers` leaves blocks frozen and rows are read more than once: compute those blocks once and keep
    their outputs on the disk while training, two bytes a number."""

    @model_validator(mode="after")
    def _four_bits_are_frozen(self) -> Sft:
        _refuse_training_in_4bit(self.load_in_4bit, self.method)
        return self


class Prefer(Optimiser):
    """Learning from judged answers, after `sft` on its adapter (or on its model), or straight on a base. The
    reference is the model as this stage finds it."""

    train: list[str] = []
    """Files of preference rows {prompt, chosen, rejected}, or with `loss_type: kto` also rated ones {prompt,
    completion, label}. Empty: those of `data.train`. Split, checked and rendered as `data` says, so that a prompt is
    held out of this stage and of `sft` alike."""
    prompts: list[str] = []
    """In place of `train`: files of prompts with checks, as in `evaluate.prompts`. The model as this stage finds it
    answers each of them `samples` times, and answers that pass all checks are preferred to those that do not. Where
    neither is given and `data.train` is the starter data: its own prompts."""
    votes: Literal["only"] | bool = True
    """Learn from the ledger's votes too, where there are any: the better answer is preferred to the other, and so is an
    answer with a thumb up to one with a thumb down. Ties and votes on held-out prompts teach nothing. `only` takes
    nothing else, and leaves this stage out of a night that has too few of them yet. With `loss_type: kto` and no pairs
    beside, every thumb counts, and "both bad" is two bad answers."""
    samples: Annotated[int, Field(ge=2)] = 4
    """Answers to each of `prompts`."""
    temperature: Positive = 1.0
    """How freely they are drawn: below 1 likely words are preferred, above 1 less so."""
    max_new_tokens: Count = 256
    """Longest of these answers in tokens; one that is cut off is a bad one."""
    loss_type: Literal["sigmoid", "robust", "hinge", "ipo", "simpo", "orpo", "kto"] = "sigmoid"
    """What is minimised: `sigmoid` is DPO, `robust`, `hinge` and `ipo` its variants; `simpo` and `orpo` need no
    reference; `kto` learns from single answers rated good or bad, and takes pairs as two of them."""
    beta: Positive | None = None
    """How strongly the model is held to the reference; in `orpo` the weight of the comparison. Default: 0.1, and 2.0
    for `simpo`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the judgements taken to be wrong; of `sigmoid`, `robust` and `simpo`."""
    simpo_gamma: Annotated[float, Field(ge=0)] = 1.0
    """By how much the preferred answer should win; of `simpo`."""
    desirable_weight: Positive = 1.0
    """Weight of an answer that was found good; of `kto`."""
    undesirable_weight: Positive = 1.0
    """Weight of an answer that was found bad; of `kto`."""
    learning_rate: Positive | None = None
    """Peak learning rate of AdamW. Default: a tenth of what `sft` would take. The plan says the number."""
    num_train_epochs: Positive = 1.0
    """Passes over the judged rows; may be a fraction."""
    max_seq_len: Annotated[int, Field(ge=8)] = 512
    """Longest prompt with an answer, in tokens; a longer answer is cut at its end."""
    method: Literal["lora", "full"] | None = None
    """`lora` or `full`. Default for this and the next six: as in `sft`, whose adapter is trained further; without
    `sft` as there by default."""
    load_in_4bit: bool | None = None
    """Hold the frozen base in four bits, where there is no `sft`."""
    lora_r: Count | None = None
    """Rank of the adapter, where there is no `sft`."""
    lora_alpha: Positive | None = None
    """Scale of the adapter, where there is no `sft`."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout before the adapter, where there is no `sft`."""
    lora_target_modules: str | list[str] | None = None
    """Layers that get an adapter, where there is no `sft`."""
    lora_layers: Count | None = None
    """Adapt only this many blocks, from the top, where there is no `sft`."""

    @model_validator(mode="after")
    def _one_source(self) -> Prefer:
        if self.train and self.prompts:
            raise ValueError(
                "prompts and train exclude each other: answers are judged by checks, or were before"
            )
        for key in ("train", "prompts"):
            if self.votes == "only" and getattr(self, key):
                raise ValueError(f"votes: only takes nothing else, and {key} names files: set votes to true")
        return self

    @model_validator(mode="after")
    def _four_bits_are_frozen(self) -> Prefer:
        _refuse_training_in_4bit(self.load_in_4bit, self.method)
        return self

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> Prefer:
        if self.label_smoothing and self.loss_type not in ("sigmoid", "robust", "simpo"):
            raise ValueError(
                f"label_smoothing ({self.label_smoothing:g}) means nothing to loss_type {self.loss_type}; it is of "
                "sigmoid, robust and simpo"
            )
        return self


class RewardModel(Optimiser):
    """A reward model: the base with a scalar head, taught on pairs of answers to score what people prefer. It does not
    change the model of the night; `reinforce` can learn from it, and other tools can open its folder."""

    train: list[str] = []
    """Files of preference rows {prompt, chosen, rejected}, each with a `margin` or `tie: true` where that is known.
    Empty: those of `prefer.train`, or else of `data.train`. Split, checked and rendered as `data` says."""
    learning_rate: Positive | None = None
    """Peak learning rate of AdamW. Default: as in `sft` by default. The plan says the number."""
    num_train_epochs: Positive = 1.0
    """Passes over the judged rows; may be a fraction."""
    max_seq_len: Annotated[int, Field(ge=8)] = 512
    """Longest prompt with an answer, in tokens; a longer answer is cut at its end."""
    method: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter and the head, and folds the adapter in; `full` every weight."""
    lora_r: Count = 16
    """Rank of the adapter."""
    lora_alpha: Positive = 32.0
    """Scale of the adapter; the update is multiplied by lora_alpha / lora_r."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapter."""
    lora_target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: `all-linear` or a list of names such as [q_proj, v_proj]."""


class Reward(Part):
    """One source of rewards; those of an answer add up."""

    kind: Literal["checks", "function", "regex", "json_schema", "answer", "judge", "reward_model"]
    """`checks`: the share of the prompt's own checks that the answer passes. `function`: a Python function. `regex`: 1
    where the pattern is found. `json_schema`: 1 for JSON that is valid. `answer`: 1 where the final answer is the
    prompt's field `answer`. `judge`: the grade of a model behind an OpenAI endpoint, from 0 to 1. `reward_model`: the
    score of a reward model, in logits."""
    weight: float = 1.0
    """What the source's number is multiplied by; below 0 for what should not be."""
    function: str | None = None
    """Of `function`: file and name, such as rules.py:polite, called with messages, answer and the prompt's row. It runs
    in a process of its own."""
    pattern: str | None = None
    """Of `regex`: what is searched for in the answer."""
    schema_file: str | None = None
    """Of `json_schema`: a file with the JSON schema. Default: each prompt's own field `schema`."""
    path: str | None = None
    """Of `reward_model`: its folder, transformers' sequence classification with one label. Default: what this night's
    stage `reward` makes."""
    url: str | None = None
    """Of `judge`: where the endpoint is, such as http://127.0.0.1:8000/v1."""
    model: str | None = None
    """Of `judge`: the model's name there."""
    api_key_env: str | None = None
    """Of `judge`: the environment variable that holds the key."""
    instructions: str | None = None
    """Of `judge`: what it is told to grade. It must reply with one number from 0 to 10."""
    time_limit_s: Annotated[float, Field(gt=0, le=3_600)] = 10.0
    """Of `function` and `judge`: seconds that one answer may take."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Reward:
        needs = {"function": ("function",), "regex": ("pattern",), "judge": ("url", "model")}
        may = {
            "json_schema": ("schema_file",),
            "judge": ("api_key_env", "instructions"),
            "reward_model": ("path",),
        }
        for key in needs.get(self.kind, ()):
            if getattr(self, key) is None:
                raise ValueError(f"kind ({self.kind}) needs {key}")
        own = ("function", "pattern", "schema_file", "path", "url", "model", "api_key_env", "instructions")
        for key in own:
            if (
                key not in (*needs.get(self.kind, ()), *may.get(self.kind, ()))
                and getattr(self, key) is not None
            ):
                raise ValueError(f"{key} means nothing to kind {self.kind}")
        if self.function is not None and not re.fullmatch(r".+\.py:[A-Za-z_]\w*", self.function):
            raise ValueError(f"function ({self.function}) must be file and name, such as rules.py:polite")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern ({self.pattern}) is no regular expression: {error}") from None
        return self


class Reinforce(Optimiser):
    """Learning from rewards of the model's own answers, after `sft` or `prefer` on what they have made. The reference
    is the model as this stage finds it."""

    prompts: list[str] = []
    """JSONL files of prompts {messages}, with `checks` or whatever else the rewards look at. Some are held out, as
    `data.held_out` says, and none is used that a suite asks, tonight's or an earlier night's. Empty with the starter
    data: its own."""
    rewards: list[Reward] = []
    """What answers are rewarded for. Empty: the prompts' own checks."""
    method: Literal["grpo", "rloo", "ppo", "best_of_n"] = "grpo"
    """`grpo` and `rloo` compare the answers to one prompt with each other; `ppo` learns what to expect beside.
    `best_of_n` keeps the best answer to each prompt and fine-tunes on it: the simplest, and hard to break."""
    num_generations: Annotated[int, Field(ge=2)] = 8
    """Answers sampled to each prompt."""
    max_new_tokens: Count = 192
    """Longest sampled answer in tokens."""
    tokens_per_step: Annotated[int, Field(ge=8)] = 8192
    """Tokens of answers of one optimiser step at most: how many prompts a step has follows from it."""
    beta: Annotated[float, Field(ge=0)] = 0.02
    """How strongly the model is held to the reference, by the KL; not in `best_of_n`."""
    epsilon: Positive = 0.2
    """How far one step may lower the probability of a token (of an answer in `rloo`)."""
    epsilon_high: Positive = 0.28
    """How far one step may raise it; DAPO's clip-higher. `ppo` takes `epsilon` for both."""
    loss_type: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    """Of `grpo`: `dapo` is a mean over tokens, `grpo` over answers, `dr_grpo` has no length in it."""
    scale_rewards: bool = True
    """Of `grpo`: divide by the standard deviation within a prompt's answers. Dr. GRPO does not."""
    overlong: Literal["keep", "mask", "punish"] = "keep"
    """Answers cut at `max_new_tokens`: `mask` learns nothing from them, `punish` takes up to 1 from their reward."""
    entropy_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy in what is maximised; keeps answers different from each other."""
    num_iterations: Count = 1
    """Updates from the answers of one step."""
    importance_cap: Annotated[float, Field(ge=1)] = 2.0
    """Most that the ratio of policy and sampling policy may weigh a token."""
    gae_lambda: Share = 0.95
    """Of `ppo`: how far advantages look ahead."""
    value_coef: Annotated[float, Field(ge=0)] = 0.5
    """Of `ppo`: weight of the loss of the expected rewards."""
    max_kl: Positive = 0.5
    """Stop when the KL to the reference is larger, in nats a token."""
    max_length_growth: Annotated[float, Field(gt=1)] = 3.0
    """Stop when answers have grown to so many times their first length."""
    max_pass_drop: Share = 0.1
    """Stop when the held-out pass rate is this far below its best, twice in a row."""
    rollouts: Literal["torch", "vllm"] = "torch"
    """Who writes the answers: the model itself, or (with an adapter, on a GPU) a vLLM that is told the adapter before
    each step; then a resumed run is not the same to the bit. With vLLM on a GPU not run yet."""
    vllm_memory: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Of `rollouts: vllm`: the share of the GPU's memory that vLLM takes; the plan takes all of it for training."""
    learning_rate: Positive | None = None
    """Peak learning rate of AdamW. Default: a tenth of what `sft` would take. The plan says the number."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "constant"
    """How the learning rate falls after the warm-up."""
    num_train_epochs: Positive = 1.0
    """Passes over the prompts; may be a fraction."""

    @model_validator(mode="after")
    def _a_prompt_has_room(self) -> Reinforce:
        if self.max_new_tokens >= self.max_seq_len:
            raise ValueError(
                f"max_new_tokens ({self.max_new_tokens}) must be below max_seq_len ({self.max_seq_len}), so that a "
                "prompt has room"
            )
        return self


ADAPTER_KEYS = (
    "method",
    "load_in_4bit",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_layers",
)
"""What says how weights are adapted; `prefer` has these from `sft`."""


class Pretrain(Optimiser):
    """A base of one's own from plain text: tokenizer and Llama-architecture model from scratch."""

    train: Annotated[list[str], Field(min_length=1)]
    """Text files, or JSONL rows with a `text` field, one document a row."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of documents kept out of training."""
    vocab_size: Annotated[int, Field(ge=300)] = 2048
    """Size of the byte-level BPE vocabulary."""
    hidden_size: Count = 256
    """Width of the model."""
    intermediate_size: Count = 768
    """Width of the MLP."""
    num_hidden_layers: Count = 6
    """Number of layers."""
    num_attention_heads: Count = 4
    """Number of query heads."""
    num_key_value_heads: Count = 2
    """Number of key and value heads."""
    learning_rate: Positive = 3e-3
    """Peak learning rate of AdamW."""
    num_train_epochs: Positive = 1.0
    """Passes over the text; may be a fraction."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """AdamW's weight decay, on matrices only."""
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.98
    """AdamW's second beta; its first is 0.9."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Pretrain:
        for key, by in (
            ("hidden_size", "num_attention_heads"),
            ("num_attention_heads", "num_key_value_heads"),
        ):
            whole, part = getattr(self, key), getattr(self, by)
            if whole % part:
                raise ValueError(f"{key} ({whole}) must be a multiple of {by} ({part})")
        return self
