"""`nomoat peer`: an outside model on your held-out prompts, to see your generations beside."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli.judge_view import cost_said
from nomoat.cli.judges import (
    N_PARALLEL,
    Endpoint,
    KeyVariableOption,
    PriceInOption,
    PriceOutOption,
    open_endpoint,
)
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, console, print_json, table
from nomoat.cli.recipes import load_words
from nomoat.cli.units import count, local_time
from nomoat.errors import DataError, LedgerError

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.engine.openai import Spent
    from nomoat.evaluate.peer import SuiteResult
    from nomoat.evaluate.prompts import Prompt
    from nomoat.ledger.store import Ledger

EPILOG = """
\b
Examples:
  nomoat peer https://api.openai.com/v1 --model NAME --price-in 2.5 --price-out 10
  nomoat peer http://127.0.0.1:8080/v1 --model qwen3 --name "the big one"
  nomoat peer                       # all that were measured
  nomoat peer --forget "the big one"

It answers the recipe's held-out prompts that have checks, once each, and is a line on the generations page from then
on. Its answers are kept: the same question is never asked, or paid for, twice.
"""

KEYS = {
    "peers": "all that were measured, by name and suite: list of {name, endpoint, suite, rate, dollars, measured_at}; "
    "rate is {value, low, high, n}",
    "measured": "null, or what was measured now: {name, asked, remembered, failures, spent, suites}; failures is "
    "{kind: count}, spent {prompt_tokens, completion_tokens, dollars}, suites a list of {suite, passed, n, unanswered, "
    "generation, difference}: difference is {value, low, high, n}, the newest generation's pass rate minus the "
    "peer's on the prompts that both answered, or null",
    "confidence": "confidence of every interval, 0 to 1",
}
"""Keys of `nomoat peer --json`, for docs/cli.md."""

CONFIDENCE = 0.95
ANSWERS = "peers.jsonl"


def peer(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL", help="The address of its endpoint, up to /v1.", show_default="list all peers"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="The model's name there.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="What to call it here.", show_default="the model's name"),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="The recipe whose held-out prompts are asked.",
            show_default="nomoat.yaml, where there is one",
        ),
    ] = None,
    key_variable: KeyVariableOption = "OPENAI_API_KEY",
    price_in: PriceInOption = 0.0,
    price_out: PriceOutOption = 0.0,
    forget: Annotated[
        str | None,
        typer.Option("--forget", metavar="TEXT", help="Show this one no more.", show_default=False),
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Measure an outside model on your held-out prompts, and show it beside your generations."""
    if url is not None and forget is not None:
        raise LedgerError("peer: measure one or forget one, not both at once")
    if url is not None and "@" in url:
        raise DataError(
            "peer: the address holds a name or password, which would be kept with it",
            hint="Give the endpoint's key in an environment variable: --key-variable NAME",
        )
    measured = None
    with open_ledger(workspace) as ledger:
        if ledger is None:
            raise LedgerError(
                f"{workspace.resolve()}: no night has run here yet, so that there is nothing to compare with",
                hint="Make a model: nomoat run",
            )
        from nomoat.ledger.peers import forget_peer, peer_scores

        if forget is not None:
            forget_peer(ledger, forget)
        if url is not None:
            endpoint = Endpoint(model, key_variable, price_in, price_out)
            measured = _measure(ledger, url, endpoint, name, recipe, workspace)
        from nomoat.evaluate.stats.intervals import wilson

        peers = [
            {
                "name": row.name,
                "endpoint": row.endpoint,
                "suite": row.suite,
                "rate": asdict(wilson(row.passed, row.n, CONFIDENCE)),
                "dollars": row.dollars,
                "measured_at": row.measured_at,
            }
            for row in peer_scores(ledger)
        ]
    if as_json:
        print_json({"peers": peers, "measured": measured, "confidence": CONFIDENCE})
    else:
        _print(peers, measured, workspace, console())


