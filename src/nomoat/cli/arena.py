"""`nomoat arena`: two blind answers to one prompt, and your vote."""

from __future__ import annotations

import getpass
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli.arena_view import print_pairs, print_standings, print_voters, standings_json, told
from nomoat.cli.gate import gate_json, generation_of
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, console, print_json
from nomoat.cli.quiet import quiet_libraries
from nomoat.cli.served import BASE, CHAMPION, LATEST, find_base, find_model
from nomoat.cli.units import count
from nomoat.errors import EngineError, LedgerError

if TYPE_CHECKING:
    from nomoat.cli.match import Match
    from nomoat.evaluate.battle import Battle, Question
    from nomoat.ledger.rows import Reason, VoteVerdict
    from nomoat.ledger.store import Ledger
    from nomoat.serve.models import ServedModel

EPILOG = """
\b
Examples:
  nomoat arena                       # the newest generation against the champion
  nomoat arena gen-0003 base
  nomoat arena --prompts mine.jsonl  # draw from your own prompts
  nomoat arena --standings           # who stands where, with intervals

\b
At "prompt>": Enter draws a held-out prompt, text asks that, Ctrl-D leaves.
At "vote>": 1 or 2 for the better answer, t for a tie, b for both bad, s to skip. What follows is kept with the vote:
first what decided it, of +correctness +instructions +clarity +style +length +safety (first letters are enough, where
they are of one alone), then why in your own words: 1 +co +len it names the right year.
With a prompt that you typed, g and words say something more to both before you vote.

Which side a model stands on is drawn for every prompt, and names are told with the vote. Both answers are shown when
both are whole: side by side in a terminal their speed would tell who is who. Now and then a model meets itself, or one
side answers another prompt: that measures the voter. Held-out prompts were in no training. The votes go to the ledger,
where `nomoat gate` counts them. The next night learns from those on prompts that are not held out, where its recipe has
`prefer`.
"""

KEYS = {
    "cast": "how many votes were cast now",
    "gate": "null, or what `nomoat gate --json` says of the first of the two, without `next`",
}
"""Keys of `nomoat arena --json`, for docs/cli.md."""

STANDINGS_KEYS = {
    "anchor": "the model that has 0 points: the base, where it was voted on; null without votes",
    "confidence": "confidence of every interval, 0 to 1",
    "standings": "best first: list of {name, model, wins, losses, ties, rate, same_style, points}; points is null (not "
    "comparable yet) or {value, low, high, n}, 400 being odds of 10 to 1; rate likewise, ties half; same_style is what "
    "that would be if answers were as long as their rivals, with as many headings, list items and bold passages",
    "uncounted": "votes that are in none of the tables, on prompts that one of the two models has learned from, or may "
    "have",
    "pairs": "most votes first: list of {one, other, wins, losses, ties, better, needed, why}; better is who the votes "
    "have shown to be better, or null while it is open; needed are about how many more decided votes, or null where "
    "they would never tell; why is a list of {reason, wins, losses}: how often voters named it for votes that one won, "
    "and that other did",
    "voters": "most votes first: list of {name, votes, left, selves, self_ties, probes, missed, flags}; left is the "
    "left side's share of decided votes, null or {value, low, high, n}; selves are votes on a model against itself, "
    "probes those whose better side is known; flags say what speaks against counting on a voter",
}
"""Keys of `nomoat arena --standings --json`, for docs/cli.md."""

_VOTES: dict[str, VoteVerdict] = {"1": "left", "2": "right", "t": "tie", "b": "both bad"}
CONFIDENCE = 0.95


