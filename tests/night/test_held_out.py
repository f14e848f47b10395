"""Which held-out rows steer, which judge, and what of these is one piece of evidence."""

from __future__ import annotations

from pathlib import Path

from nomoat.data.store import TokenStoreWriter
from nomoat.night.held_out import JudgingRows, steering_rows

EVEN, ODD, OTHER_ODD = "a" * 64, "b" * 64, "d" * 64


def store_of(folder: Path, *split_hashes: str) -> None:
    with TokenStoreWriter(folder / "held_out") as store:
        for number, split_hash in enumerate(split_hashes):
            store.append([number, number], None, split_hash)


def first_tokens(rows: JudgingRows) -> list[int]:
    return [int(rows.rows[i][0][0]) for i in range(len(rows.rows))]


def test_no_row_both_steers_and_judges(tmp_path: Path) -> None:
    store_of(tmp_path, ODD, EVEN, OTHER_ODD, EVEN, ODD)
    steering = steering_rows(tmp_path)
    assert [int(steering[i][0][0]) for i in range(len(steering))] == [1, 3]
    assert first_tokens(JudgingRows.of(tmp_path, 100)) == [0, 2, 4]
    assert first_tokens(JudgingRows.of(tmp_path, 2)) == [0, 2]


def test_parts_of_one_text_and_answers_to_one_prompt_are_one_piece_of_evidence(tmp_path: Path) -> None:
    store_of(tmp_path, ODD, EVEN, OTHER_ODD, EVEN, ODD)
    judging = JudgingRows.of(tmp_path, 100)
    assert judging.together([1.0, 10.0, 100.0]).tolist() == [101.0, 10.0]


def test_where_a_side_would_be_empty_nothing_judges_at_the_gate(tmp_path: Path) -> None:
    store_of(tmp_path, ODD, OTHER_ODD)
    assert len(steering_rows(tmp_path)) == 2
    judging = JudgingRows.of(tmp_path, 100)
    assert len(judging.rows) == len(judging.together([])) == 0
    assert first_tokens(JudgingRows.or_all(tmp_path, 100)) == [0, 1]


def test_one_piece_is_too_little_for_an_interval(tmp_path: Path) -> None:
    store_of(tmp_path, EVEN, ODD, ODD)
    assert first_tokens(JudgingRows.of(tmp_path, 100)) == [1, 2]
    assert first_tokens(JudgingRows.or_all(tmp_path, 100)) == [0, 1, 2]
