"""Tokenised rows in a flat folder that is memory-mapped, never loaded.

    tokens.bin   uint32  every token, row after row      offsets.bin  uint64  row i is [offsets[i], offsets[i+1])
    trained.bin  uint8   1 where it is a target          hashes.bin   32 bytes a row: sha256 that it was split by
    store.json   counts; written last, so a store without it is unfinished

All little-endian. The same rows in the same order give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, final

import numpy as np
from numpy.typing import NDArray

from nomoat.errors import ArtifactError

_FILES = {"tokens.bin": 4, "trained.bin": 1, "offsets.bin": 8, "hashes.bin": 32}
"""Bytes of one entry of each file."""
_META = "store.json"
_LAYOUT = 1


@final
class TokenStoreWriter:
    """Writes a store row by row, in constant memory. A folder that held another store is written over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _META).unlink(missing_ok=True)
        self._files: dict[str, BinaryIO] = {name: (folder / name).open("wb") for name in _FILES}
        self._files["offsets.bin"].write(np.uint64(0).tobytes())
        self.rows = self.tokens = self.supervised_tokens = 0

    def append(
        self,
        tokens: Sequence[int] | NDArray[np.uint32],
        trained: Sequence[bool] | NDArray[np.bool_] | None,
        split_hash: str,
    ) -> None:
        """Add a row. `trained` None: every token is a target, but the first, which nothing predicts."""
        tokens_T = np.asarray(tokens, dtype="<u4")
        trained_T = (
            np.ones(len(tokens_T), dtype=np.uint8) if trained is None else np.asarray(trained, np.uint8)
        )
        assert len(tokens_T) == len(trained_T) > 0, (len(tokens_T), len(trained_T))
        trained_T[0] = 0
        self.rows += 1
        self.tokens += len(tokens_T)
        self.supervised_tokens += int(trained_T.sum())
        self._files["tokens.bin"].write(tokens_T.tobytes())
        self._files["trained.bin"].write(trained_T.tobytes())
        self._files["offsets.bin"].write(np.asarray(self.tokens, dtype="<u8").tobytes())
        self._files["hashes.bin"].write(bytes.fromhex(split_hash))

    def close(self) -> None:
        """Finish the store. Nothing is synced to the disk here: the artifact store does that."""
        for file in self._files.values():
            file.close()
        counts = {"rows": self.rows, "tokens": self.tokens, "supervised_tokens": self.supervised_tokens}
        (self.folder / _META).write_text(json.dumps({"layout": _LAYOUT, **counts}) + "\n", encoding="utf-8")

    def __enter__(self) -> TokenStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            for file in self._files.values():
                file.close()


@final
class TokenStore:
    """A finished store, read through memory maps."""

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self.folder = folder
        self.tokens: int = meta["tokens"]
        self.supervised_tokens: int = meta["supervised_tokens"]
        self._tokens = _mapped(folder / "tokens.bin", "<u4")
        self._trained = _mapped(folder / "trained.bin", "?")
        self._offsets = _mapped(folder / "offsets.bin", "<u8")
        self._hashes = _mapped(folder / "hashes.bin", "V32")
        self.lengths: NDArray[np.int64] = np.diff(self._offsets).astype(np.int64)

    @staticmethod
    def open(folder: Path) -> TokenStore:
        """ArtifactError where the store is absent, unfinished or damaged."""
        meta_file = folder / _META
        if not meta_file.is_file():
            raise ArtifactError(f"{folder}: holds no finished token store ({_META} is not there).")
        meta = json.loads(meta_file.read_text(encoding="utf-8"))
        if meta["layout"] != _LAYOUT:
            raise ArtifactError(
                f"{folder}: has layout {meta['layout']}; this program reads layout {_LAYOUT}."
            )
        entries = {
            "tokens.bin": meta["tokens"],
            "trained.bin": meta["tokens"],
            "offsets.bin": meta["rows"] + 1,
            "hashes.bin": meta["rows"],
        }
        for name, each in _FILES.items():
            file = folder / name
            found, expected = file.stat().st_size if file.is_file() else 0, entries[name] * each
            if found != expected:
                raise ArtifactError(f"{file}: has {found} bytes; expected {expected}: the store is damaged.")
        return TokenStore(folder, meta)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Tokens [length] and which of them are targets [length], as views of the file."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        span = slice(int(self._offsets[index]), int(self._offsets[index + 1]))
        return self._tokens[span], self._trained[span]

    @property
    def split_hashes(self) -> list[str]:
        """Of each row the sha256 (hex) that the row it came from was split by: that of its prompt, or its content."""
        return [bytes(found).hex() for found in self._hashes]


def _mapped(file: Path, dtype: str) -> NDArray[Any]:
    # An empty file cannot be mapped.
    return np.asarray(np.memmap(file, dtype=dtype, mode="r")) if file.stat().st_size else np.empty(0, dtype)
