from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from nomoat.chat.conversation import Conversation, Message
from nomoat.data.rows import ChatRow, PreferenceRow, RatingRow, Row, TextRow, Where, excerpt
from nomoat.data.split import held_out, place

HERE = Where("a.jsonl", 1)
USER, ANSWER, OTHER = Message("user", "Hi"), Message("assistant", "Hello"), Message("assistant", "Go away")
TALK = Conversation((USER, ANSWER))
ASKED = Conversation((USER,))
ROWS: list[Row] = [
    ChatRow(HERE, TALK),
    TextRow(HERE, "Hi"),
    PreferenceRow(HERE, ASKED, (ANSWER,), (OTHER,)),
    RatingRow(HERE, ASKED, (ANSWER,), True),
]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("night.jsonl", "night.jsonl:412"),
        ("a/night.jsonl.gz", "a/night.jsonl.gz:412"),
        ("night.JSONL.zst", "night.JSONL.zst:412"),
        ("book.txt", "book.txt:412"),
        ("x.parquet", "x.parquet: row 412"),
        ("x.json", "x.json: row 412"),
        ("owner/name", "owner/name: row 412"),
    ],
)
def test_where(file: str, said: str) -> None:
    assert str(Where(file, 412)) == said


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_the_hash_is_of_the_content_and_not_of_the_place(row: Row) -> None:
    assert row.content_hash() == replace(row, where=Where("b.json", 9)).content_hash()
    assert len(bytes.fromhex(row.content_hash())) == 32


def test_every_difference_in_content_changes_the_hash() -> None:
    tools = ({"type": "function", "function": {"name": "f"}},)
    others: list[Row] = [
        *ROWS,
        ChatRow(HERE, Conversation((USER, OTHER))),
        ChatRow(HERE, Conversation((USER, replace(ANSWER, loss=False)))),
        ChatRow(HERE, Conversation(TALK.messages, tools)),
        TextRow(HERE, "Hi "),
        PreferenceRow(HERE, ASKED, (OTHER,), (ANSWER,)),
        RatingRow(HERE, ASKED, (ANSWER,), False),
    ]
    assert len({row.content_hash() for row in others}) == len(others)


def test_hashes_never_change() -> None:
    """A new hash would move rows across the split of every workspace there is."""
    text = '["chat",[[{"content":"Hi","role":"user"},{"content":"Hello","role":"assistant"}],[]]]'
    assert ChatRow(HERE, TALK).content_hash() == hashlib.sha256(text.encode()).hexdigest()
    text = '["prompt",[[{"content":"Hi","role":"user"}],[]]]'
    assert ChatRow(HERE, TALK).prompt_hash() == hashlib.sha256(text.encode()).hexdigest()
    assert TextRow(HERE, "狐").content_hash() == hashlib.sha256('["text","狐"]'.encode()).hexdigest()


def test_rows_that_ask_the_same_share_their_prompt_hash() -> None:
    first, second = ChatRow(HERE, TALK), ChatRow(HERE, Conversation((USER, OTHER)))
    assert first.prompt_hash() == second.prompt_hash()
    longer = ChatRow(HERE, Conversation((USER, ANSWER, USER, OTHER)))
    assert longer.prompt_hash() != first.prompt_hash()


def test_the_split_keeps_its_share_and_only_grows_with_it() -> None:
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    small = {h for h in hashes if held_out(h, 0.05)}
    large = {h for h in hashes if held_out(h, 0.1)}
    assert small < large
    # 0.05 ± 4 standard deviations of a binomial of 20,000: 0.00154
    assert abs(len(small) / len(hashes) - 0.05) < 4 * 0.00154
    assert not any(held_out(h, 0.0) for h in hashes)
    assert all(held_out(h, 1.0) for h in hashes)


def test_places_are_in_range() -> None:
    assert place("0" * 64) == 0.0
    assert 0.999999 < place("f" * 64) < 1.0


def test_excerpts_are_short() -> None:
    assert excerpt({"a": "é"}) == '{"a": "\\u00e9"}'
    assert len(excerpt("x" * 500)) == 120
