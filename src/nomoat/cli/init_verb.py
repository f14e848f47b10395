"""`nomoat init`: a commented recipe for a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nomoat.cli.output import JsonOption, command, print_json
from nomoat.cli.recipes import RECIPE_FILE

EPILOG = """
\b
Examples:
  nomoat init                      # a recipe for the embedded base and the starter data
  nomoat init mine.jsonl
  nomoat init mine.jsonl --base ./model --out night.yaml
"""

KEYS = {
    "recipe": "the file that was written",
    "data": "null without a data file, else {said, rows, bad_rows, whole, tokens_p50, tokens_p99}; "
    "whole is false where only the first rows were looked at",
    "choices": "list of {key, value, why}",
    "next": "the command to type next",
}
"""Keys of `nomoat init --json`, for docs/cli.md."""


def init(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="Your rows. Default: the starter data.", show_default=False),
    ] = None,
    base: Annotated[
        str, typer.Option("--base", metavar="DIR", help="Base model: embedded, a folder or a Hub id.")
    ] = "embedded",
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.")] = Path(
        RECIPE_FILE
    ),
    force: Annotated[bool, typer.Option("--force", help="Write over a recipe that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at a data file and write a commented recipe for it."""
    from nomoat.cli.init import write_recipe
    from nomoat.recipe_schema import dotted

    written = write_recipe(data, out, base=base, force=force)
    look = written.look
    check = command("nomoat", "check", *([] if str(out) == RECIPE_FILE else [str(out)]))
    if as_json:
        seen = None
        if look is not None:
            names = ("said", "rows", "bad_rows", "whole", "tokens_p50", "tokens_p99")
            seen = {name: getattr(look, name) for name in names}
        choices = [{"key": dotted(c.key), "value": c.value, "why": c.why} for c in written.choices]
        print_json({"recipe": out, "data": seen, "choices": choices, "next": check})
        return
    if look is not None:
        print(look.said)
    for choice in written.choices:
        print(f"  {dotted(choice.key)}: {choice.value}  ({choice.why})")
    print(f"Wrote {out}. Every line in it is explained; change what you like.")
    print(f"Next: {check}")
