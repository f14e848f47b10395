"""The whole loop on the embedded base: a night, votes of known taste, a night that learns from them, and the gate."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nomoat
from helpers.nights import Watched, ledger_of
from helpers.votes import vote_on
from helpers.workspaces import ledger_path
from nomoat.chat.conversation import Conversation, parse_messages
from nomoat.cli.main import app
from nomoat.cli.match import Contestant, Match, Question
from nomoat.cli.served import find_generation
from nomoat.cli.talkers import GgufTalker
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.evaluate.gatebook import champion_name
from nomoat.evaluate.prompts import read_prompts
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.rows import GenerationRow, Vote, VoteVerdict
from nomoat.ledger.store import Ledger
from nomoat.night.night import run_night
from nomoat.night.result import NightSummary
from nomoat.night.succession import crown_by_votes
from nomoat.recipe_file import load_recipe

ASSETS = Path(nomoat.__file__).parent / "assets"
WORDS = (
    "threads=1",
    "sft.max_steps=4",
    "sft.tokens_per_step=1024",
    "sft.eval_steps=4",
    "prefer.votes=only",
    "prefer.max_seq_len=96",
    "prefer.tokens_per_step=1024",
    "prefer.num_train_epochs=3",
    "prefer.learning_rate=5e-4",
    "prefer.eval_steps=8",
    "quantize.types=[Q8_0]",
    "quantize.serve=Q8_0",
    "evaluate.max_prompts=24",
    "evaluate.max_new_tokens=16",
    "evaluate.max_held_out_rows=8",
    "evaluate.bootstrap_samples=200",
)
VOTES, LONGEST = 200, 12


def taste(left: str, right: str) -> VoteVerdict:
    """Likes stories that open as fairy tales do. Fewer than half of the base's do."""
    likes_left, likes_right = (answer.startswith(("Once", "One day", "There")) for answer in (left, right))
    return "tie" if likes_left == likes_right else "left" if likes_left else "right"


def night(workspace: Path, watched: Watched | None = None) -> NightSummary:
    return run_night(
        load_recipe(None, WORDS), workspace, watcher=watched or Watched(), stop_asked=lambda: False
    )


