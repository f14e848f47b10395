"""Rows that hold what a suite asks."""

from __future__ import annotations

import gzip
import json
import random
from itertools import pairwise
from pathlib import Path

from nomoat.chat.conversation import Conversation, Message
from nomoat.data import overlap
from nomoat.data.overlap import Question, find_overlaps
from nomoat.data.readers import read_rows
from nomoat.data.rows import BadRow, ChatRow, PreferenceRow, TextRow, Where

LONG = "Why did the old lighthouse keeper paint the door of his boat green before the storm came in from the north?"
SHORT = "Which bird sings at night?"


def row(line: int, *turns: str, system: str = "") -> ChatRow:
    roles = ["system"] * bool(system) + ["user", "assistant"] * len(turns)
    texts = [*([system] if system else []), *turns]
    messages = tuple(Message(r, t) for r, t in zip(roles, texts, strict=False))  # type: ignore[arg-type]
    return ChatRow(Where("a.jsonl", line), Conversation(messages))


def found(rows: list[ChatRow], *texts: str) -> list[tuple[str, str, str]]:
    questions = [Question("mine", str(number), text) for number, text in enumerate(texts)]
    return [(one.where, one.prompt, one.how) for one in find_overlaps(rows, questions)]


def test_the_same_question_in_another_dress() -> None:
    dressed = LONG.upper().replace(" ", "\n", 3).replace("?", " ...")
    assert found([row(7, dressed, "Because.")], SHORT, LONG) == [("a.jsonl:7", "1", "asks the same")]
    assert found([row(3, "which  bird SINGS at night", "The nightingale.")], SHORT) == [
        ("a.jsonl:3", "0", "asks the same")
    ]


def test_a_changed_word_is_near_and_its_similarity_is_said() -> None:
    # 21 words have 19 shingles; another last word changes one on each side: 18 / 20
    [(_, _, how)] = found([row(1, LONG.replace("north", "south"), "So.")], LONG)
    assert how == "asks nearly the same (0.90 of the shingles)"


def test_thirteen_words_in_a_row_anywhere_are_found_and_twelve_are_not() -> None:
    words = LONG.rstrip("?").split()
    [(_, _, how)] = found([row(1, "Tell me.", "He said: " + " ".join(words[3:16]) + ", they say.")], LONG)
    assert how == f'13 words in a row: "{" ".join(words[3:16]).lower()}"'
    assert found([row(1, "Tell me.", "He said: " + " ".join(words[3:15]) + ", they say.")], LONG) == []


def test_of_a_shorter_question_all_words_must_be_there_and_of_a_very_short_one_nothing_else() -> None:
    nine = "How many legs do three spiders and two ants have together?"
    assert found([row(1, f"I ask you: {nine} Think first.", "36.")], nine)
    assert not found([row(1, "I ask you: how many legs do three spiders have together?", "24.")], nine)
    assert not found([row(1, f"{SHORT} And which one by day, and why do they not sleep?", "x")], SHORT)


def test_what_was_asked_up_to_a_turn_counts_and_system_texts_do_not() -> None:
    two_turns = "Which bird sings at night?\nAnd which one by day?"
    talk = row(1, "Which bird sings at night?", "A nightingale.", "And which one by day?", "A lark.")
    assert found([talk], two_turns) == [("a.jsonl:1", "0", "asks the same")]
    assert found([row(1, "Hello.", "Hello.", system=LONG)], LONG) == []


def test_a_phrase_that_stands_in_many_rows_is_no_overlap_but_the_question_itself_is() -> None:
    preamble = "Answer the following question in one sentence and give a reason for it: "
    many = [row(n, f"{preamble} {' '.join(f'w{n}x{k}' for k in range(9))}", "x") for n in range(1, 13)]
    assert found(many[:10], preamble + "what is green?"), "ten are few enough to tell"
    assert found(many, preamble + "what is green?") == []
    assert len(found([row(n, LONG, f"{n}") for n in range(20)], LONG)) == 20


def test_documents_judged_answers_and_text_without_spaces() -> None:
    text = TextRow(Where("book.txt", 1), f"Chapter one. {LONG} Nobody knew.")
    pair = PreferenceRow(
        Where("pairs.jsonl", 4),
        Conversation((Message("user", "Tell me."),)),
        (Message("assistant", "No."),),
        (Message("assistant", LONG),),
    )
    hits = find_overlaps([text, pair], [Question("mine", "q", LONG)])
    assert [one.where for one in hits] == ["book.txt:1", "pairs.jsonl:4"]
    assert [one.row for one in hits] == [text.content_hash(), pair.content_hash()]
    asked = "为什么天空在日落的时候会变成红色的呢？"
    assert found([row(1, f"老师，{asked}", "因为光。")], asked)
    assert not found([row(1, "为什么海水是咸的呢？", "因为盐。")], asked)


def test_all_near_pairs_are_found_as_by_comparing_everything() -> None:
    chance = random.Random(5)

    def text() -> list[str]:
        return [chance.choice("abcdefg") for _ in range(chance.randint(1, 7))]

    def shingles(words: list[str]) -> set[tuple[str, ...]]:
        if len(words) < 3:
            return {tuple(words)}
        return {(a, b, c) for (a, b), (_, c) in pairwise(pairwise(words))}

    asked, questions = [text() for _ in range(400)], [text() for _ in range(300)]
    expected = set()
    for r, mine in enumerate(map(shingles, asked)):
        for q, theirs in enumerate(map(shingles, questions)):
            if len(mine & theirs) / len(mine | theirs) >= overlap.NEAR:
                expected.add((f"a.jsonl:{r}", str(q)))
    rows = [row(r, " ".join(words), "-") for r, words in enumerate(asked)]
    hits = found(rows, *(" ".join(words) for words in questions))
    assert len(expected) > 100
    assert {(where, prompt) for where, prompt, _ in hits} == expected
    assert hits == found(rows, *(" ".join(words) for words in questions)), "in the same order each time"


def test_a_seed_of_self_instruct_is_known_to_stand_in_alpaca(shared_data: Path) -> None:
    """Alpaca was written from these seeds; one of them came back word for word as a task of its own."""
    with gzip.open(shared_data / "self_instruct" / "seed_tasks.jsonl.gz", "rt", encoding="utf-8") as file:
        seeds = [json.loads(line) for line in file]
    questions = [Question("seeds", seed["id"], seed["instruction"]) for seed in seeds]
    rows = read_rows(shared_data / "alpaca" / "alpaca_random_sample.jsonl.gz")
    hits = find_overlaps((r for r in rows if not isinstance(r, BadRow)), questions)
    texts = [next(q.text for q in questions if q.id == hit.prompt) for hit in hits]
    assert "In your opinion, what are the qualities of an effective sports coach?" in texts
    assert len(hits) < 20, "most of Alpaca is its own"
