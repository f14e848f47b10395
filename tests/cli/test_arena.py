"""`nomoat arena` and `nomoat votes` with models made of a line of code: blind, fair, and kept."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from helpers.commands import as_json, nomoat
from helpers.votes import kept
from helpers.workspaces import held_out, ledger_path, start_night, two_generations
from nomoat.chat.conversation import Conversation
from nomoat.cli import arena, votes
from nomoat.cli.match import Match
from nomoat.cli.served import ServedModel
from nomoat.data.readers import read_rows
from nomoat.data.rows import PreferenceRow
from nomoat.engine.base import Sampling
from nomoat.errors import EngineError
from nomoat.evaluate.battle import Contestant, Question
from nomoat.ledger.rows import REASONS
from nomoat.ledger.store import Ledger


class Parrot:
    """Answers with its own word and what was asked; remembers the samplings."""

    n_ctx = 600

    def __init__(self, name: str, word: str) -> None:
        self.name, self.word = name, word
        self.samplings: list[Sampling] = []

    def prompt_tokens(self, conversation: Conversation) -> int:
        return sum(len(message.content.split()) for message in conversation.messages)

    def text_tokens(self, text: str) -> int:
        return 1

    def stream(self, conversation: Conversation, sampling: Sampling) -> Generator[str, None, None]:
        if self.prompt_tokens(conversation) >= self.n_ctx:
            raise EngineError("the conversation is too long")
        self.samplings.append(sampling)
        yield f"{self.word}: "
        yield conversation.messages[-1].content

    def close(self) -> None: ...


WORDS = {"gen-0002": "Better", "gen-0001": "Good", "base (embedded)": "Poor"}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two generations with three held-out prompts, the first of them the champion; files are not opened."""
    monkeypatch.chdir(tmp_path)
    two_generations(tmp_path, lambda _: [held_out(n) for n in range(3)])

    def served(name: str, file: str) -> ServedModel:
        return ServedModel(name, tmp_path / ".nomoat" / "artifacts" / file, tmp_path, 64)

    def find(workspace: Path, which: str) -> ServedModel:
        number = {"latest": 2, "champion": 1}.get(which) or int(which[-1])
        return served(f"gen-{number:04d}", f"quantize-{number}/night-Q8_0.gguf")

    monkeypatch.setattr("nomoat.evaluate.battle.SELF_SHARE", 0.0)
    monkeypatch.setattr("nomoat.evaluate.battle.PROBE_SHARE", 0.0)
    base = served("base (embedded)", "quantize-9/base-Q8_0.gguf")
    monkeypatch.setattr("nomoat.cli.served.find_generation", find)
    for where in ("served", "arena"):
        monkeypatch.setattr(f"nomoat.cli.{where}.find_base", lambda *_: base)
    monkeypatch.setattr(
        "nomoat.cli.talkers.GgufTalker.open", lambda found, context: Parrot(found.name, WORDS[found.name])
    )
    return tmp_path


def test_a_vote_is_blind_until_it_is_cast_and_then_kept_whole(workspace: Path) -> None:
    result = nomoat("arena", "--voter", "ada", typed="Tell me.\nx\n1\n")
    assert result.exit_code == 0, result.output
    before, after = result.stdout.split("Kept: ", 1)
    assert "gen-000" not in before
    assert "base" not in before
    assert "Better: Tell me." in before
    assert "Good: Tell me." in before
    assert "1 or 2: the better answer; t: a tie; b: both bad; s: skip" in before  # x is none of them
    assert "gen-0001" in after
    assert "gen-0002" in after
    (vote,) = kept(workspace)
    assert (vote.verdict, vote.voter, vote.source, vote.suite) == ("left", "ada", "typed", None)
    assert {vote.left_model, vote.right_model} == {"quantize-1/night-Q8_0.gguf", "quantize-2/night-Q8_0.gguf"}
    word = {"gen-0002": "Better", "gen-0001": "Good"}
    assert vote.left_answer == f"{word[vote.left_name]}: Tell me."
    assert vote.right_answer == f"{word[vote.right_name]}: Tell me."
    assert vote.prompt == {"messages": [{"role": "user", "content": "Tell me."}]}
    assert (vote.sampling["temperature"], vote.sampling["max_new_tokens"]) == (0.7, 512)
    assert vote.seconds is not None


