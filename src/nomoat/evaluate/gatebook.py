"""The gate's verdict on a generation, computed from the ledger: at the end of its night, and again on any later day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nomoat.chat.conversation import Conversation, parse_messages, parse_tools
from nomoat.data.split import asked_keys
from nomoat.evaluate.ballots import count_votes, judged, links
from nomoat.evaluate.battle import held_out_pool
from nomoat.evaluate.gate import BASE, GateVerdict, Guard, Judged, Tally, decide
from nomoat.evaluate.prompts import HELD_OUT_ROWS
from nomoat.ledger.rows import EvidenceRow, GenerationRow, OwnAnswerRow, Rating, Vote, VoteRow
from nomoat.ledger.store import Ledger

_DEFAULTS: dict[str, Any] = {"alpha": 0.05, "guard": [], "margin": 0.05}  # of nights before there was a gate
LEARNED = ("votes", "own_answers")
"""Kinds of artifacts whose meta says what they ask: what people said and a night has learned from."""


@dataclass(frozen=True)
class Settings:
    """The recipe's section `gate`, as the night of the evidence had it."""

    alpha: float
    guard: tuple[str, ...]
    margin: float

    @staticmethod
    def of(recipe_resolved: dict[str, Any]) -> Settings:
        """From a night's resolved recipe."""
        section = _DEFAULTS | recipe_resolved.get("gate", {})
        return Settings(section["alpha"], tuple(section["guard"]), section["margin"])


def rival_of(ledger: Ledger, generation: GenerationRow | None) -> int | None:
    """Whom a generation has to beat: the champion (None: the base). Of the champion itself, whom it had beaten."""
    champion = ledger.judgements.champion()
    if champion is None:
        return None
    if generation is None or champion.generation_id != generation.id:
        return champion.generation_id
    measured = ledger.judgements.evidence(generation.id)
    return measured[-1].rival_id if measured else None


def champion_name(ledger: Ledger) -> str:
    """Who is served: a generation's name or 'base'; '' where nobody was ever chosen."""
    champion = ledger.judgements.champion()
    if champion is None:
        return ""
    return BASE if champion.generation_id is None else ledger.generation(champion.generation_id).name


def verdict_on(ledger: Ledger, generation: GenerationRow) -> GateVerdict:
    """The verdict on a generation against its rival, from all the ledger holds of the two."""
    rival_id = rival_of(ledger, generation)
    measured = [row for row in ledger.judgements.evidence(generation.id) if row.rival_id == rival_id]
    night = ledger.night(measured[-1].night_id if measured else generation.night_id)
    settings = Settings.of(night.recipe_resolved)
    rows = [row for row in measured if row.night_id == night.id]
    rival = ledger.generation(rival_id) if rival_id is not None else None
    rival_model = rival.model if rival else base_model(ledger, generation)
    tallies = _measured(rows, settings.guard)
    evidence, models = evidence_of(ledger, ledger.judgements.votes()), (generation.model, rival_model)
    votes = count_votes(evidence, *models)
    if votes.wins + votes.losses + votes.ties:
        tallies.append(replace(votes, judged=_judged(ledger, evidence, *models)))
    return decide(
        tallies,
        [_guard(rows, suite, settings.margin) for suite in settings.guard],
        links(
            evidence, *models, names={one.model: one.name for one in ledger.generations() if one.served_file}
        ),
        challenger=generation.name,
        rival=rival.name if rival else BASE,
        alpha=settings.alpha,
    )


def base_model(ledger: Ledger, generation: GenerationRow) -> str | None:
    """How votes name the base's file that a generation's night compared it with; None where it had none."""
    for stage in ledger.stages(generation.night_id):
        row = ledger.artifact(stage.artifact_id) if stage.artifact_id else None
        if row and row.kind == "quantize" and row.meta.get("params", {}).get("name") == BASE:
            return f"{row.id}/{row.meta['files'][0]['file']}" if row.meta.get("files") else None
    return None