def _measure(
    ledger: Ledger,
    url: str,
    endpoint: Endpoint,
    name: str | None,
    recipe: Path | None,
    workspace: Path,
) -> dict[str, Any]:
    """Ask, and keep what was passed."""
    from nomoat.engine.base import Sampling
    from nomoat.evaluate.interview import Interview
    from nomoat.evaluate.peer import ask_suites, reply_of
    from nomoat.ledger.artifacts import HOUSE
    from nomoat.ledger.peers import PeerScore, add_peer_scores
    from nomoat.night.evaluation import owners_prompts
    from nomoat.night.sources import held_out_files

    loaded = load_words([str(recipe)] if recipe else [], None, [])
    keys = loaded.recipe.evaluate
    prompts = owners_prompts(held_out_files(loaded.recipe, loaded.folder), keys.max_prompts)
    with (
        open_endpoint(url, endpoint, "answer") as engine,
        console(stderr=True).status("Asking …") as status,
    ):
        identity, name = f"{url.rstrip('/')} {endpoint.model}", name or str(endpoint.model)
        interview = Interview[str](
            lambda question: reply_of(engine, question, Sampling(keys.max_new_tokens)),
            role="peer",
            identity=f"{identity} {keys.max_new_tokens}",
            file=workspace / HOUSE / ANSWERS,
            n_parallel=N_PARALLEL,
        )
        found = ask_suites(
            interview,
            prompts,
            lambda done, total: status.update(f"{name} has answered {done:,} of {total:,} …"),
        )
        spent = engine.spent
    answered = sum(len(result.passed) for result in found)
    add_peer_scores(
        ledger,
        [
            PeerScore(
                name=name,
                endpoint=identity,
                suite=result.suite,
                passed=sum(result.passed.values()),
                n=len(result.passed),
                dollars=spent.dollars * len(result.passed) / answered,
            )
            for result in found
        ],
    )
    return _said(ledger, name, prompts, found, spent) | {
        "asked": interview.asked,
        "remembered": interview.remembered,
        "failures": dict(interview.failures),
    }


def _said(
    ledger: Ledger, name: str, prompts: list[Prompt], found: list[SuiteResult], spent: Spent
) -> dict[str, Any]:
    """What was measured now, beside the newest generation."""
    from nomoat.evaluate.peer import difference_to

    newest = next(iter(ledger.generations()), None)
    samples = ledger.samples(newest.night_id) if newest else ()
    suites = []
    for result in found:
        difference = difference_to(samples, prompts, result, confidence=CONFIDENCE)
        suites.append(
            {
                "suite": result.suite,
                "passed": sum(result.passed.values()),
                "n": len(result.passed),
                "unanswered": result.unanswered,
                "generation": newest.name if newest and difference else None,
                "difference": asdict(difference) if difference else None,
            }
        )
    return {"name": name, "spent": asdict(spent), "suites": suites}


def _print(
    peers: list[dict[str, Any]], measured: dict[str, Any] | None, workspace: Path, to: Console
) -> None:
    """The same for people."""
    if not peers:
        to.print("No outside model was measured here yet: nomoat peer URL --model NAME")
        return
    made = table("peer", "suite", "passes", "prompts", "dollars", "measured", right=("prompts", "dollars"))
    for row in peers:
        rate, at = row["rate"], local_time(row["measured_at"])
        made.add_row(row["name"], row["suite"], _rate(rate), f"{rate['n']:,}", f"{row['dollars']:.4f}", at)
    to.print(made)
    if measured is None:
        return
    to.print()
    for suite in measured["suites"]:
        if suite["difference"]:
            low, value, high = (100 * suite["difference"][key] for key in ("low", "value", "high"))
            interval = f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
            both = f"the {count(suite['difference']['n'], 'prompt')} of {suite['suite']} that both answered"
            to.print(f"{suite['generation']} minus {measured['name']}: {interval} on {both}.")
        if suite["unanswered"]:
            left = count(suite["unanswered"], "prompt")
            to.print(f"{suite['suite']}: {left} not answered, and left out.", style="yellow")
    to.print(cost_said(measured), style="dim")
    to.print("\nNext: ", end="")
    to.print(
        f"{command('nomoat', 'serve', workspace=workspace)}, and open /generations",
        style="bold",
        soft_wrap=True,
    )


def _rate(rate: dict[str, float]) -> str:
    value, low, high = (100 * rate[key] for key in ("value", "low", "high"))
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"
