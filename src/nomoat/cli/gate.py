"""`nomoat gate`: may a generation replace the champion, and on what evidence?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, console, print_json, table
from nomoat.cli.units import share
from nomoat.errors import LedgerError

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.evaluate.comparison import Estimate
    from nomoat.evaluate.gate import GateVerdict
    from nomoat.ledger.rows import GenerationRow
    from nomoat.ledger.store import Ledger

EPILOG = """
\b
Examples:
  nomoat gate                         # the newest generation
  nomoat gate --explain gen-0003

Everything is computed anew from the ledger: what the nights measured, and all votes up to now. Votes add up over
days, and looking often does not make the error rate worse.
"""

KEYS = {
    "verdict": "`promote`, `keep` (the rival stays: it is better, or a guarded suite got worse) or `not yet`",
    "challenger": "the generation asked for",
    "rival": "the champion, or `base`; of the champion itself, whom it had beaten",
    "champion": "who is served: a generation, `base`, or null where nobody was ever chosen",
    "alpha": "the recipe's gate.alpha: how often one that is no better may be promoted, however often one looks",
    "e_value": "evidence that the challenger is better: the product of those in weighed and links; 1/alpha promotes",
    "e_against": "evidence that the rival is better; 1/alpha keeps it where e_value does not reach that too. Links are "
    "not in it, nor is `loss` once there are votes",
    "weighed": "list of {source, wins, losses, ties, e_value, rate, judged}; source is `checks`, `loss` or `votes`, "
    "rate is null or {value, low, high, n} at confidence 1 - alpha, at all times at once, judged how many of the votes "
    "a judge had spoken before; e_value of `loss` is (1 + e) / 2: half of the stake on a proxy is not bet",
    "links": "list of {third, better, worse, alike, e_value}: votes of challenger and rival against the same third "
    "model, matched by voter and drawn prompt, and in how many of these the challenger did better, worse and alike",
    "guards": "list of {suite, finding, margin, difference, prompts_needed}; finding is `holds`, `regressed` or "
    "`unclear`, difference is null or {value, low, high, n} at confidence 1 - 2 alpha",
    "votes_needed": "about how many more decided votes would bring e_value to 1/alpha; null where they would not",
    "left_out": "{reason: n}: votes between the two that do not count, such as those on prompts that one of them has "
    "learned from",
    "doubts": "list of sentences: whose votes count although they are flagged, as in `nomoat arena --standings`",
    "said": "the verdict in sentences",
    "next": "the command to type next",
}
"""Keys of `nomoat gate --json`, for docs/cli.md."""

SOURCES = {"checks": "held-out prompts", "loss": "loss on held-out rows", "votes": "blind votes"}


def gate(
    explain: Annotated[
        str,
        typer.Option(
            "--explain",
            metavar="GEN",
            help="A generation, such as gen-0001.",
            show_default="the newest generation",
        ),
    ] = "latest",
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Say whether a generation may replace the champion, with all evidence.

    Works while a night runs.
    """
    with open_ledger(workspace) as ledger:
        from nomoat.evaluate.gatebook import champion_name, verdict_on
        from nomoat.ledger.artifacts import ArtifactStore

        generation = generation_of(ledger, explain, workspace)
        assert ledger is not None
        verdict = verdict_on(ledger, generation, ArtifactStore(workspace))
        champion = champion_name(ledger)
    following = command(*_next(verdict, champion), workspace=workspace)
    if as_json:
        print_json(gate_json(verdict, champion) | {"next": following})
    else:
        print_gate(verdict, champion, following, console())


def generation_of(ledger: Ledger | None, which: str, workspace: Path) -> GenerationRow:
    """'latest', 'gen-0001' or '1'. Raises LedgerError where there is none such."""
    if ledger is None or not ledger.generations():
        raise LedgerError(
            f"{workspace.resolve()}: no night has made a model here yet", hint="Make one: nomoat run"
        )
    return ledger.generation(int(which) if which.isdecimal() else which)


def gate_json(verdict: GateVerdict, champion: str) -> dict[str, Any]:
    """The verdict under `KEYS`, without `next`."""
    return asdict(verdict) | {"champion": champion or None}


def print_gate(verdict: GateVerdict, champion: str, following: str, to: Console) -> None:
    """The same for people."""
    served = champion or "nobody was chosen yet"
    to.print(f"{verdict.challenger} against {verdict.rival}: {verdict.verdict}", style="bold")
    to.print(verdict.said)
    to.print(f"Champion: {served}", style="dim")
    if verdict.weighed or verdict.links:
        made = table("evidence", "won", "lost", "tied", "win rate", "e-value", right=("won", "lost", "tied"))
        for found in verdict.weighed:
            counts = (f"{n:,}" for n in (found.wins, found.losses, found.ties))
            made.add_row(SOURCES[found.source], *counts, _interval(found.rate), f"{found.e_value:,.3g}")
        for link in verdict.links:
            counts = (f"{n:,}" for n in (link.better, link.worse, link.alike))
            made.add_row(f"votes of each against {link.third}", *counts, "–", f"{link.e_value:,.3g}")
        to.print()
        to.print(made)
        to.print(f"The e-values multiply; {1 / verdict.alpha:,.0f} are asked.", style="dim")
    for guard in verdict.guards:
        to.print(f"Guarded: {guard.suite} {guard.finding}, {_interval(guard.difference)}")
    to.print()
    to.print("Next: ", end="")
    to.print(following, style="bold", soft_wrap=True)


def _next(verdict: GateVerdict, champion: str) -> tuple[str, ...]:
    if verdict.challenger == champion:
        return "nomoat", "chat"
    if verdict.verdict == "promote":
        return "nomoat", "promote", verdict.challenger
    if verdict.verdict == "not yet" and verdict.votes_needed is not None:
        return "nomoat", "arena", verdict.challenger, verdict.rival
    return "nomoat", "run"


def _interval(found: Estimate | None) -> str:
    if found is None:
        return "not known"
    return f"{share(found.value)} ({share(found.low)} to {share(found.high)})"
