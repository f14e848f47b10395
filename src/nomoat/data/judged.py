"""Judged answers: a flat folder of them, and their packs, in which answers to one prompt share it.

rows/        a token store: every answer behind its prompt, as it is rendered, one after the other
prompts.bin  uint32  tokens of the prompt of each group        good.bin  uint8  1 for a good answer
margins.bin  float32 by how much the preferred answer should win; there only where a row says so
judged.json  how many answers a group has: two in pairs, the preferred one first, or one that was rated
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray

from nomoat.data.pack import Judged, Packed, Tokens, Trained, only, pack_groups
from nomoat.data.store import TokenStore, TokenStoreWriter
from nomoat.errors import ArtifactError

_META, _MARGINS = "judged.json", "margins.bin"


@dataclass(frozen=True)
class Group:
    """A prompt and its answers: tokens of each with those that are trained, which were found good (of a tie both), and
    by how much the first should win."""

    prompt: Tokens
    answers: tuple[tuple[Tokens, Trained], ...]
    good: tuple[bool, ...]
    margin: float = 0.0

    @property
    def tokens(self) -> int:
        """In a pack, where the prompt stands once."""
        return len(self.prompt) + sum(len(tokens) for tokens, _ in self.answers)


class Groups(Protocol):
    """Groups by index, all with as many answers; `lengths` are their tokens in a pack."""

    answers: int
    lengths: NDArray[np.int64]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Group: ...


@final
class JudgedWriter:
    """Writes groups of `answers` answers one by one."""

    def __init__(self, folder: Path, answers: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._answers = folder, answers
        self._rows = TokenStoreWriter(folder / "rows")
        self._prompts, self._good, self._margins = list[int](), list[bool](), list[float]()
        self.tokens = self.supervised_tokens = 0

    @property
    def groups(self) -> int:
        return len(self._prompts)

    def append(self, group: Group, split_hash: str) -> None:
        """Add a group. Its prompt has a token at least, and so has every answer."""
        assert len(group.answers) == len(group.good) == self._answers, group
        for tokens, trained in group.answers:
            unasked = np.zeros(len(group.prompt), dtype=np.bool_)
            whole = np.concatenate((group.prompt, tokens)), np.concatenate((unasked, trained))
            self._rows.append(*whole, split_hash)
            self.supervised_tokens += int(trained.sum())
        self._prompts.append(len(group.prompt))
        self._good += group.good
        self._margins.append(group.margin)
        self.tokens += group.tokens

    def close(self) -> None:
        """Finish the folder."""
        self._rows.close()
        (self._folder / "prompts.bin").write_bytes(np.asarray(self._prompts, dtype="<u4").tobytes())
        (self._folder / "good.bin").write_bytes(np.asarray(self._good, dtype=np.uint8).tobytes())
        if any(self._margins):
            (self._folder / _MARGINS).write_bytes(np.asarray(self._margins, dtype="<f4").tobytes())
        (self._folder / _META).write_text(json.dumps({"answers": self._answers}) + "\n", encoding="utf-8")


@final
class JudgedStore:
    """A finished folder of judged answers."""

    def __init__(self, folder: Path) -> None:
        """ArtifactError where it is absent, unfinished or damaged."""
        meta = folder / _META
        if not meta.is_file():
            raise ArtifactError(f"{folder}: holds no finished judged answers ({_META} is not there).")
        self.answers: int = json.loads(meta.read_text(encoding="utf-8"))["answers"]
        self._rows = TokenStore.open(folder / "rows")
        self._prompts = np.fromfile(folder / "prompts.bin", dtype="<u4").astype(np.int64)
        self._good = np.fromfile(folder / "good.bin", dtype=np.uint8).astype(np.bool_)
        groups = len(self._rows) // self.answers
        margins = folder / _MARGINS
        self._margins = np.fromfile(margins, dtype="<f4") if margins.is_file() else np.zeros(groups)
        if (len(self._rows), len(self._prompts), len(self._good), len(self._margins)) != (
            groups * self.answers,
            groups,
            groups * self.answers,
            groups,
        ):
            raise ArtifactError(f"{folder}: its files hold different numbers of answers: it is damaged.")
        whole = self._rows.lengths.reshape(groups, self.answers).sum(1)
        self.lengths: NDArray[np.int64] = whole - (self.answers - 1) * self._prompts

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def split_hashes(self) -> list[str]:
        """See `TokenStore.split_hashes`; one a group."""
        return self._rows.split_hashes[:: self.answers]

    def __getitem__(self, index: int) -> Group:
        if not 0 <= index < len(self):
            raise IndexError(index)
        first, start = index * self.answers, int(self._prompts[index])
        rows = [self._rows[first + answer] for answer in range(self.answers)]
        return Group(
            rows[0][0][:start],
            tuple((tokens[start:], trained[start:]) for tokens, trained in rows),
            tuple(self._good[first : first + self.answers].tolist()),
            float(self._margins[index]),
        )


@final
class Mismatched:
    """Every prompt with the first answer to another: that of the group before it, for the first the last. What a
    model makes of such answers says how far it has gone from another one, whoever judged what."""

    def __init__(self, groups: Groups) -> None:
        self._groups, self.answers = groups, 1
        prompts = np.array([len(groups[i].prompt) for i in range(len(groups))], dtype=np.int64)
        firsts = np.array([len(groups[i].answers[0][0]) for i in range(len(groups))], dtype=np.int64)
        self.lengths = prompts + np.roll(firsts, 1)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Group:
        before = self._groups[index - 1 if index else len(self) - 1]
        return Group(self._groups[index].prompt, before.answers[:1], before.good[:1])


@final
class JudgedRows:
    """Groups as the loop reads them. `reference`: log p of every answer under the reference, group after group."""

    def __init__(self, groups: Groups, reference: NDArray[np.float32] | None = None) -> None:
        self.groups, self.lengths = groups, groups.lengths
        answers = len(groups) * groups.answers
        self._reference = np.zeros(answers, dtype=np.float32) if reference is None else reference
        assert len(self._reference) == answers, (len(self._reference), answers)

    def __len__(self) -> int:
        return len(self.lengths)

    def first(self, most: int) -> JudgedRows:
        """The first `most` groups."""
        first = range(min(most, len(self)))
        return JudgedRows(Some(self.groups, first), self._reference[: len(first) * self.groups.answers])

    def pack(self, which: Sequence[int], device: torch.device | str) -> Packed:
        """Some of the groups, every prompt once."""
        chosen = [self.groups[index] for index in which]
        packed = pack_groups([(g.prompt, [tokens for tokens, _ in g.answers]) for g in chosen], device)
        packed = only(packed, np.concatenate([trained for g in chosen for _, trained in g.answers]))
        good_N = torch.tensor([good for g in chosen for good in g.good], device=device)
        reference_N = self._reference.reshape(-1, self.groups.answers)[list(which)].reshape(-1)
        margin_P = torch.tensor([group.margin for group in chosen], dtype=torch.float32, device=device)
        return replace(packed, judged=Judged(good_N, torch.from_numpy(reference_N).to(device), margin_P))


@final
class Some:
    """Some of the groups, by their indices."""

    def __init__(self, groups: Groups, which: Sequence[int]) -> None:
        self._groups, self._which, self.answers = groups, which, groups.answers
        self.lengths = groups.lengths[list(which)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Group:
        return self._groups[self._which[index]]
