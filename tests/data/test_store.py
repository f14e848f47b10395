from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nomoat.data.store import TokenStore, TokenStoreWriter
from nomoat.errors import ArtifactError

HASHES = [hashlib.sha256(bytes([i])).hexdigest() for i in range(5)]
ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), min_size=1, max_size=9), max_size=5
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_what_is_written_is_read(tmp_path: Path, rows: list[list[tuple[int, bool]]]) -> None:
    with TokenStoreWriter(tmp_path) as writer:
        for row, split_hash in zip(rows, HASHES, strict=False):
            writer.append([token for token, _ in row], [on for _, on in row], split_hash)
    store = TokenStore.open(tmp_path)
    assert len(store) == len(rows) == writer.rows
    assert store.lengths.tolist() == [len(row) for row in rows]
    assert store.lengths.dtype == np.int64
    for i, row in enumerate(rows):
        tokens, trained = store[i]
        assert (tokens.dtype, trained.dtype) == (np.uint32, np.bool_)
        assert tokens.tolist() == [token for token, _ in row]
        assert trained.tolist() == [False, *(on for _, on in row[1:])]  # nothing predicts a first token
        assert store.split_hashes[i] == HASHES[i]
    assert store.tokens == sum(map(len, rows))
    assert store.supervised_tokens == sum(on for row in rows for _, on in row[1:])


def test_without_a_mask_all_but_the_first_token_is_trained(tmp_path: Path) -> None:
    with TokenStoreWriter(tmp_path) as writer:
        writer.append([5, 6, 7], None, HASHES[0])
    assert TokenStore.open(tmp_path)[0][1].tolist() == [False, True, True]


def test_the_bytes_are_these(tmp_path: Path) -> None:
    with TokenStoreWriter(tmp_path) as writer:
        writer.append([1, 258], [True, True], HASHES[0])
        writer.append([3], [False], HASHES[1])
    assert (tmp_path / "tokens.bin").read_bytes() == bytes([1, 0, 0, 0, 2, 1, 0, 0, 3, 0, 0, 0])
    assert (tmp_path / "trained.bin").read_bytes() == bytes([0, 1, 0])
    assert (tmp_path / "offsets.bin").read_bytes() == b"".join(n.to_bytes(8, "little") for n in (0, 2, 3))
    assert (tmp_path / "hashes.bin").read_bytes().hex() == HASHES[0] + HASHES[1]
    assert (tmp_path / "store.json").read_text() == (
        '{"layout": 1, "rows": 2, "tokens": 3, "supervised_tokens": 1}\n'
    )


def test_views_are_of_the_file_and_read_only(tmp_path: Path) -> None:
    with TokenStoreWriter(tmp_path) as writer:
        writer.append([1, 2], None, HASHES[0])
    tokens, _ = TokenStore.open(tmp_path)[0]
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 9


@pytest.mark.parametrize("index", [-1, 1])
def test_rows_that_are_not_there(tmp_path: Path, index: int) -> None:
    with TokenStoreWriter(tmp_path) as writer:
        writer.append([1, 2], None, HASHES[0])
    with pytest.raises(IndexError):
        TokenStore.open(tmp_path)[index]


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), TokenStoreWriter(tmp_path) as writer:
        writer.append([1, 2], None, HASHES[0])
        raise RuntimeError("stop")
    with pytest.raises(ArtifactError) as error:
        TokenStore.open(tmp_path)
    assert error.value.message == f"{tmp_path}: holds no finished token store (store.json is not there)."


def test_writing_again_unfinishes_the_store_before(tmp_path: Path) -> None:
    with TokenStoreWriter(tmp_path) as writer:
        writer.append([1, 2], None, HASHES[0])
    TokenStoreWriter(tmp_path)
    with pytest.raises(ArtifactError):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("name", ["tokens.bin", "trained.bin", "offsets.bin", "hashes.bin"])
def test_a_damaged_store_is_refused(tmp_path: Path, name: str) -> None:
    with TokenStoreWriter(tmp_path) as writer:
        writer.append([1, 2], None, HASHES[0])
    file = tmp_path / name
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError) as error:
        TokenStore.open(tmp_path)
    assert error.value.message == f"{file}: has {size - 1} bytes; expected {size}: the store is damaged."


def test_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"layout": 2}')
    with pytest.raises(ArtifactError) as error:
        TokenStore.open(tmp_path)
    assert error.value.message == f"{tmp_path}: has layout 2; this program reads layout 1."
