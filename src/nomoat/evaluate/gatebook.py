"""The gate's verdict on a generation, computed from the ledger: at the end of its night, and again on any later day."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from nomoat.chat.conversation import Conversation, parse_messages, parse_tools
from nomoat.data.split import ASKED, asked_in_training, asked_keys
from nomoat.evaluate.ballots import between, count_votes, judged, links
from nomoat.evaluate.battle import Question, held_out_pool
from nomoat.evaluate.gate import BASE, GateVerdict, Guard, Judged, Tally, decide
from nomoat.evaluate.head_to_head import voters
from nomoat.evaluate.prompts import HELD_OUT_ROWS
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.rows import EvidenceRow, GenerationRow, OwnAnswerRow, Rating, SampleRow, Vote, VoteRow
from nomoat.ledger.store import Ledger

_DEFAULTS: dict[str, Any] = {"alpha": 0.05, "guard": [], "margin": 0.05}  # of nights before there was a gate
LEARNED = ("votes", "own_answers")
"""Kinds of artifacts whose meta says what they ask: what people said and a night has learned from."""
ROWS = ("data", "judgements", "prompts")
"""Kinds of artifacts with a file that says what they ask (`split.ASKED`): what the owner's files hold."""

_TAUGHT = "on prompts that a model has learned from"


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
    """Whom a generation has to beat: the champion (None: the base). Of the champion itself, whom it had followed."""
    history = ledger.judgements.champions()
    now = history[-1].generation_id if history else None
    if generation is None or now != generation.id:
        return now
    chosen = [n for n, row in enumerate(history) if row.generation_id == now and row.chosen_by != "rollback"]
    before = chosen[-1] - 1
    return history[before].generation_id if before >= 0 else None


def champion_name(ledger: Ledger) -> str:
    """Who is served: a generation's name or 'base'; '' where nobody was ever chosen."""
    champion = ledger.judgements.champion()
    if champion is None:
        return ""
    return BASE if champion.generation_id is None else ledger.generation(champion.generation_id).name


def verdict_on(ledger: Ledger, generation: GenerationRow, store: ArtifactStore) -> GateVerdict:
    """The verdict on a generation against its rival, from all the ledger holds of the two. `store` has the rows that
    they were trained on."""
    rival_id = rival_of(ledger, generation)
    measured = [row for row in ledger.judgements.evidence(generation.id) if row.rival_id == rival_id]
    night = ledger.night(measured[-1].night_id if measured else generation.night_id)
    settings = Settings.of(night.recipe_resolved)
    rows = [row for row in measured if row.night_id == night.id]
    rival = ledger.generation(rival_id) if rival_id is not None else None
    rival_model = rival.model if rival else base_model(ledger, generation)
    tallies = _measured(rows, settings.guard)
    cast, models = ledger.judgements.votes(), (generation.model, rival_model)
    reasons = no_evidence(ledger, cast, store)
    evidence = [vote for vote in cast if vote.id not in reasons]
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
        left_out=Counter(reasons[vote.id] for vote in between(cast, *models) if vote.id in reasons),
        doubts=_doubts(cast, list(between(evidence, *models)), settings.alpha),
    )


def base_model(ledger: Ledger, generation: GenerationRow) -> str | None:
    """How votes name the base's file that a generation's night compared it with; None where it had none."""
    for stage in ledger.stages(generation.night_id):
        row = ledger.artifact(stage.artifact_id) if stage.artifact_id else None
        if row and row.kind == "quantize" and row.meta.get("params", {}).get("name") == BASE:
            return f"{row.id}/{row.meta['files'][0]['file']}" if row.meta.get("files") else None
    return None


def held_out_asked(ledger: Ledger) -> set[str]:
    """What the nights so far have held out and had answered, or the arena has drawn of it, suites and rows alike, as
    `asked_keys`."""
    return sampled_keys(ledger, of_rows=False) | held_out_row_keys(ledger)


def held_out_row_keys(ledger: Ledger) -> set[str]:
    """Keys of the held-out rows that earlier nights had answered, or people have voted on here."""
    votes = ledger.judgements.votes()
    drawn = (vote for vote in votes if vote.source == "pool" and vote.imported_at is None)
    return sampled_keys(ledger, of_rows=True).union(*(asked_keys(conversation_of(v))[-1:] for v in drawn))


def sampled_keys(ledger: Ledger, *, of_rows: bool) -> set[str]:
    """What the answers of all nights were given to: the owner's held-out rows, or else prompts of suites."""
    return {
        key
        for night in ledger.nights()
        for key in _last_asked(s for s in ledger.samples(night.id) if (s.suite == HELD_OUT_ROWS) == of_rows)
    }


def _last_asked(samples: Iterable[SampleRow]) -> Iterator[str]:
    for sample in samples:
        yield from asked_keys(Conversation(parse_messages(sample.prompt, sample.prompt_id)))[-1:]


