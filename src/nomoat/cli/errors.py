"""The one edge where errors become messages and exit codes: 2 for what the owner can mend, 1 for a fault of
ours, 130 for a stop the owner asked for."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from nomoat.errors import NomoatError

DEBUG = "NOMOAT_DEBUG"
FAULT, MENDABLE, STOPPED = 1, 2, 130

_DISK = {
    errno.ENOSPC: ("the disk is full", "Free some space, then run the same command again."),
    errno.EDQUOT: ("your disk quota is used up", "Free some space, then run the same command again."),
    errno.EACCES: (
        "permission denied",
        "Make it readable and writable for you, or choose another --workspace.",
    ),
    errno.EPERM: ("not permitted", "Make it readable and writable for you, or choose another --workspace."),
    errno.ENAMETOOLONG: ("this name is too long", "Choose a shorter one."),
    errno.EROFS: ("the disk is read-only", "Choose a --workspace on a disk that can be written."),
}


class Stopped(Exception):  # noqa: N818 - not an error: the owner asked for it
    """The owner stopped the verb; `message` says what was kept and how to go on."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Verb(TyperCommand):
    """A command whose errors are told. Mistakes in its own options are told by typer before this runs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output has gone (`| head`); typer ends quietly
            code, lines = told(error, Path(ctx.params.get("workspace") or Path.cwd()))
            if os.environ.get(DEBUG) == "1" and not isinstance(error, Stopped | KeyboardInterrupt):
                traceback.print_exception(error)
            print("\n".join(lines), file=sys.stderr)
            raise typer.Exit(code) from None


def told(error: BaseException, workspace: Path) -> tuple[int, list[str]]:
    """The exit code and the lines for the owner."""
    if isinstance(error, Stopped):
        return STOPPED, [error.message]
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, [
            "Stopped at once. What was finished is kept: run the same command again to go on from there."
        ]
    if isinstance(error, NomoatError):
        return MENDABLE, _owners_lines(error)
    for cause in _causes(error):
        if isinstance(cause, NomoatError):
            break  # it was handled, and something else went wrong after it
        refused = _refusal(cause)
        if refused is not None:
            what, hint = refused
            named = getattr(cause, "filename", None)
            where = os.fsdecode(named) if isinstance(named, str | bytes) else str(workspace)
            return MENDABLE, [f"Error: {where}: {what}.", f"  {hint}"]
    return FAULT, _fault_lines(error)


def _owners_lines(error: NomoatError) -> list[str]:
    first, *rest = error.message.splitlines() or [type(error).__name__]
    lines = [f"Error: {first}", *(f"  {line}" for line in rest)]
    return lines if error.hint is None else [*lines, *f"  {error.hint}".splitlines()]


def _refusal(error: BaseException) -> tuple[str, str] | None:
    """What the disk refused, where that is what happened. Rust libraries (safetensors, tokenizers) tell it
    in the text of an exception of their own."""
    if isinstance(error, OSError) and error.errno in _DISK:
        return _DISK[error.errno]
    numbers = (number for number in _DISK if f"(os error {number})" in str(error))
    return next((_DISK[number] for number in numbers), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _fault_lines(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())[:300]
    return [
        f"Error: this is a fault in nomoat, not in your data: {type(error).__name__}: {text}{place}",
        "  Finished stages are kept. To report it, run the same command again with "
        f"{DEBUG}=1 and send the whole output.",
    ]
