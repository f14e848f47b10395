from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nomoat.data.readers import plain, source
from nomoat.data.readers.plain import documents, look
from nomoat.data.rows import TextRow, Where

FIXTURE = [HealthCheck.function_scoped_fixture]
WORDS = st.sampled_from(["word", " ", "\n", "\n\n", "狐", "a longer piece of text", "\t"])
TEXTS = st.lists(WORDS, min_size=1, max_size=60).map("".join)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("divider", ["<|endoftext|>", "\f"])
def test_documents_between_dividers(tmp_path: Path, divider: str) -> None:
    text = f"\r\nOne.\r\nMore.\r\n{divider}\r\n\r\nTwo.{divider} {divider}Three.\r\n"
    path = write(tmp_path / "a.txt", text)
    assert look(path) == divider
    assert list(documents(path, divider)) == [
        TextRow(Where(str(path), 2), "One.\nMore."),
        TextRow(Where(str(path), 6), "Two."),
        TextRow(Where(str(path), 6), "Three."),
    ]


def test_a_file_without_dividers_is_one_document_in_passages(tmp_path: Path) -> None:
    paragraph = "Some words of a story. " * 30
    path = write(tmp_path / "a.txt", "\n" + f"{paragraph}\n\n" * 100)
    assert look(path) == ""
    rows = list(documents(path, ""))
    assert [row.ends for row in rows] == [False] * (len(rows) - 1) + [True]
    assert "".join(row.text for row in rows) == (f"{paragraph}\n\n" * 100).strip()
    assert all(row.text.endswith("\n\n") for row in rows[:-1])
    assert all(len(row.text) <= plain.PASSAGE_CHARS for row in rows[:-1])
    assert len(rows[-1].text) <= 2 * plain.PASSAGE_CHARS
    assert [row.where.line for row in rows[:2]] == [2, 2 + rows[0].text.count("\n")]


@settings(max_examples=80, deadline=None, suppress_health_check=FIXTURE)
@given(text=TEXTS, chunk=st.integers(1, 7), end=st.sampled_from(["\n", "\r\n"]))
def test_passages_do_not_depend_on_the_chunks_and_lose_nothing(
    tmp_path: Path, text: str, chunk: int, end: str
) -> None:
    path = write(tmp_path / "a.txt", text.replace("\n", end))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "PASSAGE_CHARS", 20)
        whole = list(documents(path, ""))
        patch.setattr(source, "CHUNK_BYTES", chunk)
        assert list(documents(path, "")) == whole
    assert "".join(row.text for row in whole).split() == text.split()
    lines = text.split("\n")
    for row in whole:
        assert (
            row.text.strip().split("\n")[0].strip() in lines[row.where.line - 1 :][0] or row.text[0].isspace()
        )


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURE)
@given(texts=st.lists(TEXTS, max_size=5), chunk=st.integers(1, 30))
def test_divided_documents_do_not_depend_on_the_chunks(tmp_path: Path, texts: list[str], chunk: int) -> None:
    path = write(tmp_path / "a.txt", "<|endoftext|>".join(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "CHUNK_BYTES", chunk)
        rows = list(documents(path, "<|endoftext|>"))
    assert [row.text for row in rows] == [text.strip() for text in texts if text.strip()]
    assert all(row.ends for row in rows)


def test_a_file_that_grows_keeps_its_passages(tmp_path: Path) -> None:
    text = "".join(f"Paragraph {i} of a long book.\n\n" for i in range(3000))
    short = [row.content_hash() for row in documents(write(tmp_path / "a.txt", text[:50_000]), "")]
    long = [row.content_hash() for row in documents(write(tmp_path / "b.txt", text), "")]
    assert long[: len(short) - 1] == short[:-1]
