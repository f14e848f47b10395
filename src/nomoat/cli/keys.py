"""`nomoat keys`: who may use the server over the network."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, console, print_json, table
from nomoat.cli.units import local_time
from nomoat.errors import LedgerError

EPILOG = """
\b
Examples:
  nomoat keys add laptop
  nomoat keys add phone --scope chat --scope vote
  nomoat keys list
  nomoat keys revoke laptop      # at once, also for a server that runs
"""

KEYS = {
    "key": "the new key, which is shown this once; null otherwise",
    "keys": "in the order in which they were made: list of {name, scopes, ends_with, created_at, revoked_at}",
}
"""Keys of `nomoat keys --json`, for docs/cli.md."""


class Action(StrEnum):
    """What to do."""

    ADD = "add"
    LIST = "list"
    REVOKE = "revoke"


def keys(
    action: Annotated[Action, typer.Argument(metavar="add|list|revoke", help="What to do.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The key's name, to tell it by.", show_default=False)
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="chat, vote or admin; may be repeated. admin opens everything.",
            show_default="chat",
        ),
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make, list and revoke keys of the server."""
    from nomoat.cli.workspaces import ready_workspace
    from nomoat.ledger.artifacts import HOUSE
    from nomoat.ledger.keys import add_key, list_keys, revoke_key
    from nomoat.ledger.store import Ledger

    if (name is None) != (action is Action.LIST):
        wanted = "nomoat keys list" if action is Action.LIST else f"nomoat keys {action} NAME"
        raise LedgerError(f"keys {action}: got {name or 'no name'}; expected {wanted}")
    ready_workspace(workspace)
    made = None
    with Ledger.open(workspace / HOUSE / "ledger.db") as ledger:
        if action is Action.ADD:
            made = add_key(ledger, name or "", scope or ["chat"])
        elif action is Action.REVOKE:
            revoke_key(ledger, name or "")
        rows = list_keys(ledger)
    fields = ("name", "scopes", "ends_with", "created_at", "revoked_at")
    every = [{field: getattr(row, field) for field in fields} for row in rows]
    if as_json:
        print_json({"key": made, "keys": every})
    elif made is not None:
        print(made)
        console(stderr=True).print("Keep it: it is shown this once. Clients send it as their API key.")
    elif action is Action.REVOKE:
        print(f"{name}: revoked.")
    else:
        _print_table(every)


def _print_table(every: list[dict[str, Any]]) -> None:
    if not every:
        print("No keys yet. Make one: nomoat keys add NAME")
        return
    shown = table("name", "scopes", "ends with", "made", "state")
    for row in every:
        state = f"revoked {local_time(row['revoked_at'])}" if row["revoked_at"] else "in use"
        made = local_time(row["created_at"])
        shown.add_row(row["name"], ", ".join(row["scopes"]), row["ends_with"], made, state)
    console().print(shown)
