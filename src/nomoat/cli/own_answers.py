"""Asking people for an answer of their own where both answers were bad."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nomoat.cli.output import visible

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.ledger.rows import VoteRow
    from nomoat.ledger.store import Ledger

_ABOVE = "# Your answer goes above this line; leave it empty to skip. "


def ask_all(ledger: Ledger, voter: str, to: Console) -> tuple[int, int]:
    """Ask for an answer to each prompt that was voted both bad and has none of this voter yet, until Ctrl-D. Gives how
    many were kept, and how many prompts were not asked as they are held out, where nothing is trained on them.

    In `$EDITOR` at a terminal; otherwise lines are read up to an empty one.
    """
    from nomoat.evaluate.gatebook import held_out_asked
    from nomoat.ledger.feedback import add_own_answer

    asked, held_out = _both_bad(ledger, voter, held_out_asked(ledger))
    if held_out:
        to.print(f"Not asked: {held_out} held-out prompts, which are never trained on.", style="dim")
    if not asked:
        to.print("There is no other prompt whose answers were voted both bad.", style="dim")
    read = _from_editor if sys.stdin.isatty() and os.environ.get("EDITOR") else _from_lines
    added = 0
    for number, vote in enumerate(asked, 1):
        to.print(f"\nPrompt {number} of {len(asked)}", style="bold")
        for message in vote.prompt["messages"]:
            to.print(f"{message['role']}: {visible(message['content'])}")
        for answer in (vote.left_answer, vote.right_answer):
            to.print(f"Bad: {visible(answer)}", style="dim")
        if read is _from_lines:
            to.print("Your answer, then an empty line (at once: skip; Ctrl-D leaves):", style="dim")
        try:
            answer = read(vote).strip()
        except (EOFError, KeyboardInterrupt):
            break
        if answer:
            add_own_answer(ledger, vote, voter, answer)
            added += 1
    return added, held_out


def _both_bad(ledger: Ledger, voter: str, never: set[str]) -> tuple[list[VoteRow], int]:
    """The newest such vote of each prompt, and how many prompts are held out."""
    from nomoat.data.split import asked_keys
    from nomoat.evaluate.gatebook import conversation_of, wants_answer
    from nomoat.ledger.feedback import standing_own_answers

    done = {own.prompt_hash for own in standing_own_answers(ledger) if own.voter == voter}
    newest = {
        vote.prompt_hash: vote
        for vote in ledger.judgements.votes()
        if wants_answer(vote) and vote.prompt_hash not in done
    }
    asked = [vote for vote in newest.values() if never.isdisjoint(asked_keys(conversation_of(vote)))]
    return asked, len(newest) - len(asked)


def _from_editor(vote: VoteRow) -> str:
    below = [vote.prompt["messages"][-1]["content"], vote.left_answer, vote.right_answer]
    quoted = "".join(f"# {line}\n" for text in below for line in [*text.splitlines(), ""])
    with TemporaryDirectory() as folder:
        file = Path(folder) / "answer.md"
        file.write_text(f"\n{_ABOVE}\n{quoted}", encoding="utf-8")
        subprocess.run([*shlex.split(os.environ["EDITOR"]), str(file)], check=False)
        return file.read_text(encoding="utf-8").partition(_ABOVE)[0]


def _from_lines(_vote: VoteRow) -> str:
    lines: list[str] = []
    while line := input().rstrip():
        lines.append(line)
    return "\n".join(lines)
