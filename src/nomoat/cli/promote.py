"""`nomoat promote`: make a generation the champion."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nomoat.cli.gate import generation_of
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, print_json
from nomoat.cli.served import find_generation
from nomoat.errors import LedgerError

EPILOG = """
\b
Examples:
  nomoat promote gen-0003
  nomoat promote gen-0002 --anyway    # because you say so

A night promotes by itself where the evidence is there: its own generation at its end, and at its beginning the newest
that votes cast by day have shown to be better. This is for not waiting until then, or for an owner who knows better.
`nomoat rollback` takes it back, and no night brings it back after that.
"""

KEYS = {
    "champion": "who is served from now on",
    "before": "who was served until now: a generation, `base`, or null where nobody was ever chosen",
    "verdict": "what the gate says: `promote`, `keep` or `not yet`",
    "said": "that in sentences",
    "next": "the command to type next",
}
"""Keys of `nomoat promote --json`, for docs/cli.md."""


def promote(
    generation: Annotated[str, typer.Argument(metavar="GEN", help="A generation, such as gen-0001.")],
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Although the gate does not say so. The history keeps that.")
    ] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make a generation the champion: the one that is served.

    Where the gate does not say "promote", nothing is changed and the exit code is 2.
    """
    with open_ledger(workspace) as ledger:
        from nomoat.evaluate.gatebook import champion_name, verdict_on
        from nomoat.ledger.artifacts import ArtifactStore

        chosen = generation_of(ledger, generation, workspace)
        assert ledger is not None
        before = champion_name(ledger)
        if before == chosen.name:
            raise LedgerError(f"{chosen.name} is the champion already")
        find_generation(workspace, chosen.name)  # its files must be there, and whole
        verdict = verdict_on(ledger, chosen, ArtifactStore(workspace))
        if verdict.verdict != "promote" and not anyway:
            raise LedgerError(
                f"{chosen.name} was not promoted. {verdict.said}",
                hint=f"All evidence: nomoat gate --explain {chosen.name}. To promote it all the same: --anyway",
            )
        said = verdict.said if verdict.verdict == "promote" else f"the owner's choice. {verdict.said}"
        ledger.judgements.crown(chosen.id, by="owner", said=said, verdict=asdict(verdict))
    following = command("nomoat", "chat", workspace=workspace)
    if as_json:
        result = {"champion": chosen.name, "before": before or None, "verdict": verdict.verdict}
        print_json(result | {"said": verdict.said, "next": following})
        return
    print(f"{chosen.name} is the champion from now on" + (f", after {before}." if before else "."))
    print(f"The gate: {verdict.said}")
    print(f"Next: {following}")
