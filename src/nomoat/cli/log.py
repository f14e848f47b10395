"""`nomoat log`: every night, or one of them with its stages, scores and lineage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli import nights
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.night_log import print_night, print_nights
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, console, print_json
from nomoat.errors import LedgerError

if TYPE_CHECKING:
    from nomoat.ledger.rows import GenerationRow, LineageNode, NightRow
    from nomoat.ledger.store import Ledger

EPILOG = """
\b
Examples:
  nomoat log           # all nights, the newest first
  nomoat log 3         # night 3: its stages, scores, and what its model was made from
"""

KEYS = {"nights": f"newest first: list of {nights.NIGHT_KEYS}"}
"""Keys of `nomoat log --json`, for docs/cli.md."""

NIGHT_KEYS = {
    "night": nights.NIGHT_KEYS,
    "stages": f"in order: list of {nights.STAGE_KEYS}",
    "scores": "list of {subject, suite, metric, value, low, high, confidence, n}; "
    "subject is `base`, `tuned` or `difference`",
    "generation": "null, or {name, night, created_at, base, served_file, verdict, said}",
    "lineage": "null, or what its files were made from: {id, kind, role, inputs, folded}, inputs being such "
    "objects again; where folded is true, they are not shown here, but nearer to the root",
    "plan": "list of sentences: numbers that were chosen, with their reasons",
    "recipe": "every key of the recipe as it was used",
    "machine": "what it ran on",
}
"""Keys of `nomoat log NIGHT --json`, for docs/cli.md."""


def log(
    night: Annotated[
        int | None, typer.Argument(metavar="NIGHT", help="Number of a night.", show_default=False)
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List the nights, or show one: stages, cost, scores, lineage.

    Works while a night runs.
    """
    with open_ledger(workspace) as ledger:
        if night is None:
            _log_all(ledger, workspace, as_json)
            return
        if ledger is None:
            raise LedgerError(f"{workspace.resolve()}: no night has run here yet", hint="Run one: nomoat run")
        found = ledger.night(night)
        generation = generation_of(found, ledger)
        lineage = _lineage(found, generation, ledger)
        if as_json:
            print_json(_night_json(found, generation, lineage, ledger))
        else:
            print_night(found, ledger.stages(night), ledger.scores(night), generation, lineage, console())


def _log_all(ledger: Ledger | None, workspace: Path, as_json: bool) -> None:
    every = ledger.nights() if ledger else ()
    if as_json:
        print_json({"nights": [nights.night_json(night) for night in every]})
    elif every:
        print_nights(every, console())
        print(f"One night in full: {command('nomoat', 'log', str(every[0].id), workspace=workspace)}")
    else:
        print(
            f"No night yet in {workspace.resolve()}. Run one: {command('nomoat', 'run', workspace=workspace)}"
        )


def generation_of(night: NightRow, ledger: Ledger) -> GenerationRow | None:
    """What the night yielded: its own generation, or the earlier one that had exactly the same files."""
    name = (night.verdict or {}).get("generation")
    return next((found for found in ledger.generations() if found.name == name), None)


def _lineage(night: NightRow, generation: GenerationRow | None, ledger: Ledger) -> LineageNode | None:
    """Of the files that are served; of a night without any, of the last artifact it came to."""
    made = [stage.artifact_id for stage in ledger.stages(night.id) if stage.artifact_id is not None]
    served = generation.gguf_artifact if generation else None
    root = served or (made[-1] if made else None)
    return ledger.lineage(root) if root else None


def _night_json(
    night: NightRow, generation: GenerationRow | None, lineage: LineageNode | None, ledger: Ledger
) -> dict[str, Any]:
    return {
        "night": nights.night_json(night),
        "stages": [nights.stage_json(stage, night) for stage in ledger.stages(night.id)],
        "scores": [nights.score_json(score) for score in ledger.scores(night.id)],
        "generation": nights.generation_json(generation) if generation else None,
        "lineage": nights.lineage_json(lineage) if lineage else None,
        "plan": (night.plan or {}).get("sentences", []),
        "recipe": night.recipe_resolved,
        "machine": night.machine,
    }
