"""Which file `nomoat chat` opens: the champion's, another generation's, or its base's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.cli.ledgers import open_ledger
from nomoat.errors import ArtifactError, LedgerError
from nomoat.serve.models import ServedModel

if TYPE_CHECKING:
    from nomoat.ledger.artifacts import Artifact, ArtifactStore
    from nomoat.ledger.rows import GenerationRow
    from nomoat.ledger.store import Ledger

BASE, LATEST, CHAMPION = "base", "latest", "champion"
_NONE_YET = "Make a model: nomoat run. Or talk to the embedded base: nomoat chat base"


def find_generation(workspace: Path, which: str) -> ServedModel:
    """The file of 'champion', 'latest', 'gen-0001' or '1'. Where nobody was ever chosen, the champion is the newest;
    where the champion was rolled back to the base, it is the base's file.

    Raises LedgerError where there is no such generation, ArtifactError where its files are gone or damaged.
    """
    with open_ledger(workspace) as ledger:
        if ledger is None or not ledger.generations():
            raise LedgerError(f"{workspace.resolve()}: no night has made a model here yet", hint=_NONE_YET)
        champion = ledger.judgements.champion()
        if which == CHAMPION and champion is not None and champion.generation_id is None:
            return replace(find_base(workspace, LATEST), is_champion=True)
        generation = _generation(ledger, which)
        store = _store(workspace)
        assert generation.gguf_artifact and generation.served_file, generation
        files = _artifact(store, ledger, generation.gguf_artifact)
        return ServedModel(
            generation.name,
            workspace / generation.served_file,
            _model_folder(store, ledger, generation),
            _context_length(files, Path(generation.served_file).name),
            (generation.verdict or {}).get("verdict"),
            champion is not None and champion.generation_id == generation.id,
        )


def find_model(workspace: Path, which: str) -> ServedModel:
    """The file of 'base', the newest generation's, or else as `find_generation`, and raises as it."""
    return find_base(workspace, LATEST) if which == BASE else find_generation(workspace, which)


def find_base(workspace: Path, which: str) -> ServedModel:
    """The base of a generation, as it was compared with it; the embedded base where there is none yet.

    Raises as `find_generation`, and LedgerError for a generation that was trained from scratch.
    """
    with open_ledger(workspace) as ledger:
        if ledger is None or not ledger.generations():
            return _embedded(workspace)
        generation = _generation(ledger, which)
        store = _store(workspace)
        for stage in ledger.stages(generation.night_id):
            row = ledger.artifact(stage.artifact_id) if stage.artifact_id else None
            if row and row.kind == "quantize" and row.meta.get("params", {}).get("name") == BASE:
                recipe = ledger.night(generation.night_id).recipe_resolved
                name = f"{recipe['name']}, pre-trained" if recipe["pretrain"] else recipe["base"]
                files = _artifact(store, ledger, row.id)
                return _base_of(files, f"base ({name})", _model_folder(store, ledger, generation))
        raise LedgerError(
            f"{generation.name} was trained from scratch: it has no base",
            hint=f"Talk to it alone: nomoat chat {generation.name}",
        )


def _generation(ledger: Ledger, which: str) -> GenerationRow:
    champion = ledger.judgements.champion()
    if which == CHAMPION and champion is not None and champion.generation_id is not None:
        return ledger.generation(champion.generation_id)
    return ledger.generation(LATEST if which == CHAMPION else int(which) if which.isdecimal() else which)


def _embedded(workspace: Path) -> ServedModel:
    """The embedded base as the file that a night would make of it, made now where it is not there."""
    from nomoat.model.load import EMBEDDED, resolve_base
    from nomoat.night.base import Base, quantize_job
    from nomoat.night.jobs import make
    from nomoat.recipe import Recipe

    base = Base.of(resolve_base(EMBEDDED, workspace), EMBEDDED)
    types = (Recipe().quantize.serve,)
    job = quantize_job(base.folder, base.source, name=BASE, types=types, chat_template=None)
    store = _store(workspace)
    found = store.get(job.kind, job.key)
    if found is None:
        with store.lock():
            found = make(store, job, lambda share, seconds_left, note: None)
    return _base_of(found, f"base ({EMBEDDED})", base.folder)


def _base_of(files: Artifact, name: str, tokenizer_dir: Path) -> ServedModel:
    (file,) = files.meta["files"]
    kind, _, sha256 = files.inputs["model"].partition(":")
    return ServedModel(
        name,
        files.path / file["file"],
        tokenizer_dir,
        file["context_length"],
        is_base=True,
        sha256=sha256 if kind == BASE else None,  # one that a night pre-trained goes by the night's artifact
    )


def _context_length(files: Artifact, name: str) -> int:
    length: int = next(file["context_length"] for file in files.meta["files"] if file["file"] == name)
    return length


def _model_folder(store: ArtifactStore, ledger: Ledger, generation: GenerationRow) -> Path:
    from nomoat.night.stages import MODEL

    assert generation.merged_artifact is not None, generation
    return _artifact(store, ledger, generation.merged_artifact).path / MODEL


def _artifact(store: ArtifactStore, ledger: Ledger, artifact_id: str) -> Artifact:
    """A verified artifact of the ledger."""
    row = ledger.artifact(artifact_id)
    found = store.get(row.kind, row.key)
    if found is None:
        why = store.warnings[-1] if store.warnings else f"{store.workspace / row.path} is not there"
        raise ArtifactError(why, hint="Run the same night again to make it anew: nomoat run")
    return found


def _store(workspace: Path) -> ArtifactStore:
    from nomoat.ledger.artifacts import ArtifactStore

    return ArtifactStore(workspace)