def arena(
    one: Annotated[
        str,
        typer.Argument(metavar="GEN", help="A generation, or base.", show_default="the newest generation"),
    ] = LATEST,
    other: Annotated[
        str,
        typer.Argument(metavar="GEN", help="Its rival.", show_default="the champion, or the base"),
    ] = CHAMPION,
    prompts: Annotated[
        list[Path] | None,
        typer.Option("--prompts", metavar="FILE", help="JSONL of prompts to draw from.", show_default=False),
    ] = None,
    voter: Annotated[
        str | None,
        typer.Option("--voter", metavar="NAME", help="Whose votes these are.", show_default="your user name"),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="NUMBER", min=0, help="0: always the likeliest word.")
    ] = 0.7,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Longest answer, of both.")
    ] = 512,
    context: Annotated[
        int, typer.Option("--context", metavar="N", min=16, help="Most tokens of a prompt with its answer.")
    ] = 4096,
    standings: Annotated[
        bool,
        typer.Option(
            "--standings", help="Show the leaderboard of all votes and who cast them, and nothing else."
        ),
    ] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Vote blindly between two models, one prompt after the other."""
    if standings:
        _show_standings(workspace, as_json)
        return
    from nomoat.cli.match import Match
    from nomoat.cli.talkers import GgufTalker
    from nomoat.evaluate.battle import (
        PROBE_SHARE,
        SELF_SHARE,
        Contestant,
        arena_pool,
        counting,
        keep_draw,
        pool_of_files,
    )
    from nomoat.evaluate.gatebook import champion_name, taught_prompts, verdict_on
    from nomoat.ledger.artifacts import ArtifactStore

    to = console(stderr=as_json)
    with open_ledger(workspace) as ledger:
        newest = generation_of(ledger, LATEST if one in (BASE, CHAMPION) else one, workspace)
        assert ledger is not None
        store = ArtifactStore(workspace)
        pool = pool_of_files(prompts) if prompts else arena_pool(ledger, store, newest.night_id)
        with console(stderr=True).status("Loading both models …"):
            served = _served(workspace, one, other)
            quiet_libraries()
            from nomoat.engine.base import Sampling

            longest = min(context, *(found.context_length for found in served))  # the same for both
            talkers = [GgufTalker.open(found, longest) for found in served]
        if not prompts:
            pool = counting(pool, taught_prompts(ledger, pool, store), *(one.model for one in served)) or pool
        pair = [(Contestant(s.name, s.model), talker) for s, talker in zip(served, talkers, strict=True)]
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=0.95)
        self_share = SELF_SHARE if temperature else 0.0  # likeliest words are the same each time
        match = Match(
            pair,
            pool,
            sampling,
            chance=random.SystemRandom(),
            self_share=self_share,
            probe_share=PROBE_SHARE,
            keep_draw=partial(keep_draw, ledger),
        )
        table = Table(match, ledger, voter or getpass.getuser(), to=to, read=_reader(to, as_json))
        try:
            table.run(len(pool))
        finally:
            for talker in talkers:
                talker.close()
        verdict = None if one == BASE else verdict_on(ledger, newest, store)
        if as_json:
            gate = None if verdict is None else gate_json(verdict, champion_name(ledger))
            print_json({"cast": table.cast, "gate": gate})
        elif verdict is not None:
            to.print(f"Gate: {verdict.said}", style="dim")


def _served(workspace: Path, one: str, other: str) -> tuple[ServedModel, ServedModel]:
    """Both files. The newest generation meets its base where it is the champion itself, or there is none."""

    first, second = find_model(workspace, one), find_model(workspace, other)
    if first.model == second.model and other == CHAMPION:
        second = find_base(workspace, one)
    if first.model == second.model:
        raise LedgerError(
            f"{first.name} against itself: give two different models, such as: nomoat arena {one} base"
        )
    return first, second


def _reader(to: Any, as_json: bool) -> Callable[[str], str]:
    def read(prompt: str) -> str:
        if as_json:
            to.print(prompt, end="")
            return input()
        return input(prompt)

    return read


def _show_standings(workspace: Path, as_json: bool) -> None:
    from nomoat.evaluate.gatebook import evidence_of
    from nomoat.ledger.artifacts import ArtifactStore

    with open_ledger(workspace) as ledger:
        votes = ledger.judgements.votes() if ledger else ()
        evidence = evidence_of(ledger, votes, ArtifactStore(workspace)) if ledger else []
        names = {g.model: g.name for g in ledger.generations() if g.served_file} if ledger else {}
    from nomoat.evaluate.head_to_head import head_to_head, voters
    from nomoat.evaluate.standings import standings

    anchor = next((m for v in votes for m, n in _sides(v) if n == BASE or n.startswith(f"{BASE} (")), None)
    found = standings(evidence, names, anchor=anchor, confidence=CONFIDENCE)
    pairs = head_to_head(evidence, names, alpha=1 - CONFIDENCE)
    cast_by, uncounted = voters(votes, confidence=CONFIDENCE), len(votes) - len(evidence)
    if as_json:
        print_json(standings_json(found, uncounted, pairs, cast_by, CONFIDENCE))
    else:
        print_standings(found, uncounted, CONFIDENCE, console())
        print_pairs(pairs, console())
        print_voters(cast_by, console())


def _sides(vote: Any) -> tuple[tuple[str, str], tuple[str, str]]:
    return (vote.left_model, vote.left_name), (vote.right_model, vote.right_name)


def reasons_in(words: str) -> tuple[list[Reason], str]:
    """The reasons that what follows a verdict begins with, each a + and its first letters, and the rest. That begins
    with a + where such letters are of no reason, or of more than one."""
    from nomoat.ledger.rows import REASONS

    reasons: list[Reason] = []
    while words.startswith("+"):
        start, _, rest = words[1:].partition(" ")
        meant = [reason for reason in REASONS if reason.startswith(start.lower())]
        if len(meant) != 1:
            break
        reasons, words = [*reasons, *meant], rest.strip()
    return reasons, words


@dataclass(frozen=True)
class Choice:
    """What was typed at "vote>"."""

    key: str
    words: str
    reasons: Sequence[Reason] = ()


class Table:
    """A match at a terminal. `read` shows its text and gives the typed line; it raises EOFError and
    KeyboardInterrupt as `input` does."""

    def __init__(
        self, match: Match, ledger: Ledger, voter: str, *, to: Any, read: Callable[[str], str]
    ) -> None:
        self._match = match
        self._ledger = ledger
        self._voter = voter
        self._console = to
        self._read = read
        self.cast = 0

    def run(self, pool: int) -> None:
        """Rounds until Ctrl-D. Ctrl-C while answering or voting leaves that prompt without a vote."""
        drawn = f"Enter draws one of {count(pool, 'prompt')}, or type" if pool else "Type"
        self._say(f"{drawn} a prompt; Ctrl-D leaves.")
        while True:
            try:
                line = self._read("prompt> ").strip()
            except (EOFError, KeyboardInterrupt):
                self._console.print()
                return
            question = self._question(line)
            if question is None:
                self._say("There is no held-out prompt to draw: type one.")
                continue
            try:
                self._round(question)
            except (EOFError, KeyboardInterrupt):
                self._say("\nNo vote on this one.")
            except EngineError as error:
                self._say(f"Not answered: {error}")

    def _question(self, line: str) -> Question | None:
        from nomoat.evaluate.battle import Question

        return Question.typed(line) if line else self._match.draw()

    def _round(self, question: Question) -> None:
        from nomoat.cli.output import visible

        for message in question.conversation.messages:
            self._console.print(f"{message.role}: {visible(message.content)}", style="bold")
        with console(stderr=True).status("Both are answering …"):
            found = self._match.ask(question)
        if not found.has_choice:
            self._console.print(visible(found.left_answer))
            self._say("Both answer this word for word: there is nothing to choose, and no vote.")
            return
        self._show(found.left_answer, found.right_answer)
        choice = self._choice(found)
        while choice.key == "g":
            found = self._go_on(found, choice.words)
            choice = self._choice(found)
        if choice.key == "s":
            self._say("Skipped, without a vote.")
            return
        vote = found.vote(
            _VOTES[choice.key],
            self._voter,
            self._match.now_s(),
            note=choice.words or None,
            reasons=choice.reasons,
        )
        self._ledger.judgements.add_votes([vote], draw_id=found.draw_id)
        self.cast += 1
        self._say(told(vote))

    def _show(self, left: str, right: str) -> None:
        from nomoat.cli.output import visible

        for number, answer in ((1, left), (2, right)):
            self._console.print(f"\n[{number}]", style="bold")
            self._console.print(visible(answer) or "(no text)")
        self._console.print()

    def _go_on(self, found: Battle, words: str) -> Battle:
        """With one turn more; as it was where that cannot be answered."""
        try:
            with console(stderr=True).status("Both are answering …"):
                found = self._match.go_on(found, words)
        except EngineError as error:
            self._say(f"Not answered: {error}")
            return found
        self._show(found.turns[-1].left, found.turns[-1].right)
        return found

    def _choice(self, found: Battle) -> Choice:
        """A key, and what is said behind it."""
        from nomoat.ledger.rows import REASONS

        going_on = found.question.is_typed
        known = (
            "1 or 2: the better answer; t: a tie; b: both bad; s: skip; words after it: why, such as +style"
        )
        while True:
            self._say(known + ("; g and words: say more to both" if going_on else ""))
            key, _, words = self._read("vote> ").strip().partition(" ")
            key, words = key.lower(), words.strip()
            if key == "s" or (key == "g" and words and going_on):
                return Choice(key, words)
            if key in _VOTES:
                reasons, words = reasons_in(words)
                if not words.startswith("+"):
                    return Choice(key, words, reasons)
                self._say(f"{words.split()[0]} is none or several of: +{', +'.join(REASONS)}")

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim")