def test_enter_draws_a_held_out_prompt_and_every_key_is_its_verdict(workspace: Path) -> None:
    found = as_json("arena", typed="\n1\n\n2\n\nt\n\nB\n\ns\n")
    assert found.keys() == arena.KEYS.keys()
    assert found["cast"] == 4
    assert (found["gate"]["challenger"], found["gate"]["rival"]) == ("gen-0002", "gen-0001")
    assert found["gate"]["weighed"][0]["source"] == "votes"
    cast = kept(workspace)
    assert sorted(vote.verdict for vote in cast) == ["both bad", "left", "right", "tie"]
    assert {vote.source for vote in cast} == {"pool"}
    assert {vote.suite for vote in cast} == {"heldout"}
    assert {vote.prompt_id for vote in cast} <= {"p0", "p1", "p2"}
    with Ledger.open(ledger_path(workspace)) as ledger:
        drawn = ledger.judgements.draws()
    assert [draw.vote_key for draw in drawn[:4]] == [vote.key for vote in cast]
    assert (len(drawn), drawn[4].vote_key) == (5, None), "what was skipped was drawn too"
    assert [draw.prompt_hash for draw in drawn[:4]] == [vote.prompt_hash for vote in cast]
    assert {draw.night_id for draw in drawn} == {2}


def test_a_file_of_ones_own_is_no_pool_that_was_held_out(workspace: Path) -> None:
    """Whoever chooses the prompts may choose them for one of the two: links and judges take drawn ones alone."""
    row = {"id": "mine", "messages": [{"role": "user", "content": "Hello?"}]}
    Path("mine.jsonl").write_text(json.dumps(row) + "\n")
    as_json("arena", "--prompts", "mine.jsonl", typed="\n1\n")
    (vote,) = kept(workspace)
    assert (vote.source, vote.suite, vote.prompt_id) == ("typed", "mine", "mine")


def test_a_vote_may_have_a_reason(workspace: Path) -> None:
    as_json("arena", typed="One\n1  It is shorter.\nTwo\nT\n")
    with Ledger.open(ledger_path(workspace)) as ledger:
        assert ledger.judgements.draws() == (), "nobody drew what was typed"
    assert [(vote.verdict, vote.note) for vote in kept(workspace)] == [
        ("left", "It is shorter."),
        ("tie", None),
    ]


def test_what_decided_a_vote_is_kept_and_counted_by_pair(workspace: Path) -> None:
    result = nomoat("arena", typed="One\n1 +len +co kinder\nTwo\n2 +c\n2 +INSTRUCTIONS\nThree\nt +style\n")
    assert result.exit_code == 0, result.output
    assert "+c is none or several of: +correctness, +instructions, " in result.stdout
    cast = kept(workspace)
    assert [(vote.verdict, vote.reasons, vote.note) for vote in cast] == [
        ("left", ["correctness", "length"], "kinder"),
        ("right", ["instructions"], None),
        ("tie", ["style"], None),
    ]
    (pair,) = as_json("arena", "--standings")["pairs"]
    won = {
        vote.reasons[0]: vote.left_name if vote.verdict == "left" else vote.right_name for vote in cast[:2]
    }  # type: ignore[index]
    assert pair["why"] == [
        {"reason": reason, "wins": int(winner == pair["one"]), "losses": int(winner == pair["other"])}
        for reason, winner in (
            ("correctness", won["correctness"]),
            ("instructions", won["instructions"]),
            ("length", won["correctness"]),
        )
    ]
    assert "why" in nomoat("arena", "--standings").stdout
    assert all(f"+{reason} " in arena.EPILOG for reason in REASONS)


def test_with_a_prompt_of_ones_own_one_may_go_on_and_the_vote_is_about_all_of_it(workspace: Path) -> None:
    result = nomoat(
        "arena", typed="One\ng\ng And then?\ng " + "far too long " * 300 + "\n2 kinder\n\ng More\ns\n"
    )
    assert result.exit_code == 0, result.output
    assert "gen-000" not in result.stdout.split("Kept: ")[0]
    assert "Better: And then?" in result.stdout
    assert "Not answered: the conversation is too long" in result.stdout
    drawn = result.stdout.split("Held out")[1]
    assert "say more to both" not in drawn, "those that were drawn end with their answers"
    (vote,) = kept(workspace)
    word = {"gen-0002": "Better", "gen-0001": "Good"}
    assert vote.turns == [
        {
            "asked": "And then?",
            "left": f"{word[vote.left_name]}: And then?",
            "right": f"{word[vote.right_name]}: And then?",
        }
    ]
    assert (vote.verdict, vote.note, vote.left_answer) == ("right", "kinder", f"{word[vote.left_name]}: One")


