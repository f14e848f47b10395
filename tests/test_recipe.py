"""nomoat.yaml: what is read, and the exact words for what is not."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nomoat.errors import RecipeError
from nomoat.recipe import Recipe
from nomoat.recipe_file import LoadedRecipe, load_recipe
from nomoat.recipe_schema import FOREIGN, PATTERN_WORDS, alternatives, dotted, keys_of, schema_at, sections

TOP = "name, base, seed, threads, data, sft, reward, prefer, reinforce, pretrain, quantize, evaluate, gate, budget"
GGUF = "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M or Q4_K_M"
FORMATS = "auto, alpaca, sharegpt, messages, prompt-completion, preference, rating or text"


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str | bytes, *overrides: str) -> Recipe:
    Path("nomoat.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(Path("nomoat.yaml"), overrides).recipe


def refused(text: str | bytes, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(text, *overrides)
    return str(caught.value)


def test_a_recipe_is_read_with_defaults_for_the_rest() -> None:
    recipe = load("base: models/smol\nsft:\n  lora_r: 8\n")
    assert recipe.base == "models/smol"
    assert recipe.sft is not None and recipe.sft.lora_r == 8
    assert (recipe.sft.lora_alpha, recipe.sft.learning_rate) == (32.0, None)


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("sft:\n  learning_rate: 1e-4", {"sft": {"learning_rate": 1e-4}}),  # text in YAML 1.1
        ("sft:\n  learning_rate: '1e-4'", {"sft": {"learning_rate": 1e-4}}),
        ("sft:\n  tokens_per_step: 1e4", {"sft": {"tokens_per_step": 10000}}),
        ("sft:\n  tokens_per_step: 16_384", {"sft": {"tokens_per_step": 16384}}),
        ("budget:\n  until: 07:00", {"budget": {"until": "07:00"}}),  # 420 in YAML 1.1
        ("budget: {until: 19:30}", {"budget": {"until": "19:30"}}),  # 70200 in YAML 1.1
        ("data:\n  dedup: no", {"data": {"dedup": False}}),
        ("data:\n  use_preferred: Yes", {"data": {"use_preferred": True}}),
        ("name: no", {"name": "no"}),  # false in YAML 1.1
        ("name: 007", {"name": "007"}),  # 7 in YAML 1.1
        ("name: 2026-11-24", {"name": "2026-11-24"}),  # a date in YAML 1.1
        ("seed: 010", {"seed": 10}),  # 8 in YAML 1.1
        ("data:\n  train: a.jsonl", {"data": {"train": ["a.jsonl"]}}),
        ("data:\n  train: a,b.jsonl", {"data": {"train": ["a,b.jsonl"]}}),
        ("data:\n  train: [a.jsonl, 12]", {"data": {"train": ["a.jsonl", "12"]}}),
        ("evaluate:\n  prompts: p.jsonl", {"evaluate": {"prompts": ["p.jsonl"]}}),
        ("sft:\n  lora_target_modules: [q_proj]", {"sft": {"lora_target_modules": ["q_proj"]}}),
        ("sft:\n  lora_target_modules: q_proj", {"sft": {"lora_target_modules": "q_proj"}}),
        ("sft:\n  max_steps:", {}),
        ("sft:\n  learning_rate:", {}),
        ("sft:\n  learning_rate: null", {}),
        ("seed: 0\nsft: ~\npretrain: {train: t.txt}", {"sft": None, "pretrain": {"train": ["t.txt"]}}),
        ('{"name": "json", "seed": 3}', {"name": "json", "seed": 3}),
        ("\ufeffseed: 3\r\nname: crlf\r\n", {"seed": 3, "name": "crlf"}),
    ],
)  # fmt: skip
def test_the_type_of_a_key_decides_what_a_word_means(text: str, changed: dict[str, Any]) -> None:
    assert load(text) == Recipe.model_validate(changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft:\n  learning_rate: fast",
         'nomoat.yaml:2: sft.learning_rate: got "fast"; expected a number above 0, or null'),
        ("sft:\n  learning_rate: 0",
         "nomoat.yaml:2: sft.learning_rate: got 0; expected a number above 0, or null"),
        ("sft:\n  learning_rate: -1e-4",
         "nomoat.yaml:2: sft.learning_rate: got -1e-4; expected a number above 0, or null"),
        ("sft:\n  lora_alpha:", "nomoat.yaml:2: sft.lora_alpha: got nothing; expected a number above 0"),
        ("sft:\n  lora_alpha: 0", "nomoat.yaml:2: sft.lora_alpha: got 0; expected a number above 0"),
        ("sft:\n  learning_rate: 1e999",
         "nomoat.yaml:2: sft.learning_rate: got 1e999; expected a number above 0, or null"),
        ("sft:\n  learning_rate: .nan",
         'nomoat.yaml:2: sft.learning_rate: got ".nan"; expected a number above 0, or null'),
        ("pretrain:\n  train: [t]\n  learning_rate:",
         "nomoat.yaml:3: pretrain.learning_rate: got nothing; expected a number above 0"),
        ("reinforce:\n  rewards:\n    - kind: answer\n      time_limit_s: 1e10",
         "nomoat.yaml:4: reinforce.rewards[0].time_limit_s: got 1e10; expected a number above 0 and at most 3600"),
        ("sft:\n  lora_r: true", "nomoat.yaml:2: sft.lora_r: got true; expected a whole number, 1 or more"),
        ("sft:\n  lora_r: 1.5", "nomoat.yaml:2: sft.lora_r: got 1.5; expected a whole number, 1 or more"),
        ("sft:\n  lora_r: [8]", "nomoat.yaml:2: sft.lora_r: got a list; expected a whole number, 1 or more"),
        ("evaluate:\n  max_held_out_rows: 1",  # an interval needs two
         "nomoat.yaml:2: evaluate.max_held_out_rows: got 1; expected a whole number, 2 or more"),
        ("sft:\n  max_steps: none",
         'nomoat.yaml:2: sft.max_steps: got "none"; expected a whole number, 1 or more, or null'),
        ("sft:\n  warmup_ratio: 5", "nomoat.yaml:2: sft.warmup_ratio: got 5; expected a number from 0 to 1"),
        ("sft:\n  lora_dropout: 1",
         "nomoat.yaml:2: sft.lora_dropout: got 1; expected a number, 0 or more and below 1"),
        ("sft:\n  method: lorra",
         'nomoat.yaml:2: sft.method: got "lorra"; expected lora or full. Did you mean "lora"?'),
        (
            "sft:\n  gradient_checkpointing: maybe",
            'nomoat.yaml:2: sft.gradient_checkpointing: got "maybe"; expected auto, true or false',
        ),
        ("sft:\n  dtype: fp8", 'nomoat.yaml:2: sft.dtype: got "fp8"; expected auto, float32 or bfloat16'),
        ("data:\n  format: alpacca",
         f'nomoat.yaml:2: data.format: got "alpacca"; expected {FORMATS}. Did you mean "alpaca"?'),
        ("data:\n  dedup: maybe", 'nomoat.yaml:2: data.dedup: got "maybe"; expected true or false'),
        ("data:\n  train:\n    - a.jsonl\n    -\n",
         "nomoat.yaml:4: data.train[1]: got nothing; expected text"),
        ("data:\n  train:\n    file: a.jsonl",
         "nomoat.yaml:2: data.train: got a mapping; expected a list of text"),
        ("quantize:\n  types: [F16, Q8_0, q4_k_s]",
         'nomoat.yaml:2: quantize.types[2]: got "q4_k_s"; expected ' + GGUF),
        ("quantize:\n  types: []",
         f"nomoat.yaml:2: quantize.types: got a list; expected a list of {GGUF} (at least one)"),
        ("sft:\n  lora_target_modules: [[q_proj]]",
         "nomoat.yaml:2: sft.lora_target_modules: got a list; expected text or a list of text"),
        ("name: my night",
         'nomoat.yaml:1: name: got "my night"; expected a name of up to 64 '
         'letters, digits, ".", "_" and "-"'),
        ("budget:\n  until: 7:00",
         'nomoat.yaml:2: budget.until: got "7:00"; expected a time of day such as "07:00", or null'),
        ("base:", "nomoat.yaml:1: base: got nothing; expected text"),
        ("base: {hub: x}", "nomoat.yaml:1: base: got a mapping; expected text"),
        (f"data:\n  format: {'x' * 99}",
         f'nomoat.yaml:2: data.format: got "{"x" * 60}…"; expected {FORMATS}'),
        ("sft:\n  - lora_r: 8",
         "nomoat.yaml:1: sft: got a list; expected keys under it, such as num_train_epochs, or null"),
        ("data: null", "nomoat.yaml:1: data: got null; expected keys under it, such as train"),
        ("seed: 1\nsft:\n# lora_r: 8\n",
         "nomoat.yaml:2: sft: nothing is under it; "
         "indent its keys below it, or take the line out for the defaults"),
        ("pretrain:\n  vocab_size: 400",
         "nomoat.yaml:1: pretrain.train: is missing; expected a list of text (at least one)"),
    ],
)  # fmt: skip
def test_a_wrong_value_says_where_what_and_what_was_expected(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft:\n  learning_rte: 1",
         'nomoat.yaml:2: sft.learning_rte: unknown key. Did you mean "learning_rate"?'),
        ("sft:\n  Max-Seq-Len: 64",
         'nomoat.yaml:2: sft.Max-Seq-Len: unknown key. Did you mean "max_seq_len"?'),
        ("max_seq_len: 64",
         "nomoat.yaml:1: max_seq_len: unknown key here. max_seq_len belongs under sft or reward or prefer or reinforce "
         "or pretrain"),
        ("data:\n  lora_r: 8",
         "nomoat.yaml:2: data.lora_r: unknown key here. lora_r belongs under sft or reward or prefer"),
        ("sft:\n  base: x",
         "nomoat.yaml:2: sft.base: unknown key here. base belongs at the left margin, under no other key"),
        ("zzz: 1", f"nomoat.yaml:1: zzz: unknown key. Keys here: {TOP}"),
        ("<<: {seed: 1}", f"nomoat.yaml:1: <<: unknown key. Keys here: {TOP}"),
        ("base_model: x", 'nomoat.yaml:1: base_model: unknown key. Here it is "base"'),
        ("lr: 1", 'nomoat.yaml:1: lr: unknown key. Here it is "sft.learning_rate"'),
        ("pretrain:\n  train: [t.txt]\n  lr: 1",
         'nomoat.yaml:3: pretrain.lr: unknown key. Here it is "pretrain.learning_rate"'),
        ("prefer:\n  lr: 1", 'nomoat.yaml:2: prefer.lr: unknown key. Here it is "prefer.learning_rate"'),
        ("ref_model: x", "nomoat.yaml:1: ref_model: unknown key. Take the line out: the reference is the model before "
         "the stage prefer or reinforce"),
        ("sft:\n  val_set_size: 1",
         'nomoat.yaml:2: sft.val_set_size: unknown key. Here it is "data.held_out" (a share of the rows)'),
        ("gradient_accumulation_steps: 4",
         'nomoat.yaml:1: gradient_accumulation_steps: unknown key. Here it is "sft.tokens_per_step" '
         "(in tokens; what does not fit at once is accumulated)"),
        ("packing: true",
         "nomoat.yaml:1: packing: unknown key. Take the line out: rows are always packed without padding"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_told_its_right_name_or_place(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    ("names", "here"),
    [
        ("base_model model_name_or_path", "base"),
        ("lr", "sft.learning_rate"),
        ("num_epochs", "sft.num_train_epochs"),
        ("lora_rank", "sft.lora_r"),
        ("max_length max_seq_length sequence_len cutoff_len", "sft.max_seq_len"),
        ("val_set_size val_size split_dataset_ratio", "data.held_out"),
        ("per_device_train_batch_size micro_batch_size", "sft.micro_batch_tokens"),
        ("gradient_accumulation_steps", "sft.tokens_per_step"),
        ("bf16 fp16", "sft.dtype"),
    ],
)
def test_the_names_of_other_tools_lead_to_the_key_here(names: str, here: str) -> None:
    for name in names.split():
        assert f'{name}: unknown key. Here it is "{here}"' in refused(f"{name}: 1")


def test_every_foreign_name_leads_to_a_key_that_exists_and_is_none_itself() -> None:
    trained = {key for section in ((), ("data",), ("sft",), ("pretrain",)) for key in keys_of(section)}
    for name, (key, note) in FOREIGN.items():
        assert name not in {*trained, *keys_of(tuple(key.split("."))[:-1])}, name
        assert schema_at(tuple(key.split("."))) if key else note, name


def test_every_pattern_has_words() -> None:
    paths = [(key,) for key in keys_of(())] + [(s, key) for s in sections() for key in keys_of((s,))]
    patterns = {dotted(p) for p in paths for plain in alternatives(schema_at(p)) if "pattern" in plain}
    assert patterns == set(PATTERN_WORDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft:\n  max_seq_len: 8192",
         "nomoat.yaml:2: sft: tokens_per_step (2048) must be at least max_seq_len (8192)"),
        ("sft:\n  max_seq_len: 64\n  tokens_per_step: 32",
         "nomoat.yaml:3: sft: tokens_per_step (32) must be at least max_seq_len (64)"),
        ("sft:\n  method: full\n  load_in_4bit: true",
         "nomoat.yaml:3: sft: load_in_4bit holds a frozen base, and method full trains it: set method to lora"),
        ("seed: 1\nquantize:\n  types: [F16]",
         "nomoat.yaml:3: quantize: serve (Q8_0) must be one of types (F16)"),
        ("pretrain:\n  train: [t]\n  hidden_size: 10",
         "nomoat.yaml:3: pretrain: hidden_size (10) must be a multiple of num_attention_heads (4)"),
        ("prefer:\n  loss_type: hinge\n  label_smoothing: 0.1",
         "nomoat.yaml:3: prefer: label_smoothing (0.1) means nothing to loss_type hinge; it is of sigmoid, robust and "
         "simpo"),
        ("seed: 1\nsft: null",
         "nomoat.yaml:2: sft is null and there is no prefer and no pretrain: the night would have nothing to train"),
        ("evaluate:\n  prompts: [mine.jsonl, more/safe.jsonl]\ngate:\n  guard: [safety]",
         'nomoat.yaml:3: gate.guard: got "safety"; expected a suite of evaluate.prompts (mine, safe)'),
        ("data:\n  train: [a.jsonl]\ngate:\n  guard: [heldout]",
         'nomoat.yaml:3: gate.guard: got "heldout"; expected files in evaluate.prompts'),
    ],
)  # fmt: skip
def test_a_rule_between_keys_is_told_at_a_line_that_was_written(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft:\n\tlora_r: 8\n", "nomoat.yaml:2:1: not YAML: a tab; expected spaces (in: lora_r: 8)"),
        ("seed: 1\nname: a: b\n",
         "nomoat.yaml:2:8: not YAML: mapping values are not allowed here (in: name: a: b)"),
        ("data:\n  train: [a\n",
         "nomoat.yaml:3:1: not YAML: expected ',' or ']', but got the end of the text"),
        ("seed: 1\n---\nseed: 2\n",
         "nomoat.yaml:2:1: not YAML: "
         "expected a single document in the stream but found another document (in: ---)"),
        ("a: &x 1\nb: *x\n",
         "nomoat.yaml:2:4: not YAML: aliases (*name) are not read; write the value out (in: b: *x)"),
        ("a: !!python/name:os.system\n",
         "nomoat.yaml:1:4: not YAML: tags (!name) are not read; write the plain value "
         "(in: a: !!python/name:os.system)"),
        ("seed: 1\nname: a\x07\n",
         "nomoat.yaml:2:8: not YAML: the character '\\x07' cannot be written in YAML"),
        ("[" * 5000, "nomoat.yaml: brackets are nested too deep for a recipe"),
        (b"seed: 1\nname: caf\xe9\n", "nomoat.yaml:2: got the byte 0xe9; expected text in UTF-8"),
        ("- base: x\n", 'nomoat.yaml:1: got a list; expected keys, such as "base: embedded"'),
        ("\nseed:1\n",
         'nomoat.yaml:2: got "seed:1"; expected keys, such as "base: embedded"; '
         "a space must follow each colon"),
        ("? [a]\n: 1\n", "nomoat.yaml:1: got a list or a mapping as a key; expected a word"),
        ("sft:\n  lora_r: 8\n  lora_r: 16\n", "nomoat.yaml:3: sft.lora_r: written twice; first on line 2"),
        ("seed: 1\nbase: x\nseed: 1\n", "nomoat.yaml:3: seed: written twice; first on line 1"),
        ("", 'nomoat.yaml: the file is empty; expected at least one key, such as "base: embedded"'),
        ("# base: x\n\n",
         'nomoat.yaml: the file is empty; expected at least one key, such as "base: embedded"'),
        ("#" * 1_200_000,
         "nomoat.yaml: got 1.2 MB; expected a recipe of a few kB. Is it a data file?\n"
         "  `nomoat init DATA` writes a recipe for a data file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_refused_with_the_place(text: str | bytes, message: str) -> None:
    assert refused(text) == message


def test_every_mistake_of_a_file_is_told_at_once_in_its_order() -> None:
    text = "sft:\n  lora_r: 0\n  lora_r: 8\nbase: x\nbudget:\n  hours: long\n  until: soon\nlr: 1\n"
    assert refused(text, "seed=-1").splitlines() == [
        "nomoat.yaml:2: sft.lora_r: got 0; expected a whole number, 1 or more",
        "nomoat.yaml:3: sft.lora_r: written twice; first on line 2",
        'nomoat.yaml:6: budget.hours: got "long"; expected a number above 0, or null',
        'nomoat.yaml:7: budget.until: got "soon"; expected a time of day such as "07:00", or null',
        'nomoat.yaml:8: lr: unknown key. Here it is "sft.learning_rate"',
        "override seed=-1: got -1; expected a whole number, 0 or more and below 2147483648",
    ]


def test_twenty_mistakes_are_told_and_the_rest_are_counted() -> None:
    lines = refused("".join(f"key{i}: 1\n" for i in range(23))).splitlines()
    assert len(lines) == 21
    assert lines[19].startswith("nomoat.yaml:20: key19: unknown key.")
    assert lines[20] == "... and 3 more"


def test_a_missing_or_unreadable_file_says_so() -> None:
    with pytest.raises(RecipeError) as here:
        load_recipe(Path("nomoat.yaml"))
    assert str(here.value) == "there is no nomoat.yaml here\n  `nomoat init DATA` writes one"
    with pytest.raises(RecipeError) as elsewhere:
        load_recipe(Path("work/other.yaml"))
    assert str(elsewhere.value) == "there is no other.yaml in work\n  `nomoat init DATA` writes one"
    Path("folder").mkdir()
    with pytest.raises(RecipeError) as folder:
        load_recipe(Path("folder"))
    assert str(folder.value) == "folder: cannot be read: Is a directory"


def test_an_error_crosses_processes() -> None:
    with pytest.raises(RecipeError) as caught:
        load("lr: 1")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_text_is_kept_as_it_was_written() -> None:
    Path("nomoat.yaml").write_text("seed: 3  # mine\n")
    assert load_recipe(Path("nomoat.yaml"), ["seed=4"]).text == "seed: 3  # mine\n"


def test_the_resolved_recipe_has_every_key_and_reads_the_same_in_any_yaml() -> None:
    loaded = load_recipe(None, ["budget.until=07:00", "name=1e3", "sft.learning_rate=1e-5"])
    plain = yaml.safe_load(loaded.resolved_yaml())
    assert plain["budget"]["until"] == "07:00"
    assert plain["sft"]["learning_rate"] == 1e-5
    assert plain == json.loads(loaded.recipe.model_dump_json())


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.floats(min_value=1e-300, max_value=1e300)
SFT = st.fixed_dictionaries(
    {},
    optional={
        "learning_rate": NUMBER,
        "max_steps": st.none() | st.integers(1, 10**18),
        "weight_decay": st.floats(0, 1e300),
        "warmup_ratio": st.floats(0, 1),
        "dtype": st.sampled_from(["auto", "float32", "bfloat16"]),
        "lora_target_modules": TEXT | st.lists(TEXT, max_size=3),
    },
)
DATA = st.fixed_dictionaries(
    {},
    optional={
        "train": st.lists(TEXT, max_size=3),
        "chat_template": st.none() | TEXT,
        "dedup": st.booleans(),
    },
)
TIME_OF_DAY = st.from_regex(r"([01][0-9]|2[0-3]):[0-5][0-9]", fullmatch=True)
RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
        "base": TEXT,
        "seed": st.integers(0, 2**31 - 1),
        "threads": st.none() | st.integers(1, 64),
        "data": DATA,
        "sft": SFT,
        "pretrain": st.none() | st.fixed_dictionaries({"train": st.lists(TEXT, min_size=1, max_size=3)}),
        "budget": st.fixed_dictionaries({}, optional={"until": st.none() | TIME_OF_DAY}),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=RECIPES)
@example(values={"base": "\x85"})  # PyYAML's own round trip loses it where Unicode is written as it is
def test_a_resolved_recipe_loads_to_the_same_recipe(values: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(values)
    assert load(LoadedRecipe(recipe, "", None).resolved_yaml()) == recipe


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.sampled_from("sft:lora_r \n\t-[]{}#&*!|>'\"%@`,?~08.e<\x00\x85é"), max_size=60)
    | st.binary(max_size=40)
)
def test_whatever_the_file_holds_the_answer_is_a_recipe_or_a_recipe_error(text: str | bytes) -> None:
    try:
        load(text)
    except RecipeError as error:
        assert str(error).startswith("nomoat.yaml")
