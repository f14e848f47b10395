"""Where things are printed: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")
]
WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        help="Folder with .nomoat/ in it: the ledger and the models.",
        show_default="the current folder",
        metavar="DIR",
    ),
]
HERE = Path()
_UNWRAPPED = 1000  # columns where nobody's terminal sets them: a path is never broken in two


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, and lines broken only to fit a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _UNWRAPPED
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def table(*names: str, right: Collection[str] = ()) -> Table:
    """A plain table with a rule under its head; the columns in `right` are set to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in names:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def print_json(result: Mapping[str, Any]) -> None:
    """The result of a verb: one JSON object. A number that is not finite is null."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(_finite(result), indent=2, ensure_ascii=not is_utf8, allow_nan=False))


def survive_encoding(*streams: TextIO) -> None:
    """Put '?' for what a stream's encoding lacks, where Python would rather stop the program."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def visible(text: str) -> str:
    """Text without control characters: the words of a model or a data file must not steer the terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable() or ord(letter) > 159)


def command(*words: str, workspace: Path = HERE) -> str:
    """A command to type in the current folder, for this workspace."""
    place = [] if workspace.resolve() == Path.cwd() else ["--workspace", str(workspace)]
    return shlex.join([*words, *place])


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