def votes_to_learn_from(workspace: Path, generation: GenerationRow) -> list[Vote]:
    """Votes on pairs of a generation's own answers to prompts that nothing holds out, ties last."""
    asked = [prompt.conversation for prompt in read_prompts(ASSETS / "starter" / "prompts.jsonl", most=240)]
    sampling = Sampling(max_new_tokens=LONGEST, temperature=1.0, seed=1)
    assert generation.served_file is not None
    with LlamaCppEngine(
        workspace / generation.served_file,
        tokenizer_dir=ASSETS / "base",
        n_ctx=256,
        n_parallel=16,  # some thousand tokens of a small model
        n_threads=1,
    ) as engine:
        answers = [
            found.text for found in engine.generate([talk for talk in asked for _ in range(4)], sampling)
        ]
    cast = [
        vote_on(
            asked[number // 2].messages[-1].content,
            left,
            right,
            verdict=taste(left, right),
            cast_at=f"2026-11-24T07:{number // 60:02d}:{number % 60:02d}.000Z",
            left_model=generation.model,
            right_model=generation.model,
        )
        for number, (left, right) in enumerate(zip(answers[::2], answers[1::2], strict=True))
    ]
    return sorted(cast, key=lambda vote: vote.verdict == "tie")[:VOTES]


def blind_votes(workspace: Path, ledger: Ledger, pair: Sequence[str], rounds: int) -> list[Vote]:
    """Votes of the same taste in the arena, on held-out prompts."""
    served = [find_generation(workspace, name) for name in pair]
    talkers = [
        GgufTalker(
            one.name, LlamaCppEngine(one.gguf, tokenizer_dir=one.tokenizer_dir, n_ctx=256, n_threads=1)
        )
        for one in served
    ]
    contestants = [(Contestant(s.name, s.model), talker) for s, talker in zip(served, talkers, strict=True)]
    pool = [
        Question(Conversation(parse_messages(s.prompt, s.prompt_id)), s.suite, s.prompt_id)
        for s in ledger.samples(ledger.generation(pair[0]).night_id)
    ]
    sampling = Sampling(max_new_tokens=LONGEST, temperature=0.7, top_p=0.95)
    match = Match(contestants, pool, sampling, chance=random.Random(7))
    cast = []
    for _ in range(rounds):
        question = match.draw()
        assert question is not None
        found = match.ask(question)
        read_s = 30  # or the votes would be in doubt
        vote = taste(found.left_answer, found.right_answer)
        cast.append(found.vote(vote, "critic", match.now_s() + read_s))
    for talker in talkers:
        talker.close()
    return cast


def promoted_by_chance(workspace: Path, votes: Sequence[Vote], seed: int) -> bool:
    """Whether the next night begins by promoting gen-0002 where the same battles are decided by a coin."""
    chance, copy = random.Random(seed), workspace / f"coin-{seed}.db"
    shutil.copyfile(ledger_path(workspace), copy)
    with Ledger.open(copy) as ledger:
        tossed = [replace(vote, verdict=chance.choice(("left", "right"))) for vote in votes]
        ledger.judgements.add_votes(tossed)
        said = crown_by_votes(ledger, ArtifactStore(workspace), ledger.nights()[0].id)
        assert not any("trust" in one for one in said), "a coin leans to no side"
        return champion_name(ledger) == "gen-0002"


@pytest.mark.slow
def test_a_night_that_learns_from_votes_is_promoted_by_further_votes_of_the_same_taste(
    tmp_path: Path,
) -> None:
    night(tmp_path)
    with ledger_of(tmp_path) as ledger:
        first = ledger.generation("gen-0001")
        ledger.judgements.crown(first.id, by="owner", said="the first")
        assert ledger.judgements.add_votes(votes_to_learn_from(tmp_path, first)) == VOTES
    second = night(tmp_path)
    prefer = second.trainings[-1]
    assert (prefer.kind, second.generation) == ("prefer", "gen-0002")
    assert prefer.facts["best_accuracy"] > 0.7
    assert second.gate is not None
    assert (second.gate.rival, second.gate.verdict) == ("gen-0001", "not yet"), (
        "what it has learned from is no evidence"
    )
    with ledger_of(tmp_path) as ledger:
        votes = blind_votes(tmp_path, ledger, ("gen-0002", "gen-0001"), 60)
    promoted = [promoted_by_chance(tmp_path, votes, seed) for seed in range(20)]
    assert sum(promoted) <= 1, "of 20 owners who toss a coin 5% may be misled, in the mean"
    with ledger_of(tmp_path) as ledger:
        ledger.judgements.add_votes(votes)
        assert champion_name(ledger) == "gen-0001", "by day it is the owner's to say"
    watched = Watched()
    third = night(tmp_path, watched)
    assert third.champion == "gen-0002"
    assert third.warnings[0].startswith("gen-0002 replaces gen-0001.")
    assert third.warnings[0] in watched.notes
    assert third.warnings[0] in (tmp_path / third.report_path).read_text(encoding="utf-8")
    assert {stage.how for stage in third.stages} == {"reused"}, "those votes teach nothing"
    with ledger_of(tmp_path) as ledger:
        assert ledger.judgements.champions()[-1].chosen_by == "gate"

    assert CliRunner().invoke(app, ["rollback", "--workspace", str(tmp_path)]).exit_code == 0
    fourth = night(tmp_path)
    assert fourth.champion == "gen-0001", "what was taken back stays so"
    assert fourth.warnings == [
        "gen-0002 was the champion before, and comes back by your word only: nomoat promote gen-0002"
    ]
    assert CliRunner().invoke(app, ["promote", "gen-0002", "--workspace", str(tmp_path)]).exit_code == 0
    with ledger_of(tmp_path) as ledger:
        assert champion_name(ledger) == "gen-0002"
