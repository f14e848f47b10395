"""Held-out rows as prompts: where they are cut, in which order, and read again as they were written."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.prepared import chatml
from nomoat.evaluate.prompts import (
    HELD_OUT_ROWS,
    UNANSWERED,
    Prompt,
    held_out_questions,
    read_prompts,
    write_prompts,
)

TURNS = {"u": ("user", "How so?"), "a": ("assistant", "Just so."), "s": ("system", "Be brief.")}


def cut(tmp_path: Path, *talks: str, most: int = 40, most_tokens: int = 100) -> list[Prompt]:
    """Prompts of talks such as "sua": who speaks."""
    file = tmp_path / "held_out.jsonl"
    rows = [
        [{"role": TURNS[who][0], "content": f"{TURNS[who][1]} {n}"} for who in talk]
        for n, talk in enumerate(talks)
    ]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return held_out_questions(file, most, template=chatml(), most_tokens=most_tokens)


def spoken(prompt: Prompt) -> str:
    return "".join(message.role[0] for message in prompt.conversation.messages)


def test_a_row_is_asked_up_to_its_last_answer_to_somebody(tmp_path: Path) -> None:
    for talk, asked in [("ua", "u"), ("sua", "su"), ("uaua", "uau"), ("uaa", "u"), ("uauaa", "uau")]:
        assert [spoken(one) for one in cut(tmp_path, talk)] == [asked]
    assert cut(tmp_path, "aa") == []


def test_what_is_too_long_is_asked_sooner_or_not_at_all(tmp_path: Path) -> None:
    (short,) = cut(tmp_path, "ua")
    tokens = len(chatml().encode(short.conversation, add_generation_prompt=True))
    assert [spoken(one) for one in cut(tmp_path, "uauaua", most_tokens=tokens)] == ["u"]
    assert cut(tmp_path, "ua", most_tokens=tokens - 1) == []


def test_rows_of_all_parts_of_a_file_are_asked_and_a_longer_file_asks_them_too(tmp_path: Path) -> None:
    few = cut(tmp_path, *["ua"] * 200, most=20)
    numbers = [int(one.id) for one in few]
    assert min(numbers) < 50 < 150 < max(numbers)
    every = [one.id for one in cut(tmp_path, *["ua"] * 220, most=220)]
    assert sorted([one.id for one in few], key=every.index) == [one.id for one in few]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    prompts = cut(tmp_path, "sua", "uaua")
    write_prompts(tmp_path / UNANSWERED, prompts)
    assert read_prompts(tmp_path / UNANSWERED) == prompts
    assert {one.suite for one in prompts} == {HELD_OUT_ROWS}
