"""Nights that learn from votes and from the owner's own answers, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.families import save_tiny
from helpers.nights import Watched, ledger_of, run, write_rows
from helpers.votes import VOTE, vote_on
from nomoat.chat.conversation import Conversation, Message
from nomoat.data.split import asked_keys
from nomoat.errors import DataError
from nomoat.evaluate.gatebook import LEARNED, base_model, learned_from
from nomoat.ledger.artifacts import HOUSE
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.feedback import add_own_answer, add_rating, withdraw_voter
from nomoat.ledger.rows import GenerationRow, Rating, Thumb, Vote
from nomoat.ledger.store import Ledger
from nomoat.night.feedback import ROWS, Feedback, find_own_answers, find_votes
from nomoat.night.sources import find_sources
from nomoat.recipe import Recipe
from nomoat.recipe_file import load_recipe


def learned_prompts(ledger: Ledger, generation: GenerationRow) -> set[str]:
    """What the votes and own answers that a generation has learned from ask."""
    rows = map(ledger.artifact, learned_from(ledger, generation.gguf_artifact or ""))
    return {key for row in rows if row.kind in LEARNED for key in row.meta["asked"]}


KEYS = ("prefer.max_seq_len=96", "prefer.tokens_per_step=512", "prefer.max_steps=4", "sft.max_steps=2")
FRUITS = ("fig", "plum", "pear", "lime")
HELD_OUT = "Which fruit is it, at last?"


def fruit_votes(count: int, voter: str = "ada") -> list[Vote]:
    """Votes on prompts of one's own; the better answer always ends in the same word."""
    return [
        vote_on(
            f"Which fruit, and where is the cat? ({n})",
            f"The {FRUITS[n % 4]} is on the mat now.",
            f"The {FRUITS[n % 4]} is on the mat or not, who knows?",
            left=n % 3 == 0,
            voter=voter,
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def words(base: Path, tmp_path: Path) -> tuple[str, ...]:
    """A recipe with a suite, whose one prompt has a check."""
    suite = {"messages": [{"role": "user", "content": HELD_OUT}], "checks": [{"kind": "words", "max": 9}]}
    (tmp_path / "suite.jsonl").write_text(json.dumps(suite) + "\n")
    rows = write_rows(tmp_path / "rows.jsonl")
    return (f"base={base}", f"data.train={rows}", f"evaluate.prompts={tmp_path / 'suite.jsonl'}", *KEYS)


def rows_of(workspace: Path, kind: str) -> list[list[dict[str, Any]]]:
    """The rows of every artifact of a kind, oldest first."""
    folders = sorted(
        workspace.glob(f"{HOUSE}/artifacts/{kind}-*"), key=lambda folder: folder.stat().st_mtime_ns
    )
    return [[json.loads(line) for line in (f / ROWS).read_text().splitlines()] for f in folders]


def test_votes_are_learned_from_with_where_they_came_from(words: tuple[str, ...], tmp_path: Path) -> None:
    words = (*words, "prefer.votes=only", "evaluate.max_new_tokens=4")
    first = Watched()
    run(tmp_path, *words, watcher=first)
    assert "prefer.votes: only, and there are none to learn from; tonight nothing is preferred" in first.notes
    assert "prefer" not in dict(first.stages)

    tie = vote_on("A tie?", "One.", "Two.", verdict="tie")
    in_pool = vote_on(HELD_OUT.upper(), "A fig.", "A plum.", source="pool", suite="suite")
    in_talk = vote_on("And now?", "A fig.", "A plum.")
    then = {"asked": "Is it ripe?", "left": "The fig is ripe.", "right": "Who knows?"}
    talked = vote_on("And which fruit, and when?", "Now.", "No, now.", voter="bob", turns=[then])
    probe = vote_on("A probe?", "A fig.", "A plum.", right_model=VOTE.left_model, better="left")
    in_talk.prompt["messages"][:0] = [
        {"role": "user", "content": HELD_OUT},
        {"role": "assistant", "content": "Wait."},
    ]
    with ledger_of(tmp_path) as ledger:
        cast = [*fruit_votes(60), *fruit_votes(3, "bob"), talked, tie, in_pool, in_talk, probe]
        ledger.judgements.add_votes(cast)
    second = Watched()
    night = run(tmp_path, *words, watcher=second)
    left_out = "2 on held-out prompts, 1 to check the voter, 1 undecided"
    assert f"64 votes to learn from (60 ada's, 4 bob's); left out: {left_out}" in second.notes
    assert dict(second.stages)["prefer"] == "done"
    assert night.trainings[-1].facts["best_accuracy"] > 0.5
    (rows,) = rows_of(tmp_path, "votes")
    assert len(rows) == 64
    (longer,) = [row for row in rows if len(row["chosen"]) > 1]
    assert [m["content"] for m in longer["chosen"]] == ["Now.", "Is it ripe?", "The fig is ripe."]
    assert [m["content"] for m in longer["rejected"]] == ["No, now.", "Is it ripe?", "Who knows?"]
    assert all(row["chosen"][0]["content"].lower().endswith("now.") for row in rows)
    assert not any("at last" in json.dumps(row).lower() for row in rows)
    with ledger_of(tmp_path) as ledger:
        newest, *_ = ledger.generations()
        assert newest.gguf_artifact is not None
        node = ledger.lineage(newest.gguf_artifact)
        kinds = [node.kind]
        while node.inputs and node.kind != "votes":
            node = next(below for below in node.inputs if below.kind in PATH)
            kinds.append(node.kind)
        assert kinds == ["quantize", "merge", "prefer", "judgements", "votes"]
        meta = ledger.artifact(node.id).meta
        assert meta["votes"] == [
            vote.id for vote in ledger.judgements.votes() if "fruit, and" in str(vote.prompt)
        ]
        assert meta["voters"] == {"ada": 60, "bob": 4}
        asked = Message("user", "And which fruit, and when?"), Message("user", "Is it ripe?")
        assert set(asked_keys(Conversation(asked))) <= learned_prompts(ledger, newest)
        typed = Conversation((Message("user", "Which fruit, and where is the cat? (7)"),))
        assert asked_keys(typed)[0] in learned_prompts(ledger, newest)
        assert learned_prompts(ledger, ledger.generation(1)) == set()

    again = Watched()
    run(tmp_path, *words, watcher=again)
    assert {how for _, how in again.stages} == {"reused"}, "no new vote, nothing to do"
    with ledger_of(tmp_path) as ledger:
        withdraw_voter(ledger, "bob", erase=False)
    third = Watched()
    run(tmp_path, *words, watcher=third)
    assert dict(third.stages)["prefer"] == "done"
    assert {row["voter"] for row in rows_of(tmp_path, "votes")[-1]} == {"ada"}


def thumb(asked: str, answer: str, verdict: Thumb, voter: str = "ada") -> Rating:
    prompt = {"messages": [{"role": "user", "content": asked}]}
    key = canonical_key(prompt)
    return Rating(
        voter=voter,
        verdict=verdict,
        model="m/1",
        model_name="gen-0001",
        prompt_hash=key,
        prompt=prompt,
        answer=answer,
    )


def test_thumbs_are_pairs_where_one_is_up_and_one_down_and_ratings_to_kto(tmp_path: Path) -> None:
    said = [
        thumb("Which?", "A fig.", "up"),
        thumb("Which?", "A plum.", "down"),
        thumb("Which?", "A pear.", "down"),
        thumb("Which?", "A lime.", "down", voter="bob"),
        thumb("Alone?", "Yes.", "up"),
        thumb("Empty?", " ", "up"),
    ]

    def found(loss_type: str) -> Feedback | None:
        recipe = Recipe.model_validate({"prefer": {"loss_type": loss_type, "votes": "only"}})
        with ledger_of(tmp_path) as ledger:
            return find_votes(recipe, find_sources(recipe, tmp_path), ledger)

    with ledger_of(tmp_path) as ledger:
        for one in said:
            add_rating(ledger, one)
    pairs, rated = found("sigmoid"), found("kto")
    assert pairs is not None
    assert rated is not None
    told = [
        (row["chosen"][0]["content"], row["rejected"][0]["content"], row["ratings"]) for row in pairs.rows
    ]
    assert told == [("A fig.", "A plum.", [1, 2]), ("A fig.", "A pear.", [1, 3])]
    left_out = "1 on an empty answer, 2 with no other to compare with"
    assert pairs.said == f"3 thumbs to learn from (3 ada's); left out: {left_out}"
    assert pairs.meta["ratings"] == [1, 2, 3]
    assert [row["label"] for row in rated.rows] == [True, False, False, False, True]


def test_what_holds_nearly_what_a_suite_asks_is_listed_or_left_out(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """The test that rows are put to; what asks exactly the same is never learned from."""
    suite = "Which fruit lies under the old tree at the end of the long road?"
    talk = {"messages": [{"role": "user", "content": suite}]}
    (tmp_path / "suite.jsonl").write_text(json.dumps(talk) + "\n")
    near = suite.replace("?", " today?")
    with ledger_of(tmp_path) as ledger:
        bad = vote_on(near, "A fig.", "A plum.", verdict="both bad")
        quoted = vote_on("Say it.", suite, "A plum.")
        ledger.judgements.add_votes(
            [vote_on(near, "A fig.", "A plum."), bad, quoted, vote_on("Else?", "1", "2")]
        )
        for answer, verdict in (("A fig.", "up"), ("A plum.", "down")):
            add_rating(ledger, thumb(near, answer, verdict))  # type: ignore[arg-type]
        for vote in ledger.judgements.votes():
            add_own_answer(ledger, vote, "ada", "A fig.")

    def told(how: str) -> list[str]:
        loaded = load_recipe(None, [*words, f"data.decontaminate={how}"])
        sources = find_sources(loaded.recipe, tmp_path)
        with ledger_of(tmp_path) as ledger:
            found = [find(loaded.recipe, sources, ledger) for find in (find_votes, find_own_answers)]
        assert all(found)
        return [one.said for one in found if one]

    rest = "hold what held-out prompts ask: data.decontaminate: remove leaves them out"
    assert told("list") == [
        f"3 votes and 2 thumbs to learn from (5 ada's); left out: 1 undecided; 4 {rest}",
        f"3 own answers to learn from (3 ada's); 1 {rest}",
    ]
    assert told("remove") == [
        "1 vote to learn from (1 ada's); left out: 5 contaminated",
        "2 own answers to learn from (2 ada's); left out: 2 contaminated",
    ]


PATH = ("merge", "prefer", "judgements", "votes")


def test_votes_join_the_owners_pairs_and_without_sft_too_few_are_told(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    row = {"prompt": "Which?", "chosen": "This one.", "rejected": "That one."}
    pairs.write_text("".join(json.dumps(row | {"prompt": f"Which? ({n})"}) + "\n" for n in range(40)))
    words = (*words, "sft=null")
    run(tmp_path, *words, f"prefer.train={pairs}")
    with pytest.raises(DataError, match="prefer.votes: only, and there are none to learn from\n  Cast some"):
        run(tmp_path, *words, "prefer.votes=only")
    both_bad = vote_on("Bad?", "One.", "Two.", verdict="both bad")
    with ledger_of(tmp_path) as ledger:
        ledger.judgements.add_votes([*fruit_votes(3), both_bad])
    night = run(tmp_path, *words, f"prefer.train={pairs}")
    assert night.data_reports[0]["rows"]["read"] == 43
    run(tmp_path, *words, f"prefer.train={pairs}", "prefer.votes=false")
    with pytest.raises(DataError, match="there are too few yet: 3 votes to learn from"):
        run(tmp_path, *words, "prefer.votes=only")
    with ledger_of(tmp_path) as ledger:
        ledger.judgements.add_votes(fruit_votes(60))
    run(tmp_path, *words, "prefer.votes=only", "prefer.loss_type=kto")
    rated = rows_of(tmp_path, "votes")[-1]
    assert len(rated) == 2 * 61
    assert [row["label"] for row in rated if "Bad?" in str(row["prompt"])] == [False, False]


def test_an_own_answer_becomes_a_row_of_sft(words: tuple[str, ...], tmp_path: Path) -> None:
    words = (*words, "prefer.votes=only")
    run(tmp_path, *words)
    with ledger_of(tmp_path) as ledger:
        asked = vote_on("Where is the hen?", "One.", "Two.", verdict="both bad")
        ledger.judgements.add_votes([asked, vote_on(HELD_OUT, "A fig.", "A plum.", verdict="both bad")])
        for vote in ledger.judgements.votes():
            add_own_answer(ledger, vote, "ada", "The hen sat on the wall.")
    watcher = Watched()
    night = run(tmp_path, *words, watcher=watcher)
    assert "1 own answer to learn from (1 ada's); left out: 1 on held-out prompts" in watcher.notes
    assert night.data_reports[0]["rows"]["read"] == 61
    ((row,),) = rows_of(tmp_path, "own_answers")
    assert row["messages"][-1] == {"role": "assistant", "content": "The hen sat on the wall."}
    assert (row["voter"], row["vote"]) == ("ada", 1)
    with ledger_of(tmp_path) as ledger:
        (key,) = asked_keys(Conversation((Message("user", "Where is the hen?"),)))
        assert learned_prompts(ledger, ledger.generations()[0]) == {key}


def test_an_own_answer_to_a_held_out_row_is_held_out_however_rows_are_split(
    base: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    words = (f"base={base}", f"data.train={rows}", "data.split_by=content", "sft.max_steps=2")
    first = run(tmp_path, *words)
    held_out = Path(HOUSE) / "artifacts" / first.stages[0].artifact_id / "held_out.jsonl"
    asked = [json.loads(line)["messages"][0] for line in (tmp_path / held_out).read_text().splitlines()]
    with ledger_of(tmp_path) as ledger:
        sampled = {sample.prompt[0]["content"] for sample in ledger.samples(1)}
        votes = [
            vote_on(m["content"], "A", "B", verdict="both bad") for m in asked if m["content"] in sampled
        ]
        ledger.judgements.add_votes(votes)
        for n, vote in enumerate(ledger.judgements.votes()):
            add_own_answer(ledger, vote, "ada", f"The hen sat on the wall {n}.")
    assert len(votes) > 1
    again = run(tmp_path, *words)
    assert again.data_reports[0]["rows"]["held_out"] == first.data_reports[0]["rows"]["held_out"] + len(votes)


def test_a_model_made_from_an_earlier_one_has_learned_what_that_one_has(base: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    first = run(tmp_path, f"base={base}", f"data.train={rows}", "sft.max_steps=2")
    others = write_rows(tmp_path / "others.jsonl", 80)
    run(tmp_path, f"base={tmp_path / first.model_path}", f"data.train={others}", "sft.max_steps=2")
    with ledger_of(tmp_path) as ledger:
        one, two = (ledger.generation(number) for number in (1, 2))
        of_base = base_model(ledger, two)
        assert of_base and one.gguf_artifact and two.gguf_artifact
        learned = learned_from(ledger, one.gguf_artifact)
        assert {name.partition("-")[0] for name in learned} == {"data"}
        assert learned_from(ledger, of_base.partition("/")[0]) == learned
        assert learned < learned_from(ledger, two.gguf_artifact)
