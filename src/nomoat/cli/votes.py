"""`nomoat votes`: what people said of answers: out of the ledger and in, taken back, and what they would have said."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, console, print_json
from nomoat.cli.units import count
from nomoat.errors import DataError, LedgerError

EPILOG = """
\b
Examples:
  nomoat votes export votes.jsonl                 # chosen and rejected, as TRL and others read them
  nomoat votes export votes.jsonl --all           # with ties and "both bad", for another workspace
  nomoat votes export thumbs.jsonl --kind ratings # prompt, completion, label: for KTO
  nomoat votes export b.jsonl --format lmarena    # battles in LMArena's shape
  nomoat votes import votes.jsonl                 # into this one; what is there already is left as it is
  nomoat votes answer                             # your own answers where both were bad; sft learns from them
  nomoat votes withdraw --voter ada               # all that ada said; the next night goes without it
  nomoat votes withdraw --id 17 --erase           # one vote, and its texts too

Every exported row has where it came from under "vote": voter, time, models, sides, sampling; and why: "reasons", a list
of correctness, instructions, clarity, style, length and safety, and "note", or null. Whoever's votes were taken back
does not get them back by an import. An imported vote counts for a model here only where it says which file has
answered, as exports do; battles of others name models by words alone, and their gen-0001 is not yours.
"""

KEYS = {
    "file": "the file; null where there is none",
    "votes": "votes in the file (of battles too), thumbs with `--kind ratings`, or votes taken back",
    "decided": "those of them that prefer an answer; of thumbs those up; on withdraw 0",
    "added": "on import: votes that were not there yet; on answer: own answers; else 0",
    "left_out": "on export: votes that prefer nothing, and those that check a voter, both of which --all has; on "
    "answer: prompts that are held out; else 0",
    "ratings": "on withdraw: thumbs taken back; else 0",
    "own_answers": "on withdraw: own answers taken back, anybody's to such votes too; else 0",
    "remains": "on withdraw: folders that earlier nights left and that hold it, relative to the workspace; else empty",
}
"""Keys of `nomoat votes --json`, for docs/cli.md."""


class Action(Enum):
    """What to do."""

    export = "export"
    import_ = "import"
    withdraw = "withdraw"
    answer = "answer"


class Kind(StrEnum):
    """What is exported."""

    votes = "votes"
    ratings = "ratings"


class Shape(StrEnum):
    """The shape of a file's rows."""

    preference = "preference"
    lmarena = "lmarena"


_LEFT_OUT = {
    Shape.preference: "undecided, or to check a voter (--all)",
    Shape.lmarena: "to check a voter",
}


@dataclass(frozen=True)
class Done:
    """Counts, under `KEYS`."""

    votes: int = 0
    decided: int = 0
    added: int = 0
    left_out: int = 0
    ratings: int = 0
    own_answers: int = 0
    remains: tuple[str, ...] = ()