def held_out_asked(ledger: Ledger) -> set[str]:
    """What the nights so far have held out and had answered, suites and rows alike, as `asked_keys`."""
    return sampled_keys(ledger, of_rows=False) | sampled_keys(ledger, of_rows=True)


def sampled_keys(ledger: Ledger, *, of_rows: bool) -> set[str]:
    """What the answers of all nights were given to: the owner's held-out rows, or else prompts of suites."""
    return {
        key
        for night in ledger.nights()
        for sample in ledger.samples(night.id)
        if (sample.suite == HELD_OUT_ROWS) == of_rows
        for key in asked_keys(Conversation(parse_messages(sample.prompt, sample.prompt_id)))[-1:]
    }


def learned_prompts(ledger: Ledger, generation: GenerationRow) -> set[str]:
    """What the votes and own answers that a generation has learned from ask, as `asked_keys`."""
    found: set[str] = set()
    nodes = [ledger.lineage(generation.gguf_artifact)] if generation.gguf_artifact else []
    while nodes:
        node = nodes.pop()
        nodes += node.inputs
        if node.kind in LEARNED:
            found.update(ledger.artifact(node.id).meta["asked"])
    return found


def evidence_of(ledger: Ledger, votes: Sequence[VoteRow]) -> list[VoteRow]:
    """Its votes but those on prompts that one of their two models has learned from: they tell what was taught, not who
    is better."""
    voted_on = {model for vote in votes for model in (vote.left_model, vote.right_model)}
    learned = {
        one.model: learned_prompts(ledger, one)
        for one in ledger.generations()
        if one.served_file and one.model in voted_on
    }

    def is_taught(vote: VoteRow) -> bool:
        taught = learned.get(vote.left_model, set()) | learned.get(vote.right_model, set())
        return bool(taught) and not taught.isdisjoint(asked_keys(conversation_of(vote))[-1:])

    return [vote for vote in votes if not is_taught(vote)]


def conversation_of(said: Vote | OwnAnswerRow | Rating) -> Conversation:
    """What a vote, an own answer or a thumb is about."""
    where = f"what {said.voter} said"
    return Conversation(
        parse_messages(said.prompt["messages"], where), parse_tools(said.prompt.get("tools"), where)
    )


def wants_answer(vote: Vote) -> bool:
    """Whether somebody's own answer to a vote's prompt would teach what neither model knew. Of several turns the first
    answers may have been good, and a probe's worse side answers something else."""
    return vote.verdict == "both bad" and vote.better is None and vote.turns is None


def _judged(ledger: Ledger, evidence: Sequence[VoteRow], challenger: str, rival: str | None) -> Judged | None:
    verdicts = ledger.judgements.verdicts()
    if not verdicts:  # few ask a judge, and the pools of many nights are long
        return None
    draws = ledger.judgements.draws()
    pools = {
        night_id: Counter(question.prompt_hash for question in held_out_pool(ledger, night_id))
        for night_id in {draw.night_id for draw in draws}
    }
    return judged(evidence, verdicts, draws, pools, challenger, rival)


def _measured(rows: Sequence[EvidenceRow], guarded: Sequence[str]) -> list[Tally]:
    """Checks of the suites that decide; where there are none, the loss on held-out rows."""
    for kind, sign in (("checks", 1.0), ("loss", -1.0)):
        gains = [
            sign * (row.challenger - row.rival)
            for row in rows
            if row.kind == kind and row.suite not in guarded
        ]
        if gains:
            wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
            return [Tally("checks" if kind == "checks" else "loss", wins, losses, len(gains) - wins - losses)]
    return []


def _guard(rows: Sequence[EvidenceRow], suite: str, margin: float) -> Guard:
    of_suite = [row for row in rows if row.kind == "checks" and row.suite == suite]
    only_rival = sum(row.rival > row.challenger for row in of_suite)
    only_challenger = sum(row.challenger > row.rival for row in of_suite)
    return Guard(suite, only_rival, only_challenger, len(of_suite), margin)
