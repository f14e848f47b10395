"""What the recipe's models say about a key: its kind, the words for what is expected, where a name belongs.

All of it is read from the models' JSON schema, so a new key needs no line here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from nomoat.errors import nearest
from nomoat.recipe import Recipe

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of the recipe: ("data", "train", 0)."""

PATTERN_WORDS = {
    "name": 'a name of up to 64 letters, digits, ".", "_" and "-"',
    "budget.until": 'a time of day such as "07:00"',
}

# Names that other tools use (HF TrainingArguments, PEFT, TRL, Axolotl, LLaMA-Factory, ms-swift), the key
# here, and what differs. No key: there is none, and the words say why. Equal names are not listed.
_FOREIGN_ROWS = (
    ("base_model model model_id model_name model_name_or_path", "base", ""),
    ("tokenizer tokenizer_name tokenizer_type model_type", "", "the base brings its own"),
    ("trust_remote_code", "", "code from a model folder is never run"),
    ("dataset datasets dataset_name dataset_path data_path data_files train_file", "data.train", ""),
    ("val_set_size val_size split_dataset_ratio test_size", "data.held_out", "a share of the rows"),
    ("template", "data.chat_template", "a Jinja file; without it the tokenizer's own is used"),
    ("train_on_inputs train_on_prompt completion_only_loss", "", "prompts are never trained on"),
    ("assistant_only_loss train_on_completions mask_prompt", "", "prompts are never trained on"),
    ("lr peak_lr", "sft.learning_rate", ""),
    ("num_epochs epochs n_epochs", "sft.num_train_epochs", ""),
    ("max_length max_seq_length sequence_len cutoff_len seq_len block_size", "sft.max_seq_len", ""),
    ("model_max_length context_length", "sft.max_seq_len", ""),
    ("per_device_train_batch_size micro_batch_size", "sft.micro_batch_tokens", "in tokens, not rows"),
    ("batch_size train_batch_size global_batch_size", "sft.tokens_per_step", "in tokens, not rows"),
    (
        "gradient_accumulation_steps",
        "sft.tokens_per_step",
        "in tokens; what does not fit at once is accumulated",
    ),
    ("bf16 fp16 torch_dtype precision", "sft.dtype", "auto, float32 or bfloat16"),
    ("packing sample_packing padding_free group_by_length", "", "rows are always packed without padding"),
    ("pad_to_max_length pad_to_sequence_len", "", "rows are always packed without padding"),
    ("optimizer", "sft.optim", "adamw_torch, adamw_8bit or paged_adamw_8bit"),
    ("lr_scheduler scheduler", "sft.lr_scheduler_type", ""),
    ("warmup warmup_steps", "sft.warmup_ratio", "a share of the steps"),
    ("gradient_clipping grad_clip max_norm", "sft.max_grad_norm", ""),
    ("lora_rank rank r", "sft.lora_r", ""),
    ("alpha", "sft.lora_alpha", ""),
    ("lora_target target_modules lora_target_linear", "sft.lora_target_modules", ""),
    ("adapter finetuning_type train_type use_lora use_peft", "sft.method", "lora or full"),
    ("use_dora use_rslora neftune_noise_alpha deepspeed fsdp", "", "this is not offered"),
    ("load_in_8bit quantization_bit", "sft.load_in_4bit", "true or false: NF4, or not quantised"),
    (
        "activation_checkpointing use_gradient_checkpointing",
        "sft.gradient_checkpointing",
        "auto, true or false",
    ),
    ("rl rlhf_type pref_loss", "prefer.loss_type", "sigmoid is DPO"),
    ("dpo_beta pref_beta kto_beta orpo_beta", "prefer.beta", ""),
    ("gamma gamma_beta_ratio", "prefer.simpo_gamma", ""),
    ("num_return_sequences group_size n_generations rollout_n", "reinforce.num_generations", ""),
    ("max_completion_length max_prompt_length response_length", "reinforce.max_new_tokens", ""),
    ("kl_coef init_kl_coef kl_beta", "reinforce.beta", ""),
    ("cliprange clip_range", "reinforce.epsilon", ""),
    ("reward_funcs reward_functions reward_model_path", "reinforce.rewards", "a list of sources"),
    (
        "ref_model reference_model precompute_ref_log_probs",
        "",
        "the reference is the model before the stage prefer or reinforce",
    ),
    ("eval_strategy evaluation_strategy", "sft.eval_steps", "a number of steps"),
    ("save_strategy", "sft.save_steps", "a number of steps"),
    ("logging_steps save_total_limit", "", "the night sees to it"),
    ("resume_from_checkpoint", "", "an interrupted night goes on by itself"),
    ("output_dir", "", "results go to .nomoat in the workspace"),
    ("report_to wandb_project", "", "nothing is sent anywhere"),
    ("random_seed", "seed", ""),
    ("quantization quant_type", "quantize.types", ""),
    ("deadline", "budget.until", ""),
    ("max_time", "budget.hours", ""),
)
FOREIGN = {name: (key, note) for names, key, note in _FOREIGN_ROWS for name in names.split()}
"""Another tool's key -> (the key here or '', what differs)."""


