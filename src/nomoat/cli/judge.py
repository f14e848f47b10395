"""`nomoat judge`: another model's opinion on two of yours, and what that opinion is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli.gate import generation_of
from nomoat.cli.judge_view import print_judge
from nomoat.cli.judges import Endpoint, KeyVariableOption, PriceInOption, PriceOutOption, open_judge
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, console, print_json
from nomoat.cli.quiet import quiet_libraries
from nomoat.cli.served import BASE, CHAMPION, LATEST
from nomoat.errors import LedgerError

if TYPE_CHECKING:
    from nomoat.ledger.rows import GenerationRow, Sample, VoteRow
    from nomoat.ledger.store import Ledger

EPILOG = """
\b
Examples:
  nomoat judge http://127.0.0.1:8080/v1 --model qwen3   # the newest generation against the champion
  nomoat judge judge.gguf --tokenizer ./judge gen-0003 base
  nomoat judge https://api.openai.com/v1 --model NAME --price-in 2.5 --price-out 10

The judge compares their answers to held-out prompts, each pair in both orders, and all answers that you have voted on.
A pair's score is the mean of both orders; held against a vote, a judge that changed its mind with the order said tie.
With --mode score it grades each answer alone, and the higher grade is its verdict; mean grades are shown too.
How far it agrees with your votes is shown beside what it says, and beside what three baselines would say that read
nothing. Verdicts are kept: the same question is never asked, or paid for, twice. They lend later votes on the two more
weight at the gate, the more so the better the judge has foretold votes before: so ask the judge first, then vote.
"""

KEYS = {
    "judge": "its name",
    "mode": "`pair` or `score`",
    "one": "the generation asked for",
    "other": "whom it was compared with",
    "confidence": "confidence of every interval, 0 to 1",
    "contest": "{rate, same_style, ordered, elo, would_say}: win rate of the first, the mean of its pairs over both "
    "orders; what it would be between answers of the same length with as many headings, list items and bold passages; "
    "how many pairs came out LL, LD, WL or DD, WD, WW over both orders; {elo, elo_error, normalized, normalized_error, "
    "superiority} from those; the win rate by each baseline",
    "grades": "null (mode pair), or {one, other, difference, counts_one, counts_other}: mean grade of each, 1 to 10, "
    "and of their difference on the same prompts; how many answers of each got 1, 2, ... 10",
    "bias": "null (too few, or each answer graded alone), or {consistency, position}: how often both orders give the "
    "same, and how much oftener than half the first answer is preferred",
    "calibration": "null (fewer than two decided votes), or {votes, agrees, kappa, verbosity, voters}: agreement with "
    "decided votes by the judge, whose changed mind is a tie, and by each baseline; Cohen's kappa; how much oftener "
    "than people it prefers the longer answer; Krippendorff's alpha of several voters",
    "combined": "null (too few votes on the two), or the win rate by people, from their votes and the judge's verdicts",
    "asked": "questions that were asked now",
    "remembered": "questions whose verdict was kept from before",
    "failures": "{kind: count} of replies that are no verdict",
    "spent": "null for a local judge, or {prompt_tokens, completion_tokens, dollars} of what was asked now",
    "said": "list of sentences",
    "next": "the command to type next",
}
"""Keys of `nomoat judge --json`, for docs/cli.md. Estimates are {value, low, high, n}, or null where not known."""

CONFIDENCE = 0.95
VERDICTS = "judge.jsonl"


class Mode(Enum):
    """What the judge is asked."""

    pair = "pair"
    score = "score"


def judge(
    which: Annotated[
        str,
        typer.Argument(
            metavar="JUDGE", help="An endpoint's address, a GGUF file, or a model of the workspace."
        ),
    ],
    one: Annotated[
        str, typer.Argument(metavar="GEN", help="A generation.", show_default="the newest generation")
    ] = LATEST,
    other: Annotated[
        str,
        typer.Argument(metavar="GEN", help="Its rival.", show_default="the champion, or the base"),
    ] = CHAMPION,
    mode: Annotated[
        Mode, typer.Option("--mode", help="Which of two answers is better, or how good each is alone.")
    ] = Mode.pair,
    references: Annotated[
        list[Path] | None,
        typer.Option(
            "--references",
            metavar="FILE",
            help="JSONL of the prompts with a field answer: what is right.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="The judge's name at its endpoint.", show_default=False),
    ] = None,
    key_variable: KeyVariableOption = "OPENAI_API_KEY",
    price_in: PriceInOption = 0.0,
    price_out: PriceOutOption = 0.0,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", metavar="DIR", help="Of a GGUF file: its transformers folder.", show_default=False
        ),
    ] = None,
    context: Annotated[
        int, typer.Option("--context", metavar="N", min=16, help="Most tokens that a local judge reads.")
    ] = 4096,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Have a model compare two of yours, and show how far it agrees with you."""
    with open_ledger(workspace) as ledger:
        generation = generation_of(ledger, one, workspace)
        assert ledger is not None
        rival = _rival(ledger, generation, other)
        from nomoat.evaluate.calibration import held_out_pairs
        from nomoat.evaluate.gatebook import base_model

        rival_model = rival.model if rival else base_model(ledger, generation)
        samples = [ledger.samples(row.night_id) for row in (generation, rival) if row]
        votes = ledger.judgements.votes()
    right = _references(references or [])
    unused = _unused(right, [*samples[0], *votes])
    held_out = held_out_pairs(samples[0], samples[1] if rival else None, right)
    quiet_libraries()
    endpoint = Endpoint(model, key_variable, price_in, price_out)
    with (
        console(stderr=True).status("Loading the judge …") as status,
        open_judge(
            which,
            workspace=workspace,
            mode=mode.value,
            endpoint=endpoint,
            tokenizer=tokenizer,
            most_context=context,
        ) as opened,
    ):
        from nomoat.evaluate.ballots import verdict_rows
        from nomoat.evaluate.calibration import report_on, said_of
        from nomoat.evaluate.judge import Judge
        from nomoat.ledger.artifacts import HOUSE

        asked = Judge(
            opened.ask,
            identity=opened.identity,
            mode=mode.value,
            cache=workspace / HOUSE / VERDICTS,
            n_parallel=opened.n_parallel,
        )
        found, verdicts = report_on(
            asked,
            held_out,
            votes,
            (generation.model, rival_model),
            right,
            confidence=CONFIDENCE,
            progress=lambda done, total: status.update(f"The judge has answered {done:,} of {total:,} …"),
        )
        spent = opened.spent()
    if rival_model is not None:
        with open_ledger(workspace) as ledger:
            assert ledger is not None
            who = f"{opened.identity} {mode.value}"
            rows = verdict_rows(who, generation.model, rival_model, held_out, verdicts)
            ledger.judgements.add_verdicts(rows)
    name = rival.name if rival else BASE
    said = said_of(found, generation.name, name)
    if unused:
        said.append(
            f"{len(unused):,} of {len(right):,} reference answers were of no use: {_shown(unused[0])}."
        )
    if opened.identity in (generation.model, rival_model):
        said.append("The judge is one of the two, and models are known to prefer what they write themselves.")
    result: dict[str, Any] = {
        "judge": opened.name,
        "mode": mode.value,
        "one": generation.name,
        "other": name,
        "confidence": CONFIDENCE,
        **asdict(found),
        "asked": asked.interview.asked,
        "remembered": asked.interview.remembered,
        "failures": dict(asked.interview.failures),
        "spent": None if spent is None else asdict(spent),
        "said": said,
        "next": command("nomoat", "arena", generation.name, name, workspace=workspace),
    }
    if as_json:
        print_json(result)
    else:
        print_judge(found, result, asked.interview.failures_said(), console())