def test_a_prompt_that_cannot_be_answered_is_told_and_the_next_is_asked_for(workspace: Path) -> None:
    result = nomoat("arena", typed="far too long " * 300 + "\nOne\n1\n")
    assert result.exit_code == 0, result.output
    assert "Not answered: the conversation is too long\n" in result.stdout
    assert [vote.left_answer.split(": ")[1] for vote in kept(workspace)] == ["One"]


def test_a_probe_is_told_with_its_vote_and_measures_the_voter_alone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.evaluate.battle.PROBE_SHARE", 1.0)
    found = nomoat("arena", typed="\n1\nOne\n2\n")
    assert "This one was to check the voter: answer " in found.stdout
    probe, typed = kept(workspace)
    assert (typed.better, typed.source) == (None, "typed"), "what was typed is never a probe"
    assert probe.left_model == probe.right_model
    asked = probe.prompt["messages"][0]["content"]
    answers = {"left": probe.left_answer, "right": probe.right_answer}
    assert probe.better is not None
    assert answers.pop(probe.better) == f"Better: {asked}"
    assert asked not in answers.popitem()[1]
    (voter,) = as_json("arena", "--standings")["voters"]
    assert (voter["votes"], voter["probes"], voter["missed"]) == (2, 1, int(probe.better == "right"))


def test_leaving_at_the_vote_keeps_none(workspace: Path) -> None:
    result = nomoat("arena", typed="Tell me.\n")
    assert result.exit_code == 0
    assert "No vote on this one." in result.stdout
    assert "gen-0001" not in result.stdout.split("Gate:")[0]
    assert kept(workspace) == ()


def test_the_same_answer_twice_is_no_question(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORDS, "gen-0001", "Better")
    assert "there is nothing to choose, and no vote." in nomoat("arena", typed="Tell me.\n").stdout
    assert kept(workspace) == ()


def test_who_meets_whom(workspace: Path) -> None:
    as_json("arena", "gen-0001", typed="Q\n1\n")  # the champion itself: against its base
    as_json("arena", "2", "base", typed="Q\n1\n")
    names = [{vote.left_name, vote.right_name} for vote in kept(workspace)]
    assert names == [{"gen-0001", "base (embedded)"}, {"gen-0002", "base (embedded)"}]
    result = nomoat("arena", "2", "gen-0002")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "Error: gen-0002 against itself: give two different models, such as: nomoat arena 2 base",
    )


def test_prompts_of_ones_own(workspace: Path) -> None:
    file = workspace / "mine.jsonl"
    file.write_text('{"id": "x", "messages": [{"role": "user", "content": "My own"}]}\n')
    as_json("arena", "--prompts", "mine.jsonl", typed="\nt\n")
    (vote,) = kept(workspace)
    assert (vote.suite, vote.prompt_id, vote.left_answer.split(": ")[1]) == ("mine", "x", "My own")
    shown = nomoat("arena", "--prompts", "mine.jsonl", typed="").stdout
    assert "Enter draws one of 1 prompt, or type a prompt" in shown, "nobody has held it out"


def match(seed: int, self_share: float = 0.0) -> tuple[Match, Parrot, Parrot]:
    one, other = Parrot("one", "A"), Parrot("other", "B")
    pair = (Contestant("one", "m/1"), one), (Contestant("other", "m/2"), other)
    pool = [Question.typed(str(n)) for n in range(3)]
    made = Match(pair, pool, Sampling(temperature=0.7), chance=random.Random(seed), self_share=self_share)
    return made, one, other


def test_sides_and_prompts_are_drawn_evenly_and_both_sample_alike() -> None:
    game, one, other = match(1)
    rounds = [game.ask(game.draw()) for _ in range(600)]  # type: ignore[arg-type]
    sides = Counter(found.draw.left.name for found in rounds)
    assert 250 < sides["one"] < 350
    asked = Counter(found.question.conversation.messages[0].content for found in rounds)
    assert min(asked.values()) > 150
    assert one.samplings == other.samplings
    assert len({sampling.seed for sampling in one.samplings}) > 590
    for found in rounds:
        assert found.left_answer.startswith("A" if found.draw.left.name == "one" else "B")


