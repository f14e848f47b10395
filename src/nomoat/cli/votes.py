"""`nomoat votes`: votes out of the ledger as preference rows, and in again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, print_json
from nomoat.cli.units import count
from nomoat.errors import DataError, LedgerError

EPILOG = """
\b
Examples:
  nomoat votes export votes.jsonl            # chosen and rejected, as TRL and others read them
  nomoat votes export votes.jsonl --all      # with ties and "both bad", for another workspace
  nomoat votes import votes.jsonl            # into this one; what is there already is left as it is

Every row has where it came from under "vote": voter, time, models, sides, sampling.
"""

KEYS = {
    "file": "the file",
    "votes": "votes in the file",
    "decided": "those of them that prefer an answer",
    "added": "on import: votes that were not there yet; on export 0",
    "left_out": "on export without --all: undecided votes, which prefer nothing; else 0",
}
"""Keys of `nomoat votes --json`, for docs/cli.md."""


class Action(Enum):
    """What to do."""

    export = "export"
    import_ = "import"


def votes(
    action: Annotated[Action, typer.Argument(metavar="export|import", help="What to do.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A JSONL file.")],
    everything: Annotated[
        bool, typer.Option("--all", help="On export: undecided votes too, which trainers do not read.")
    ] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write votes as preference rows, or read such a file into the ledger."""
    if action is Action.export:
        done = _export(workspace, file, everything)
        left_out = f"; {count(done.left_out, 'undecided vote')} left out (--all)" if done.left_out else ""
        said = f"{file}: {count(done.votes, 'vote')}{left_out}"
    else:
        done = _import(workspace, file)
        said = f"{file}: {count(done.votes, 'vote')}, {done.added:,} of them new"
    if as_json:
        print_json({"file": str(file), **asdict(done)})
    else:
        print(said)


@dataclass(frozen=True)
class _Done:
    """Counts, under `KEYS`."""

    votes: int
    decided: int
    added: int = 0
    left_out: int = 0


def _export(workspace: Path, file: Path, everything: bool) -> _Done:
    from nomoat.evaluate.vote_file import preference_rows
    from nomoat.ledger.files import atomic_write

    with open_ledger(workspace) as ledger:
        every = ledger.judgements.votes() if ledger else ()
    if not every:
        raise LedgerError(f"{workspace.resolve()}: there are no votes yet", hint="Cast some: nomoat arena")
    if file.is_dir():
        raise DataError(f"{file} is a folder; expected a file to write")
    rows = list(preference_rows(every, undecided=everything))
    atomic_write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8"))
    decided = sum("chosen" in row for row in rows)
    return _Done(len(rows), decided, left_out=len(every) - len(rows))


def _import(workspace: Path, file: Path) -> _Done:
    from nomoat.evaluate.vote_file import read_votes

    found = read_votes(file)
    with open_ledger(workspace) as ledger:
        if ledger is None:
            raise LedgerError(
                f"{workspace.resolve()}: no night has run here yet, so there is no model that votes could be of",
                hint="Run one: nomoat run",
            )
        added = ledger.judgements.add_votes(found, imported=True)
    decided = sum(vote.verdict in ("left", "right") for vote in found)
    return _Done(len(found), decided, added=added)