def _rival(ledger: Ledger, generation: GenerationRow, which: str) -> GenerationRow | None:
    """None for the base, which the champion itself meets too."""
    if which == CHAMPION:
        champion = ledger.judgements.champion()
        crowned = champion.generation_id if champion else None
        return None if crowned in (None, generation.id) else ledger.generation(crowned)
    if which == BASE:
        return None
    rival = ledger.generation(int(which) if which.isdecimal() else which)
    if rival.id == generation.id:
        raise LedgerError(f"{rival.name} against itself: give two different generations, or base")
    return rival


def _unused(
    right: Mapping[tuple[str | None, str | None], str], asked: Sequence[Sample | VoteRow]
) -> list[tuple[str | None, str | None]]:
    """Reference answers to prompts that the judge is not asked about. Raises DataError where all are such."""
    from nomoat.errors import DataError

    known = {(one.suite, one.prompt_id): None for one in asked if one.suite}
    unused = [prompt for prompt in right if prompt not in known]
    if right and len(unused) == len(right):
        example = " ".join(map(str, next(iter(known), ("heldout", "1"))))
        raise DataError(
            f"references: {_shown(unused[0])}; expected suites (the file's name) and ids such as {example}",
            hint="The judge compares answers to the prompts of `evaluate.prompts`, and those that were voted on.",
        )
    return unused


def _shown(prompt: tuple[str | None, str | None]) -> str:
    return f"no prompt that the judge compares is {prompt[0]} {prompt[1]}"


def _references(files: list[Path]) -> dict[tuple[str | None, str | None], str]:
    """The field `answer` of prompts, by suite and prompt. Raises DataError where no prompt has one."""
    from nomoat.errors import DataError
    from nomoat.evaluate.prompts import read_prompts

    prompts = [prompt for file in files for prompt in read_prompts(file)]
    found: dict[tuple[str | None, str | None], str] = {
        (p.suite, p.id): str(p.row["answer"]) for p in prompts if "answer" in p.row
    }
    if files and not found:
        raise DataError(
            f"{files[0]}: no prompt has a reference answer; expected a field answer",
            hint='A line such as {"id": "1", "messages": [...], "answer": "..."}',
        )
    return found
