"""`nomoat rollback`: serve again what was served before."""

from __future__ import annotations

from nomoat.cli.gate import generation_of
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, print_json

EPILOG = """
\b
Examples:
  nomoat rollback        # the champion before this one; before the first there is the base

Nothing is deleted: `nomoat promote GEN` brings it back, and nothing else does.
"""

KEYS = {
    "champion": "who is served from now on: a generation, or `base`",
    "before": "the generation that was taken back",
    "next": "the command to type next",
}
"""Keys of `nomoat rollback --json`, for docs/cli.md."""


def rollback(workspace: WorkspaceOption = HERE, as_json: JsonOption = False) -> None:
    """Take the champion back: serve what was served before it.

    Typed again, it goes one champion further back, and at last to the base.
    """
    with open_ledger(workspace) as ledger:
        from nomoat.evaluate.gatebook import champion_name

        generation_of(ledger, "latest", workspace)
        assert ledger is not None
        before = champion_name(ledger)
        ledger.judgements.roll_back()
        champion = champion_name(ledger)
    following = command("nomoat", "chat", workspace=workspace)
    if as_json:
        print_json({"champion": champion, "before": before, "next": following})
        return
    print(f"{before} was taken back; {champion} is served from now on.")
    print(f"Next: {following}")
