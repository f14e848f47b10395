"""nomoat.yaml as frozen pydantic models.

A field's docstring is its documentation everywhere: docs/recipe.md, the JSON schema that editors complete
from, and the comments that `nomoat init` writes. Reading a file, line numbers and overrides are in
`recipe_file.py`.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from nomoat.recipe_part import Count, Part, Positive, Share
from nomoat.recipe_training import ADAPTER_KEYS, Prefer, Pretrain, Reinforce, RewardModel, Sft

GgufType = Literal["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]
DataFormat = Literal[
    "auto", "alpaca", "sharegpt", "messages", "prompt-completion", "preference", "rating", "text"
]

STARTER_SUITE = "heldout"
"""The suite of held-out prompts that comes with the starter data."""


class Data(Part):
    """The owner's rows, and how they are split, cleaned and rendered."""

    train: list[str] = []
    """Data files (JSON, JSONL, .gz, .zst, CSV, Parquet, text) or Hub data-set ids. Empty: the starter data."""
    format: DataFormat = "auto"
    """Layout of the rows. `auto` looks at the first rows and says what it found."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of rows kept out of training, chosen by a hash, so that a row never crosses over as the file grows."""
    split_by: Literal["prompt", "content"] = "prompt"
    """What the hash is of: `prompt` keeps all answers to one prompt on one side, `content` looks at whole rows."""
    max_bad_rows: Share = 0.02
    """Share of rows that may fail to parse before the night is refused."""
    max_truncated: Share = 0.5
    """Share of rows that may be longer than `sft.max_seq_len` before the night is refused."""
    dedup: bool = True
    """Drop rows whose content was seen before."""
    decontaminate: Literal["list", "remove"] = "list"
    """What is done about rows that hold what a file of `evaluate.prompts` asks, word for word or nearly, and about such
    prompts, votes, thumbs and own answers: `list` says which they are, or how many, `remove` takes them out before the
    split. What asks exactly the same is never trained on."""
    chat_template: str | None = None
    """A Jinja file that replaces the tokenizer's own chat template."""
    train_on: Literal["all", "last"] = "all"
    """Which assistant turns of a conversation are trained on."""
    use_preferred: bool = False
    """Train on the chosen answers of preference rows and the good ones of rated rows."""


class Quantize(Part):
    """The GGUF files that come out of the night."""

    types: Annotated[list[GgufType], Field(min_length=1)] = ["F16", "Q8_0", "Q4_K_M"]
    """Files to write; named as llama.cpp names them."""
    serve: GgufType = "Q8_0"
    """The file that is evaluated and chatted with; must be among `types`."""

    @model_validator(mode="after")
    def _serve_is_made(self) -> Quantize:
        if self.serve not in self.types:
            raise ValueError(f"serve ({self.serve}) must be one of types ({', '.join(self.types)})")
        return self


class Evaluate(Part):
    """How base and tuned model are compared."""

    prompts: list[str] = []
    """JSONL files of held-out prompts with checks a program can run, functions of your own among them (see Checks of
    prompts). Empty with the starter data: its own."""
    max_prompts: Count = 200
    """Most prompts to answer, taken from the top of the files."""
    max_new_tokens: Count = 256
    """Longest answer in tokens."""
    max_held_out_rows: Annotated[int, Field(ge=2)] = 1000
    """Most held-out rows whose loss is measured."""
    samples: Annotated[int, Field(ge=0)] = 8
    """Held-out rows answered by base and tuned model for the report, where there are no prompts with checks. The arena
    draws from these and the next ones, 40 in all."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of every interval."""
    bootstrap_samples: Annotated[int, Field(ge=100)] = 10000
    """Resamples of the paired bootstrap."""


class Gate(Part):
    """When a new generation replaces the champion, which is the one that is served."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often a generation that is no better may replace the champion, however often one looks."""
    guard: list[str] = []
    """Suites that guard: names of files of `evaluate.prompts`, without their ending. They do not speak for the new
    generation, but it must be shown to lose no more than `margin` on each."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Largest loss of pass rate, as a share of prompts, that a guarded suite allows."""