def test_both_answers_are_whole_before_the_clock_starts() -> None:
    game, one, other = match(2)
    told: list[int] = []
    game._clock = lambda: told.append(len(one.samplings) + len(other.samplings)) or 5.0  # type: ignore[func-returns-value]
    found = game.ask(Question.typed("Q"))
    assert (told, found.shown_at_s) == ([2], 5.0)
    assert found.vote("left", "ada", 7.5).seconds == 2.5


def test_now_and_then_a_model_meets_itself_with_another_seed() -> None:
    game, one, other = match(3, self_share=0.05)
    rounds = [game.ask(Question.typed("Q")) for _ in range(600)]
    twice = [found for found in rounds if found.draw.left == found.draw.right]
    assert 15 < len(twice) < 50
    assert {found.draw.left.name for found in twice} == {"one"}
    assert all(found.draw.left_sampling.seed + 1 == found.draw.right_sampling.seed for found in twice)
    assert len(one.samplings) + len(other.samplings) == 1200


def test_both_sides_have_the_same_cap_where_one_has_said_more() -> None:
    game, one, other = match(4)
    one.n_ctx, other.n_ctx = 40, 30
    found = game.ask(Question.typed("one two three"))
    assert {sampling.max_new_tokens for sampling in one.samplings + other.samplings} == {27}
    assert found.vote("left", "ada", 9.0).sampling["max_new_tokens"] == 27
    game.go_on(found, "and four")
    assert one.samplings[-1].max_new_tokens == other.samplings[-1].max_new_tokens == 30 - 3 - 4 - 2


def play(workspace: Path, pairs: list[tuple[str, str]], better: dict[str, float], n: int) -> None:
    """Votes by a program that prefers the model of more strength, most of the time."""
    chance = random.Random(4)
    talkers = {name: Parrot(name, word) for name, word in WORDS.items()}
    models = {"gen-0001": "quantize-1/night-Q8_0.gguf", "gen-0002": "quantize-2/night-Q8_0.gguf"}
    with Ledger.open(ledger_path(workspace)) as ledger:
        for one, other in pairs:
            sides = (
                (Contestant(w, models.get(w, "quantize-9/base-Q8_0.gguf")), talkers[w]) for w in (one, other)
            )
            game = Match(list(sides), [], Sampling(), chance=chance)
            cast = []
            for number in range(n):
                found = game.ask(Question.typed(f"{one} {other} {number}"))
                gap = better[found.draw.left.name] - better[found.draw.right.name]
                left_wins = chance.random() < 1 / (1 + 10 ** (-gap / 400))
                cast.append(found.vote("left" if left_wins else "right", "bot", 1.0))
            ledger.judgements.add_votes(cast)


def test_standings_tell_strength_with_its_interval_and_who_cannot_be_compared(workspace: Path) -> None:
    strength = {"gen-0002": 200.0, "gen-0001": 100.0, "base (embedded)": 0.0}
    pairs = [("gen-0002", "gen-0001"), ("gen-0001", "base (embedded)")]
    play(workspace, pairs, strength, 300)
    found = as_json("arena", "--standings")
    assert found.keys() == arena.STANDINGS_KEYS.keys()
    assert found["anchor"] == "base (embedded)"
    assert [one["name"] for one in found["standings"]] == ["gen-0002", "gen-0001", "base (embedded)"]
    for one in found["standings"][:2]:
        assert one["points"]["low"] < strength[one["name"]] < one["points"]["high"]
    assert found["standings"][2]["points"]["value"] == 0.0
    first, second = found["pairs"]
    assert {first["better"], second["better"]} == {"gen-0002", "gen-0001"}
    assert (first["needed"], first["wins"] + first["losses"]) == (None, 300)
    text = nomoat("arena", "--standings").stdout
    assert "gen-0002 is better" in text
    assert "Points above base (embedded); 400 are odds of 10 to 1." in text


