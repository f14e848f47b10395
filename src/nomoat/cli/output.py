"""Where things are printed: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")
]
WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        help="Folder that holds .nomoat/ with the ledger and the models.",
        show_default="current folder",
        metavar="DIR",
    ),
]
HERE = Path()


def stdout_console() -> Console:
    """The console for results. Where stdout is no terminal, lines are as long as they are: no wrapping in
    the middle of a path."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 4000
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=width)


def stderr_console() -> Console:
    """The console for progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(result: Mapping[str, Any]) -> None:
    """The result of a verb: one JSON object."""
    print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False, default=str))