class Budget(Part):
    """What the night may take, and the prices its cost is reported at."""

    until: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] | None = None
    """Be ready by this time of day, such as "07:00" (local time): the next one after `nomoat run` is typed."""
    hours: Positive | None = None
    """Be ready after this many hours. A night that goes on after a stop counts them anew, as it does dollars."""
    dollars: Positive | None = None
    """Spend no more than this, at the prices below."""
    price_dollars_per_hour: Annotated[float, Field(ge=0)] = 0.0
    """What an hour of this machine costs; 0 for your own."""
    price_dollars_per_kwh: Annotated[float, Field(ge=0)] = 0.30
    """What a kilowatt-hour costs."""
    watts: Positive | None = None
    """What the machine draws under load, where it cannot measure that itself. Default: estimated from its cores."""


class Recipe(Part):
    """One night, from base to verdict."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "night"
    """A short name, shown in `nomoat log`."""
    base: str = "embedded"
    """The model to start from: `embedded`, a local folder, or a Hub id. Ignored where `pretrain` makes one."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Everything random follows from it."""
    threads: Count | None = None
    """CPU threads. Default: every core. The bytes of the result depend on it."""
    data: Data = Data()
    sft: Sft | None = Sft()
    """Set to null for a night without it."""
    reward: RewardModel | None = None
    """Without it, no reward model is made."""
    prefer: Prefer | None = None
    """Without it, nothing is learned from judgements."""
    reinforce: Reinforce | None = None
    """Without it, nothing is learned from rewards."""
    pretrain: Pretrain | None = None
    quantize: Quantize = Quantize()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _something_to_do(self) -> Recipe:
        if self.sft is None and self.prefer is None and self.pretrain is None:
            raise ValueError(
                "sft is null and there is no prefer and no pretrain: the night would have nothing to train"
            )
        return self

    @model_validator(mode="after")
    def _reinforces_something(self) -> Recipe:
        if self.reinforce is not None and self.sft is None and self.prefer is None:
            raise ValueError(
                "reinforce goes on from what sft or prefer has made, and this recipe has neither"
            )
        return self

    @model_validator(mode="after")
    def _a_night_ends_with_a_model(self) -> Recipe:
        if self.reward is not None and self.sft is None and self.prefer is None:
            raise ValueError(
                "reward makes a reward model beside what sft or prefer makes, and this recipe has neither"
            )
        return self

    @model_validator(mode="after")
    def _reward_models_are_there(self) -> Recipe:
        for reward in self.reinforce.rewards if self.reinforce else ():
            if reward.kind == "reward_model" and reward.path is None and self.reward is None:
                raise ValueError(
                    "reinforce.rewards: kind reward_model needs the path of a reward model, or a stage reward that "
                    "makes one"
                )
        return self

    @model_validator(mode="after")
    def _one_adapter(self) -> Recipe:
        for key in ADAPTER_KEYS if self.sft and self.prefer else ():
            mine, first = getattr(self.prefer, key), getattr(self.sft, key)
            if mine is not None and mine != first:
                raise ValueError(
                    f"prefer.{key} ({mine}) must be left out, or be as in sft ({first}), whose result is trained "
                    "further"
                )
        return self

    @model_validator(mode="after")
    def _guards_are_suites(self) -> Recipe:
        suites = [PurePath(file).stem for file in self.evaluate.prompts]
        if not self.data.train and not suites:
            suites = [STARTER_SUITE]
        for name in self.gate.guard:
            if name not in suites:
                known = (
                    f"a suite of evaluate.prompts ({', '.join(suites)})"
                    if suites
                    else "files in evaluate.prompts"
                )
                raise ValueError(f'gate.guard: got "{name}"; expected {known}')
        return self