def votes(
    action: Annotated[Action, typer.Argument(metavar="export|import|withdraw|answer", help="What to do.")],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Of export and import: a JSONL file.", show_default=False),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="On export: also votes that trainers do not read: undecided, or to check a voter."
        ),
    ] = False,
    kind: Annotated[Kind, typer.Option("--kind", help="On export: blind votes, or thumbs.")] = Kind.votes,
    shape: Annotated[
        Shape,
        typer.Option("--format", help="Of the file's rows: chosen and rejected answers, or battles."),
    ] = Shape.preference,
    voter: Annotated[
        str | None,
        typer.Option(
            "--voter",
            metavar="NAME",
            help="Who takes back, or who answers (your user name).",
            show_default=False,
        ),
    ] = None,
    ids: Annotated[
        list[int] | None,
        typer.Option(
            "--id", metavar="N", help="On withdraw: a single vote; may be repeated.", show_default=False
        ),
    ] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="On withdraw: overwrite prompts, answers, reasons and notes too.")
    ] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write and read votes as rows, take them back, and answer yourself where both were bad."""
    if (file is None) != (action in (Action.withdraw, Action.answer)):
        wanted = f"nomoat votes {action.value}" + (" FILE" if file is None else "")
        raise DataError(f"votes {action.value}: got {file or 'no file'}; expected {wanted}")
    if action is Action.export:
        assert file is not None
        done, said = _export(workspace, file, everything, kind, shape)
    elif action is Action.import_:
        assert file is not None
        done, said = _import(workspace, file, shape)
    elif action is Action.withdraw:
        done, said = _withdraw(workspace, voter, ids or [], erase)
    else:
        done, said = _answer(workspace, voter or getpass.getuser(), as_json)
    if as_json:
        print_json({"file": None if file is None else str(file), **asdict(done)})
    else:
        print(said)


def _export(workspace: Path, file: Path, everything: bool, kind: Kind, shape: Shape) -> tuple[Done, str]:
    from nomoat.evaluate.battles import battle_rows
    from nomoat.evaluate.vote_file import preference_rows, rating_rows
    from nomoat.ledger.feedback import standing_ratings
    from nomoat.ledger.files import atomic_write

    with open_ledger(workspace) as ledger:
        every = ledger.judgements.votes() if ledger else ()
        thumbs = standing_ratings(ledger) if ledger and kind is Kind.ratings else []
    if not (thumbs if kind is Kind.ratings else every):
        if kind is Kind.votes:
            raise _no_votes(workspace)
        raise LedgerError(
            f"{workspace.resolve()}: there are no thumbs yet", hint="Give some on the chat page: nomoat serve"
        )
    if file.is_dir():
        raise DataError(f"{file} is a folder; expected a file to write")
    if not file.parent.is_dir():
        raise DataError(f"{file}: there is no folder {file.parent} to write it to")
    rows: list[Mapping[str, Any]]
    if kind is Kind.ratings:
        rows = list(rating_rows(thumbs))
        done = Done(len(rows), sum(row["label"] for row in rows))
    elif shape is Shape.lmarena:
        rows = list(battle_rows(every))
        decided = sum(row["winner"].startswith("model") for row in rows)
        done = Done(len(rows), decided, left_out=len(every) - len(rows))
    else:
        rows = list(preference_rows(every, undecided=everything))
        decided = sum("chosen" in row for row in rows)
        done = Done(len(rows), decided, left_out=len(every) - len(rows))
    atomic_write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8"))
    left_out = f"; {count(done.left_out, 'vote')} left out: {_LEFT_OUT[shape]}" if done.left_out else ""
    return done, f"{file}: {count(done.votes, 'vote' if kind is Kind.votes else 'thumb')}{left_out}"


def _import(workspace: Path, file: Path, shape: Shape) -> tuple[Done, str]:
    from nomoat.evaluate.battles import read_battles
    from nomoat.evaluate.vote_file import read_votes

    with open_ledger(workspace) as ledger:
        keys: list[str] | None = None
        if shape is Shape.preference:
            found = read_votes(file)
        else:
            battles = read_battles(file)
            keys, found = [key for key, _ in battles], [vote for _, vote in battles]
        if ledger is None:
            raise LedgerError(
                f"{workspace.resolve()}: no night has run here yet, so there is no model that votes could be of",
                hint="Run one: nomoat run",
            )
        added = ledger.judgements.add_votes(found, imported=True, made_of=keys)
    decided = sum(vote.verdict in ("left", "right") for vote in found)
    said = f"{file}: {count(len(found), 'vote')}, {added:,} of them new"
    return Done(len(found), decided, added=added), said


def _withdraw(workspace: Path, voter: str | None, ids: list[int], erase: bool) -> tuple[Done, str]:
    from nomoat.ledger.feedback import remains, withdraw_voter, withdraw_votes

    if (voter is None) == (not ids):
        raise DataError("votes withdraw: expected either --voter NAME or --id N")
    with open_ledger(workspace) as ledger:
        if ledger is None:
            raise _no_votes(workspace)
        if voter is not None:
            taken = withdraw_voter(ledger, voter, erase=erase)
        else:
            taken = withdraw_votes(ledger, ids, erase=erase)
        left = tuple(path for path in remains(ledger) if (workspace / path).exists())
    counts = count(taken.votes, "vote"), count(taken.ratings, "thumb"), count(taken.own_answers, "own answer")
    said = (
        f"Taken back{' and erased' if erase else ''}: {', '.join(counts)}. The next night goes without them."
    )
    if left:
        said += "\nNights before have learned from such, and keep what they made of them until you delete it:"
        said += "".join(f"\n  {path}" for path in left)
    return Done(taken.votes, ratings=taken.ratings, own_answers=taken.own_answers, remains=left), said


def _answer(workspace: Path, voter: str, as_json: bool) -> tuple[Done, str]:
    from nomoat.cli.own_answers import ask_all

    with open_ledger(workspace) as ledger:
        if ledger is None:
            raise _no_votes(workspace)
        added, held_out = ask_all(ledger, voter, console(stderr=as_json))
    said = (
        f"{count(added, 'own answer')} kept; the next night's sft learns from them."
        if added
        else "Nothing kept."
    )
    return Done(added=added, left_out=held_out), said


def _no_votes(workspace: Path) -> LedgerError:
    return LedgerError(f"{workspace.resolve()}: there are no votes yet", hint="Cast some: nomoat arena")
