"""`nomoat status`: the workspace at a glance."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat.cli import nights
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, print_json
from nomoat.cli.units import count, duration, local_time, size

if TYPE_CHECKING:
    from nomoat.ledger.rows import NightRow, StageRow
    from nomoat.ledger.store import Ledger

EPILOG = """
\b
Examples:
  nomoat status
  watch nomoat status          # while a night runs
"""

KEYS = {
    "workspace": "its folder",
    "disk_bytes": "bytes in its .nomoat folder",
    "damaged_bytes": "bytes of these in .nomoat/damaged: artifacts that nights found damaged and set aside",
    "nights": "how many nights were started here",
    "last_night": f"null, or {nights.NIGHT_KEYS}",
    "stages": f"of the last night, in order: list of {nights.STAGE_KEYS}",
    "champion": "null where nobody was ever chosen, or {name, since, chosen_by, said}: who is served; name is a "
    "generation or `base`, chosen_by `gate`, `owner` or `rollback`",
    "votes": "how many blind votes there are",
    "generations": "newest first: list of {name, night, created_at, base, served_file, verdict, said}",
    "next": "the command to type next",
}
"""Keys of `nomoat status --json`, for docs/cli.md."""


def status(workspace: WorkspaceOption = HERE, as_json: JsonOption = False) -> None:
    """Show the last night, what came of it, and what to type next.

    Works while a night runs.
    """
    with open_ledger(workspace) as ledger:
        result = _glance(workspace, ledger)
        if as_json:
            print_json(result)
        else:
            print("\n".join(_lines(result, ledger, workspace)))


def _glance(workspace: Path, ledger: Ledger | None) -> dict[str, Any]:
    every = ledger.nights() if ledger else ()
    last = every[0] if every else None
    stages = ledger.stages(last.id) if ledger and last else ()
    return {
        "workspace": str(workspace.resolve()),
        "disk_bytes": tree_bytes(workspace / ".nomoat"),
        "damaged_bytes": tree_bytes(_damaged(workspace)),
        "nights": len(every),
        "last_night": nights.night_json(last) if last else None,
        "stages": [nights.stage_json(stage, last) for stage in stages] if last else [],
        "champion": nights.champion_json(ledger.judgements.champion()) if ledger else None,
        "votes": len(ledger.judgements.votes()) if ledger else 0,
        "generations": [nights.generation_json(found) for found in ledger.generations()] if ledger else [],
        "next": command(
            *_next(last, has_generation=bool(ledger and ledger.generations())), workspace=workspace
        ),
    }


def _next(last: NightRow | None, *, has_generation: bool) -> tuple[str, ...]:
    status = nights.status_of(last) if last else "done"
    if last and status == "running":
        return "nomoat", "log", str(last.id)
    if status == "done" and has_generation:
        return "nomoat", "chat"
    return "nomoat", "run"


def _lines(result: dict[str, Any], ledger: Ledger | None, workspace: Path) -> list[str]:
    lines = [f"Workspace   {result['workspace']} ({size(result['disk_bytes'])} in .nomoat)"]
    if ledger is None or result["last_night"] is None:
        lines.append("Last night  none yet")
    else:
        night = ledger.nights(limit=1)[0]
        lines.append(_night_line(night, ledger.stages(night.id)))
        said = (night.verdict or {}).get("said") or night.error
        lines += [f"            {line}" for line in said.splitlines()] if said else []
    made = result["generations"]
    if made:
        newest = made[0]
        judged = f", {newest['verdict']}" if newest["verdict"] else ""
        lines.append(f"Models      {count(len(made), 'generation')}; the newest is {newest['name']}{judged}")
        lines.append(_champion_line(result["champion"], newest["name"]))
    if result["votes"]:
        lines.append(f"Votes       {count(result['votes'], 'blind vote')}")
    if result["damaged_bytes"]:
        remove = shlex.join(["rm", "-r", str(_damaged(workspace))])
        lines.append(
            f"Damaged     {size(result['damaged_bytes'])} that nights found damaged and set aside; "
            f"to remove it: {remove}"
        )
    return [*lines, f"Next        {result['next']}"]


def _champion_line(champion: dict[str, Any] | None, newest: str) -> str:
    if champion is None:
        return f"Champion    none yet; {newest} is served until there is one (why: nomoat gate)"
    by = {"gate": "by the gate", "owner": "by you", "rollback": "by a rollback"}[champion["chosen_by"]]
    return f"Champion    {champion['name']}, since {local_time(champion['since'])}, chosen {by}"


def _damaged(workspace: Path) -> Path:
    return workspace / ".nomoat" / "damaged"


def _night_line(night: NightRow, stages: tuple[StageRow, ...]) -> str:
    head = f'Last night  {night.id} "{night.name}", {local_time(night.started_at)}'
    status = nights.status_of(night)
    if status == "running":
        now = [stage for stage in stages if stage.status == "running"]
        at = nights.running_words(now[-1], night) if now else "between two stages"
        return f"{head}, running: {at}"
    if status == nights.CUT_OFF:
        return f"{head}, was cut off; `nomoat run` goes on from what it had finished"
    took = f" after {duration(night.seconds)}" if night.seconds is not None else ""
    return f"{head}, {status}{took}"


def tree_bytes(folder: Path) -> int:
    """Bytes of all files under a folder; files that a running night removes meanwhile do not count."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
