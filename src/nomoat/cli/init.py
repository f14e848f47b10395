"""`nomoat init`: looks at a data file and writes a commented recipe for it."""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat.cli.docs import recipe_schema
from nomoat.errors import DataError, RecipeError
from nomoat.recipe_schema import KeyPath, schema_at

if TYPE_CHECKING:
    from nomoat.chat.conversation import Message
    from nomoat.data.rows import Row

ROWS_READ = 20_000  # enough to choose every number below; the night itself reads the whole file
# Alpaca rows measured: 2.5 with 2,048 words learned from stories, 3.2 with 8,192, 4.7 with GPT-2's and Qwen2.5's.
# The smallest is taken: a length too large costs little, as rows are packed; one too small cuts answers.
BYTES_PER_TOKEN = 2.5
TOKENS_PER_TURN = 8  # what chat templates put around a turn
LENGTH_STEP = 64
LENGTH_LEAST = 128
LENGTH_MOST = 1024  # tokens; longer rows take a small machine much memory and time
EPOCHS = ((500, 5), (5_000, 3), (50_000, 2))  # fewer rows than -> passes over them; one from there on
EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent.parent / "assets" / "base"
SCHEMA_FILE = Path(".nomoat") / "recipe.schema.json"
KEYS: tuple[KeyPath, ...] = (
    ("name",), ("base",),
    ("data", "train"), ("data", "held_out"), ("data", "use_preferred"),
    ("sft", "method"), ("sft", "lora_r"), ("sft", "learning_rate"), ("sft", "num_train_epochs"),
    ("sft", "max_seq_len"),
    ("prefer", "loss_type"), ("prefer", "beta"), ("prefer", "num_train_epochs"), ("prefer", "max_seq_len"),
    ("quantize", "types"), ("quantize", "serve"),
    ("budget", "until"), ("budget", "price_dollars_per_hour"), ("budget", "price_dollars_per_kwh"),
)  # fmt: skip
JUDGED = {path for path in KEYS if path[0] == "prefer"} | {("data", "use_preferred")}
EXAMPLES: dict[KeyPath, str] = {("budget", "until"): '"07:00"'}  # written as a comment, to be uncommented
PLAIN_WORD = re.compile(r"[A-Za-z][\w./-]*")


@dataclass(frozen=True)
class Look:
    """What a data file looks like; lengths are estimates in tokens."""

    said: str  # the reader's own sentence about the format
    rows: int
    bad_rows: int
    whole: bool  # False: the file goes on after the rows that were read
    kinds: frozenset[str]  # names of the row classes: ChatRow, TextRow, PreferenceRow, RatingRow
    tokens_p50: int
    tokens_p99: int


@dataclass(frozen=True)
class Choice:
    """A value that was chosen, and why."""

    key: KeyPath
    value: Any
    why: str


@dataclass(frozen=True)
class InitSummary:
    """The recipe that was written, what the data file looked like, and what was chosen for it."""

    path: Path
    look: Look | None
    choices: tuple[Choice, ...]


def write_recipe(data_file: Path | None, out: Path, *, base: str, force: bool) -> InitSummary:
    """Look at the data file and write the recipe `out` for it; without a data file, one for the starter data.

    Beside it goes .nomoat/recipe.schema.json, from which editors complete keys without a network.

    Raises:
        DataError: the data file cannot be read, or no row of it can.
        RecipeError: `out` is there already and `force` is not set, or it cannot be written.
    """
    if out.exists() and not force:
        raise RecipeError(f"{out} is there already", hint="`nomoat init --force` writes over it")
    values: dict[KeyPath, Any] = {("base",): base if base == EMBEDDED else _from_folder(base, out)}
    look: Look | None = None
    choices: tuple[Choice, ...] = ()
    heading = "for the starter data that comes with nomoat"
    if data_file is not None:
        look = look_at(data_file)
        choices = tuple(choose(look, context_of(base)))
        heading = f"after a look at {look.said.replace(str(data_file), data_file.name)}"
        values |= {("name",): _name(data_file), ("data", "train"): [_from_folder(str(data_file), out)]}
    values |= {choice.key: choice.value for choice in choices}
    text = _text(heading, values, {choice.key: choice.why for choice in choices})
    try:
        schema_file = out.parent / SCHEMA_FILE
        schema_file.parent.mkdir(parents=True, exist_ok=True)
        schema_file.write_text(recipe_schema(), encoding="utf-8")
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{error.filename}: cannot be written: {error.strerror}") from None
    return InitSummary(out, look, choices)