def learned_from(ledger: Ledger, files: str) -> set[str]:
    """The artifacts of the kinds `LEARNED` and `ROWS` that the artifact `files` was made from, by their ids."""
    found: set[str] = set()
    nodes = [ledger.lineage(files)]
    while nodes:
        node = nodes.pop()
        nodes += node.inputs
        if node.kind in (*LEARNED, *ROWS):
            found.add(node.id)
    return found


def no_evidence(ledger: Ledger, votes: Sequence[VoteRow], store: ArtifactStore) -> dict[int, str]:
    """Votes that tell what was taught and not who is better, by their ids, each with the reason: those on prompts that
    one of their two models has learned from, or may have, where what its rows ask cannot be read here. What a suite
    of its own night asks it has not."""
    asked = {vote.id: key for vote in votes for key in asked_keys(conversation_of(vote))[-1:]}
    met: defaultdict[str, set[int]] = defaultdict(set)
    for vote in votes:
        for model in (vote.left_model, vote.right_model):
            met[model] |= {vote.id} & asked.keys()
    reasons: dict[int, str] = {}
    for model, why in _learned(ledger, {m: {asked[n] for n in ids} for m, ids in met.items()}, store):
        for vote_id in met[model]:
            if (reason := why.get(asked[vote_id])) == _TAUGHT:
                reasons[vote_id] = reason
            elif reason:
                reasons.setdefault(vote_id, reason)
    return reasons


def taught_prompts(
    ledger: Ledger, prompts: Sequence[Question], store: ArtifactStore
) -> dict[str, frozenset[str]]:
    """Of each model the prompts, by their hash, a vote on which would be `no_evidence` for it."""
    asked = {one.prompt_hash: key for one in prompts for key in asked_keys(one.conversation)[-1:]}
    met = dict.fromkeys((model for model, *_ in _models(ledger)), frozenset(asked.values()))
    return {
        model: frozenset(prompt for prompt, key in asked.items() if key in why)
        for model, why in _learned(ledger, met, store)
    }


def _learned(
    ledger: Ledger, met: Mapping[str, Set[str]], store: ArtifactStore
) -> Iterator[tuple[str, dict[str, str]]]:
    """Of each model which of the `asked_keys` that it has met it has learned from, or may have, each with the
    reason."""
    every = frozenset(key for keys in met.values() for key in keys)

    @cache
    def taught_by(artifact_id: str) -> frozenset[str] | None:
        row = ledger.artifact(artifact_id)
        if row.kind in LEARNED:
            return every.intersection(row.meta["asked"])
        file = store.file(row.kind, row.key, ASKED)
        return None if file is None else frozenset(asked_in_training(file, every))

    done: set[str] = set()
    for model, files, name, night_id in _models(ledger):
        theirs = met.get(model)
        if model in done or not theirs:  # a base is that of many nights
            continue
        done.add(model)
        known = {made: taught_by(made) for made in learned_from(ledger, files)}
        taught = {key for keys in known.values() if keys for key in keys}
        unread = sorted(made for made, keys in known.items() if keys is None)
        kept_out = set(_last_asked(_of_suites(ledger, night_id))) if unread else set()
        rows = f"what {', '.join(unread)} asks cannot be read here"
        unknown = f"on prompts that {name} may have learned from ({rows})"
        yield (
            model,
            {
                key: _TAUGHT if key in taught else unknown
                for key in theirs
                if key in taught or (unread and key not in kept_out)
            },
        )


def _models(ledger: Ledger) -> Iterator[tuple[str, str, str, int]]:
    """Every generation that is served, and every base that one was compared with: how votes name it, the artifact of
    its files, how we call it, and its night."""
    for one in ledger.generations():
        if one.served_file and one.gguf_artifact:
            yield one.model, one.gguf_artifact, one.name, one.night_id
        if base := base_model(ledger, one):
            yield base, base.partition("/")[0], BASE, one.night_id


def evidence_of(ledger: Ledger, votes: Sequence[VoteRow], store: ArtifactStore) -> list[VoteRow]:
    """Its votes but those that are `no_evidence`."""
    reasons = no_evidence(ledger, votes, store)
    return [vote for vote in votes if vote.id not in reasons]


def _of_suites(ledger: Ledger, night_id: int) -> Iterator[SampleRow]:
    """What suites asked: held-out rows may ask what another row does in another dress."""
    return (sample for sample in ledger.samples(night_id) if sample.suite != HELD_OUT_ROWS)


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


def _doubts(cast: Sequence[VoteRow], counted: Sequence[VoteRow], alpha: float) -> list[str]:
    """Of those whose votes were counted, what all their votes say against it. They count all the same: to leave
    out voters by how they have voted could favour one of the two."""
    number = Counter(vote.voter for vote in counted)
    return [
        f"{number[one.name]:,} of {one.name}, who is flagged: {', '.join(one.flags)}"
        for one in voters(cast, confidence=1 - alpha)
        if one.flags and one.name in number
    ]


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
