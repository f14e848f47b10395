"""A base to start from, and the job that makes a model's files: what a night and a chat with a base share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nomoat.errors import LedgerError
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.files import hash_file
from nomoat.ledger.store import Ledger
from nomoat.model.load import fingerprint, read_shape
from nomoat.night.jobs import Job
from nomoat.night.stages import run_quantize
from nomoat.recipe import GgufType


@dataclass(frozen=True)
class Base:
    """A base to start from, `width` numbers wide; `source` names it in the lineage."""

    folder: Path
    name: str
    sha256: str
    source: str
    width: int

    @staticmethod
    def of(folder: Path, name: str, source: str | None = None) -> Base:
        """The base in a folder, with the fingerprint that adapters are bound to."""
        sha256 = fingerprint(folder)
        return Base(folder, name, sha256, source or f"base:{sha256}", read_shape(folder).width)


def made_here(folder: Path, store: ArtifactStore, ledger: Ledger) -> str | None:
    """The artifact of this workspace that a base lies in, whole; None for any other. A model that goes on from an
    earlier one has that one's lineage, with all that it has learned from."""
    artifacts = (store.house / "artifacts").resolve()
    if not folder.is_relative_to(artifacts):
        return None
    try:
        row = ledger.artifact(folder.relative_to(artifacts).parts[0])
    except LedgerError:
        return None
    return row.id if store.get(row.kind, row.key) else None


def template_input(chat_template: Path | None) -> dict[str, str]:
    """The owner's chat template as an input of a job; nothing where there is none."""
    return {} if chat_template is None else {"chat template": f"file:{hash_file(chat_template)}"}


def quantize_job(
    model: Path, source: str, *, name: str, types: tuple[GgufType, ...], chat_template: Path | None
) -> Job:
    """GGUF files of the model folder `model`, which `source` names in the lineage."""
    return Job(
        kind="quantize",
        why=f"{name} as {', '.join(types)}",
        inputs={"model": source, **template_input(chat_template)},
        params={"types": types, "name": name},
        run=partial(run_quantize, model=model, chat_template=chat_template, types=types, name=name),
    )