def look_at(data_file: Path) -> Look:
    """Read the first ROWS_READ rows and measure them.

    Raises:
        DataError: the file cannot be read, or no row of it can.
    """
    from nomoat.data.readers import open_rows
    from nomoat.data.rows import BadRow

    detected, rows = open_rows(data_file)
    first = list(islice(rows, ROWS_READ + 1))
    whole = len(first) <= ROWS_READ
    bad = [row for row in first[:ROWS_READ] if isinstance(row, BadRow)]
    good = [row for row in first[:ROWS_READ] if not isinstance(row, BadRow)]
    if not good:
        raise DataError(f"{data_file}: no row can be read" + (f": {bad[0].reason}" if bad else ""))
    lengths = sorted(_tokens(row) for row in good)
    return Look(
        said=detected.said,
        rows=len(good),
        bad_rows=len(bad),
        whole=whole,
        kinds=frozenset(type(row).__name__ for row in good),
        tokens_p50=lengths[len(lengths) // 2],
        tokens_p99=lengths[(len(lengths) - 1) * 99 // 100],
    )


def context_of(base: str) -> int | None:
    """The longest row in tokens that a base can take; None where it is not on disk (a Hub id) or does not say.

    What is wrong with a base is told by `nomoat check` and the night; here only this number is wanted."""
    try:
        folder = EMBEDDED_FOLDER if base == EMBEDDED else Path(base)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    context = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return context if isinstance(context, int) else None


def choose(look: Look, context: int | None) -> list[Choice]:
    """Values for what was seen and a base with this context; every other key keeps its default."""
    choices = []
    if look.kinds & {"PreferenceRow", "RatingRow"}:
        why = "the rows are judged answers, of which the preferred ones are trained on first"
        choices.append(Choice(("data", "use_preferred"), True, why))
    epochs = next((passes for below, passes in EPOCHS if look.rows < below), 1) if look.whole else 1
    seen = {1: "once is enough", 2: "twice is enough"}.get(epochs, f"few enough to be seen {epochs} times")
    rows = f"{look.rows} row{'s' * (look.rows > 1)}" if look.whole else f"more than {ROWS_READ} rows"
    choices.append(Choice(("sft", "num_train_epochs"), epochs, f"{rows}, {seen}"))
    if look.kinds != {"TextRow"}:  # text is split, so that no row is too long
        choices.append(_choose_length(look, context))
    if look.kinds & {"PreferenceRow", "RatingRow"}:
        rated = "RatingRow" in look.kinds
        why = f"the rows are {'rated answers' if rated else 'pairs of answers'}, which are then learned from as such"
        choices.append(Choice(("prefer", "loss_type"), "kto" if rated else "sigmoid", why))
        length = _choose_length(look, context)
        choices.append(Choice(("prefer", "max_seq_len"), length.value, length.why))
    return choices


def _choose_length(look: Look, context: int | None) -> Choice:
    most = LENGTH_MOST if context is None else min(LENGTH_MOST, context)
    wanted = -(-look.tokens_p99 // LENGTH_STEP) * LENGTH_STEP
    length = min(max(wanted, LENGTH_LEAST), most)
    why = f"99 of 100 rows have about {look.tokens_p99} tokens or fewer, at {BYTES_PER_TOKEN} bytes a token"
    if look.tokens_p50 > length:
        longer = (
            "raise it, which takes memory and time" if most == LENGTH_MOST else "take a base that reads more"
        )
        why += f". Most rows are longer than this: {longer}, or shorten them"
    elif wanted > length:
        reason = "more would take much memory and time" if most == LENGTH_MOST else "the base reads no more"
        why += f". Longer rows are cut: {reason}"
    return Choice(("sft", "max_seq_len"), length, why)


def _tokens(row: Row) -> int:
    """About how many tokens a row has."""
    from nomoat.data.rows import ChatRow, PreferenceRow, TextRow

    if isinstance(row, TextRow):
        return _text_tokens(row.text)
    if isinstance(row, ChatRow):
        tools = json.dumps(row.conversation.tools) if row.conversation.tools else ""
        return _text_tokens(tools) + _message_tokens(row.conversation.messages)
    answers = (row.chosen, row.rejected) if isinstance(row, PreferenceRow) else (row.completion,)
    return _message_tokens(row.prompt.messages) + max(_message_tokens(answer) for answer in answers)


def _message_tokens(messages: tuple[Message, ...]) -> int:
    return sum(
        TOKENS_PER_TURN
        + _text_tokens(message.content + (message.reasoning_content or ""))
        + (_text_tokens(json.dumps(message.tool_calls)) if message.tool_calls else 0)
        for message in messages
    )


def _text_tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def _name(data_file: Path) -> str:
    """my rows (1).jsonl.gz -> my-rows-1"""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", data_file.name.split(".")[0])[:64].strip("-_") or "night"


def _from_folder(name: str, out: Path) -> str:
    """A path as the recipe's folder sees it; what is not on disk (a Hub id) stays as it is."""
    path, folder = Path(name), out.absolute().parent
    if not path.exists():
        return name
    inside = path.absolute().is_relative_to(folder)
    return os.path.relpath(path, folder) if inside else str(path.absolute())


def _text(heading: str, values: dict[KeyPath, Any], reasons: dict[KeyPath, str]) -> str:
    """The recipe: KEYS in order, each under its docstring and the reason for its value."""
    lines = [f"# yaml-language-server: $schema={SCHEMA_FILE.as_posix()}"]
    lines += _comment(f"One night, from base to verdict. Written by `nomoat init` {heading}", "")
    lines += _comment("Every other key, with its default and meaning, is in docs/recipe.md.", "")
    lines.append("")
    section: KeyPath = ()
    for path in KEYS:
        schema = schema_at(path)
        if path in JUDGED and ("data", "use_preferred") not in values:
            continue  # of interest to preference and rating rows only
        if path[:-1] != section:
            section = path[:-1]
            lines += ["", f"{section[0]}:"]
        indent = "  " * len(section)
        lines += _comment(schema["description"], indent)
        if path in reasons:
            lines += _comment(f"{reasons[path][0].upper()}{reasons[path][1:]}.", indent)
        if path in EXAMPLES:
            lines.append(f"{indent}# {path[-1]}: {EXAMPLES[path]}")
        else:
            lines.append(f"{indent}{path[-1]}: {_yaml(values.get(path, schema['default']))}")
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, str) and PLAIN_WORD.fullmatch(value) and value.lower() != "null":
        return value
    return json.dumps(value, ensure_ascii=False)
