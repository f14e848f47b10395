"""Whether a generation was trained on what a benchmark asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nomoat.chat.template import ChatTemplate
from nomoat.data.overlap import Overlap, Question, find_overlaps
from nomoat.data.rows import ChatRow
from nomoat.data.trained import trained_rows
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.rows import GenerationRow
from nomoat.ledger.store import Ledger
from nomoat.model.load import load_tokenizer

KINDS = ("data", "judgements")
"""Kinds of artifacts that hold rows to train on."""
QUOTED = 20


@dataclass(frozen=True)
class Contamination:
    """How many of the `of_rows` rows that a generation was trained on hold a text of how many of `of` documents, word
    for word or nearly (`data.overlap`); the first `QUOTED` of them are `found`, a document of a row once."""

    rows: int
    of_rows: int
    documents: int
    of: int
    found: list[Overlap]


def contamination_of(
    ledger: Ledger,
    store: ArtifactStore,
    generation: GenerationRow,
    tokenizer_dir: Path,
    questions: Sequence[Question],
) -> Contamination | None:
    """Hold the rows of a generation's night against the texts of a benchmark. None where the night's rows are not here
    any more. Raises ArtifactError where they are damaged."""
    folders = []
    for stage in ledger.stages(generation.night_id):
        row = ledger.artifact(stage.artifact_id) if stage.artifact_id else None
        if row is None or row.kind not in KINDS:
            continue
        found = store.get(row.kind, row.key)
        if found is None:
            return None
        folders.append(found.path)
    tokenizer = load_tokenizer(tokenizer_dir)
    template = ChatTemplate.of(tokenizer)
    checked = 0

    def rows() -> Iterator[ChatRow]:
        nonlocal checked
        for folder in dict.fromkeys(folders):
            for row in trained_rows(folder, tokenizer, template):
                checked += 1
                yield row

    overlaps = {(one.where, one.suite, one.prompt): one for one in reversed(find_overlaps(rows(), questions))}
    return Contamination(
        rows=len({one.where for one in overlaps.values()}),
        of_rows=checked,
        documents=len({(one.suite, one.prompt) for one in overlaps.values()}),
        of=len({(one.suite, one.id) for one in questions}),
        found=list(reversed(overlaps.values()))[:QUOTED],
    )