@cache
def _root() -> dict[str, Any]:
    return Recipe.model_json_schema()


def alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The plain schemas that a value may follow: references looked up, `anyOf` taken apart."""
    if "$ref" in schema:
        return [_root()["$defs"][schema["$ref"].rsplit("/", 1)[1]]]
    if "anyOf" in schema:
        return [plain for part in schema["anyOf"] for plain in alternatives(part)]
    return [schema]


def kinds(schema: dict[str, Any]) -> set[str]:
    """JSON schema types a value may have; empty for a key that does not exist."""
    return {plain["type"] for plain in alternatives(schema) if "type" in plain}


def child(schema: dict[str, Any], key: str | int) -> dict[str, Any]:
    """Schema of a key of a section or an item of a list; {} where there is none."""
    for plain in alternatives(schema):
        if isinstance(key, int) and plain.get("type") == "array":
            return plain["items"]
        if key in plain.get("properties", {}):
            return plain["properties"][key]
    return {}


def schema_at(path: KeyPath) -> dict[str, Any]:
    """Schema of the value at `path`; {} where there is none."""
    schema = _root()
    for key in path:
        schema = child(schema, key)
    return schema


def keys_of(section: KeyPath) -> list[str]:
    """Names that may stand in a section; of the top level for ()."""
    return [name for plain in alternatives(schema_at(section)) for name in plain.get("properties", {})]


def sections() -> list[str]:
    """The top-level keys that have keys under them."""
    return [name for name in keys_of(()) if keys_of((name,))]


def dotted(path: KeyPath) -> str:
    """('data', 'train', 0) -> 'data.train[0]'."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def expected(path: KeyPath) -> str:
    """The words for what may stand at `path`: 'a number above 0', 'lora or full', 'text, or null'."""
    words = [_words(plain, path) for plain in alternatives(schema_at(path))]
    between = ", " if " or " in words[-1] else " or "
    return between.join(words).replace(" or null", ", or null")


def did_you_mean(path: KeyPath, got: str) -> str:
    """'. Did you mean "lora"?' where one of the words that may stand at `path` is close to `got`; else ''."""
    suggestion = nearest(got, [word for plain in alternatives(schema_at(path)) for word in _choices(plain)])
    return f".{suggestion}" if suggestion else ""


def _choices(schema: dict[str, Any]) -> list[str]:
    """The words that a schema lists, if it lists any."""
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def _words(schema: dict[str, Any], path: KeyPath) -> str:
    if choices := _choices(schema):
        *most, last = choices
        return f"{', '.join(most)} or {last}" if most else str(last)
    match schema["type"]:
        case "null":
            return "null"
        case "boolean":
            return "true or false"
        case "string":
            return PATTERN_WORDS[dotted(path)] if "pattern" in schema else "text"
        case "integer":
            return "a whole number" + _bounds(schema)
        case "number":
            return "a number" + _bounds(schema)
        case "array":
            more = " (at least one)" if schema.get("minItems") else ""
            (item,) = alternatives(schema["items"])
            if "properties" in item:
                return f"a list of mappings with keys such as {next(iter(item['properties']))}{more}"
            return f"a list of {_words(item, (*path, 0))}{more}"
        case _:
            return f"keys under it, such as {next(iter(schema['properties']))}"


def _bounds(schema: dict[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    parts = [f" above {above}" if above is not None else "", f", {low} or more" if low is not None else ""]
    parts.append(f" and below {below}" if below is not None else "")
    parts.append(f" and at most {high}" if high is not None else "")
    return "".join(parts)


def unknown_key(path: KeyPath) -> str:
    """What to say about a key that does not exist: its name here, where it belongs, or what is close."""
    section, name = path[:-1], str(path[-1]).lower().replace("-", "_")
    if name in FOREIGN:
        key, note = FOREIGN[name]
        if not key:
            return f"unknown key. Take the line out: {note}"
        home, _, last = key.rpartition(".")
        if (
            home == "sft"
            and section in (("pretrain",), ("prefer",), ("reward",), ("reinforce",))
            and last in keys_of(section)
        ):
            key = f"{section[0]}.{last}"
        return f'unknown key. Here it is "{key}"' + (f" ({note})" if note else "")
    here = keys_of(section)
    homes = [home for home in sections() if name in keys_of((home,))]
    if homes and name not in here:
        return f"unknown key here. {name} belongs under {' or '.join(homes)}"
    if name in keys_of(()) and name not in here:
        return f"unknown key here. {name} belongs at the left margin, under no other key"
    return "unknown key." + (nearest(name, here) or f" Keys here: {', '.join(here)}")