def test_standings_without_votes_and_without_a_defeat(workspace: Path) -> None:
    assert nomoat("arena", "--standings").stdout == "No votes yet: nomoat arena\n"
    assert as_json("arena", "--standings")["standings"] == []
    play(workspace, [("gen-0002", "gen-0001")], {"gen-0002": 9000.0, "gen-0001": 0.0}, 5)
    (first, second) = as_json("arena", "--standings")["standings"]
    assert (first["points"], second["points"]) == (None, None)  # without a defeat its rating has no end
    assert {first["wins"], second["wins"]} == {5, 0}
    assert "not comparable yet" in nomoat("arena", "--standings").stdout


def test_votes_go_out_as_preferences_and_come_in_again(workspace: Path, tmp_path: Path) -> None:
    as_json("arena", typed="One\n1\nTwo\n2\nThree\nt\nFour\nb\n")
    before = kept(workspace)
    done = as_json("votes", "export", "out.jsonl")
    assert done.keys() == votes.KEYS.keys()
    counts = {"votes": 2, "decided": 2, "added": 0, "left_out": 2, "ratings": 0, "own_answers": 0}
    assert done == {"file": "out.jsonl", **counts, "remains": []}
    rows = [row for row in read_rows(tmp_path / "out.jsonl") if isinstance(row, PreferenceRow)]
    assert len(rows) == 2
    for row, vote in zip(rows, [v for v in before if v.verdict in ("left", "right")], strict=True):
        chosen, rejected = vote.left_answer, vote.right_answer
        if vote.verdict == "right":
            chosen, rejected = rejected, chosen
        assert (row.chosen[0].content, row.rejected[0].content) == (chosen, rejected)
        assert row.prompt.messages[0].content == vote.prompt["messages"][0]["content"]

    assert nomoat("votes", "export", "all.jsonl", "--all").stdout == "all.jsonl: 4 votes\n"
    assert nomoat("votes", "import", "all.jsonl").stdout == "all.jsonl: 4 votes, 0 of them new\n"
    other = tmp_path / "other"
    other.mkdir()
    with Ledger.open(ledger_path(other)) as ledger:
        start_night(ledger)
    found = as_json("votes", "import", "all.jsonl", "--workspace", "other")
    assert (found["votes"], found["decided"], found["added"]) == (4, 2, 4)
    after = kept(other)
    assert [vote.key for vote in after] == [vote.key for vote in before]
    assert all(vote.imported_at for vote in after)


def test_a_file_that_holds_no_votes_is_told_line_by_line(workspace: Path) -> None:
    as_json("arena", typed="One\n1\n")
    as_json("votes", "export", "good.jsonl")
    good = json.loads((workspace / "good.jsonl").read_text())
    lines = [
        "{",
        '{"chosen": "a", "rejected": "b"}',
        json.dumps({"vote": good["vote"] | {"verdict": "lfet"}}),
        json.dumps({"vote": good["vote"] | {"votre": 1}}),
        json.dumps({"vote": {k: v for k, v in good["vote"].items() if k != "voter"}}),
        json.dumps({"vote": good["vote"] | {"prompt": {"messages": []}}}),
    ]
    (workspace / "bad.jsonl").write_text("\n".join([json.dumps(good), *lines]))
    result = nomoat("votes", "import", "bad.jsonl")
    assert result.exit_code == 2
    told = result.stderr.splitlines()
    assert told[0].startswith("Error: bad.jsonl:2: not JSON: ")
    assert (
        told[1]
        .strip()
        .startswith("bad.jsonl:3: vote: got nothing (null); expected an object, as `nomoat votes ex")
    )
    assert told[2].strip() == 'bad.jsonl:4: vote.verdict: got "lfet"; expected left, right, tie or both bad'
    assert told[3].strip() == 'bad.jsonl:5: vote.votre: unknown field. Did you mean "voter"?'
    name = "a name: one line of at most 300 characters"
    assert told[4].strip() == f"bad.jsonl:6: vote.voter: got nothing; expected {name}"
    assert told[5].strip().startswith("bad.jsonl:7: vote.prompt.messages: got an empty list")
    assert told[-1].strip() == "Nothing was imported."
    assert len(kept(workspace)) == 1
    for name, said in (("nowhere.jsonl", "is not there"), (".", "not UTF-8 text")):
        result = nomoat("votes", "import", name)
        assert result.exit_code == 2
        assert said in result.stderr


def test_without_votes_there_is_nothing_to_export(workspace: Path) -> None:
    result = nomoat("votes", "export", "out.jsonl")
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {workspace}: there are no votes yet\n  Cast some: nomoat arena\n",
    )
