"""Writes the pages of docs/ that come from the code: `python -m nomoat.cli.docs [FOLDER]`, or `make docs`.

A test compares the pages with what this module makes, so neither can change alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nomoat.evaluate.checks import KINDS
from nomoat.recipe import Recipe
from nomoat.recipe_schema import FOREIGN, KeyPath, alternatives, expected, keys_of, schema_at, sections

EXAMPLE = """\
base: embedded                 # or a local folder, or a Hub id
data:
  train: [alpaca.jsonl]        # your rows; the format is detected
sft:
  num_train_epochs: 3
  max_seq_len: 512
quantize:
  types: [F16, Q8_0, Q4_K_M]
budget:
  until: "07:00"               # be ready when you are
"""

INTRO = """\
# The recipe: nomoat.yaml

<!-- Made by `make docs` from src/nomoat/recipe.py and recipe_training.py; change the docstrings there. -->

A recipe says what one night does. Every key has a default, so a short recipe is a good one:

```yaml
{example}```

- `nomoat init DATA` writes a commented recipe for a data file that it has looked at.
- `nomoat run sft.learning_rate=1e-4 data.train=a.jsonl,b.jsonl pretrain=null` changes keys for one run.
  The value is YAML; a list may be written with commas or in brackets.
- Relative paths start from the recipe's folder; in a `key=value` from the current folder.
- A key's type decides what a word means: `07:00` is a time, `no` is false or a word, `1e-4` is a number,
  with or without quotes. One file may stand where a list of files is expected.
- A key that does not exist is an error, with the line and the name that was probably meant.
- For completion in an editor, start the file with `# yaml-language-server: $schema=PATH`, where PATH leads to
  [recipe.schema.json](recipe.schema.json). `nomoat init` does that.
"""

CHECKS_INTRO = """\
## Checks of prompts

Files of prompts (`evaluate.prompts`, `prefer.prompts`, `reinforce.prompts`) hold one prompt a line; its answer passes
where it passes all of its checks:

```json
{"messages": [{"role": "user", "content": "A haiku on rain."}], "checks": [{"kind": "words", "max": 20},
 {"kind": "function", "function": "rules.py:three_lines"}]}
```

(on one line). A function lies in a file beside the prompts, and is called as a reward is, with the turns before the
answer, the answer and the prompt's row:

```python
def three_lines(messages, answer, row):
    return len(answer.splitlines()) == 3  # or a number from 0 to 1, which passes from 0.5 on
```

It runs in a process of its own. Where it raises, takes too long or gives anything else, the check is not passed, and a
warning of the night counts that, with a prompt and the reason; where it is so for most answers, the function is what is
broken, and the night stops until it is mended. Change the file, or a module that it imports from its own folder, and
only what it judges is done again; of what else it reads nomoat does not know.
"""

FOREIGN_INTRO = """\
## Names from other tools

Where a name of another tool is written, the error names the key here. Names that are the same are not listed.
"""


def recipe_page() -> str:
    """docs/recipe.md: every key with its type, default and meaning."""
    parts = [INTRO.format(example=EXAMPLE), "## Top level\n", _table(())]
    for section in sections():
        (model,) = (plain for plain in alternatives(schema_at((section,))) if "properties" in plain)
        note = schema_at((section,)).get("description", "")
        parts += [f"## {section}\n", f"{model['description']} {note}".strip() + "\n", _table((section,))]
        for key in keys_of((section,)):
            if keys_of((section, key, 0)):
                parts += [f"### {section}.{key}, one of the list\n", _table((section, key, 0))]
    parts += [CHECKS_INTRO, _checks_table(), FOREIGN_INTRO, _foreign_table()]
    return "\n".join(parts)


def recipe_schema() -> str:
    """docs/recipe.schema.json: the recipe as JSON schema, for completion and checks in editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def generated() -> dict[str, str]:
    """Every generated page: name in docs/ -> text."""
    return {"recipe.md": recipe_page(), "recipe.schema.json": recipe_schema()}


def _table(section: KeyPath) -> str:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key in keys_of(section):
        path = (*section, key)
        if keys_of(path):
            continue
        schema = schema_at(path)
        default = f"`{_yaml(schema['default'])}`" if "default" in schema else "required"
        meaning = " ".join(schema.get("description", "").split())
        rows.append(f"| `{key}` | {expected(path)} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _checks_table() -> str:
    rows = ["| kind | needs | may have | an answer passes that |", "| --- | --- | --- | --- |"]
    for name, kind in KINDS.items():
        needs, may = (", ".join(f"`{field}`" for field in fields) for fields in (kind.needs, kind.may))
        rows.append(f"| `{name}` | {needs} | {may} | {kind.meaning} |")
    return "\n".join(rows) + "\n"


def _foreign_table() -> str:
    rows = ["| there | here | |", "| --- | --- | --- |"]
    there: dict[tuple[str, str], list[str]] = {}
    for name, here in FOREIGN.items():
        there.setdefault(here, []).append(f"`{name}`")
    rows += [
        f"| {', '.join(names)} | {f'`{key}`' if key else ''} | {note} |"
        for (key, note), names in there.items()
    ]
    return "\n".join(rows) + "\n"


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def main() -> None:
    """Write every generated page into the folder named on the command line, or docs/."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for name, text in generated().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(f"{folder / name}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
