"""The stage `gate`: the file that would be served against the champion's, on what no training saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nomoat.chat.template import ChatTemplate
from nomoat.data.pack import Rows
from nomoat.errors import ArtifactError
from nomoat.evaluate.checker import Checker
from nomoat.evaluate.gate import BASE
from nomoat.evaluate.prompts import Prompt
from nomoat.evaluate.run import answer_all, file_losses
from nomoat.ledger.artifacts import Artifact, ArtifactStore
from nomoat.ledger.files import hash_file
from nomoat.ledger.rows import Evidence
from nomoat.ledger.store import Ledger
from nomoat.model.load import load_tokenizer
from nomoat.night.evaluation import owners_prompts
from nomoat.night.held_out import JudgingRows
from nomoat.night.jobs import Folders, Outcome, Report
from nomoat.night.stages import MODEL

EVIDENCE = "evidence.json"
MOST_ROWS = 200
"""Held-out rows that the two files read for the gate, at most: one that is better mostly has less loss on most of them,
which some tens of rows show, and a large file reads slowly."""


@dataclass(frozen=True)
class Rival:
    """The champion's file, the folder it was made from, and what names both in the lineage."""

    generation_id: int
    name: str
    gguf: Path
    files_id: str
    model: Path
    model_id: str
    context_length: int


def find_rival(store: ArtifactStore, ledger: Ledger, generation_id: int) -> Rival:
    """The champion, with its files verified. Raises ArtifactError where they are gone or damaged."""
    generation = ledger.generation(generation_id)
    assert generation.gguf_artifact and generation.merged_artifact and generation.served_file, generation
    files, model = (
        _verified(store, ledger, artifact_id)
        for artifact_id in (generation.gguf_artifact, generation.merged_artifact)
    )
    name = Path(generation.served_file).name
    context = next(file["context_length"] for file in files.meta["files"] if file["file"] == name)
    return Rival(
        generation.id, generation.name, files.path / name, files.id, model.path / MODEL, model.id, context
    )


def _verified(store: ArtifactStore, ledger: Ledger, artifact_id: str) -> Artifact:
    row = ledger.artifact(artifact_id)
    found = store.get(row.kind, row.key)
    if found is None:
        raise ArtifactError(
            f"the champion's {row.kind} ({row.path}) is gone or damaged: the gate had nothing to compare with",
            hint="Run the champion's night again to make it anew, or choose another: nomoat rollback.",
        )
    return found


def run_gate(
    folders: Folders,
    report: Report,
    *,
    evaluated: Path,
    challenger: Path,
    data: Path,
    rival: Rival | None,
    prompt_files: tuple[Path, ...],
    challenger_gguf: Path,
    base_gguf: Path,
    threads: int,
    n_ctx: int,
    max_prompts: int,
    max_new_tokens: int,
    max_held_out_rows: int,
) -> Outcome:
    """Writes `evidence.json`: one row a prompt with checks, for challenger and rival; where there are none, one a
    prompt or text of the held-out rows that did not steer training, with the loss of both files. What the base (no
    rival) passes is what `evaluate` found; a champion answers now.

    `evaluated` is the stage `evaluate`'s folder, `challenger` the model's, whose tokenizer rendered the held-out rows.
    """
    comparison = json.loads((evaluated / "comparison.json").read_text(encoding="utf-8"))
    checked = [answer for answer in comparison["answers"] if answer["tuned_passed"] is not None]
    name = BASE if rival is None else rival.name
    answers: list[dict[str, str]] = []
    warnings: list[str] = []
    if checked and rival is None:
        rows = [_checked(answer, answer["tuned_passed"], answer["base_passed"]) for answer in checked]
    elif checked and rival is not None:
        prompts = [prompt for prompt in owners_prompts(prompt_files, max_prompts) if prompt.checks]
        texts = _answers(prompts, rival, n_ctx, max_new_tokens, threads, report)
        answers = [
            {"suite": prompt.suite, "prompt_id": prompt.id, "answer": text}
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        with Checker() as checker:
            passed = [checker.passes(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
            warnings = checker.warnings()
        rows = [_checked(a, a["tuned_passed"], theirs) for a, theirs in zip(checked, passed, strict=True)]
    else:
        held_out = JudgingRows.of(data, min(max_held_out_rows, MOST_ROWS))
        rows = []
        if len(held_out.rows) and (rival is None or _reads_alike(rival.model, challenger)):
            files = challenger_gguf, base_gguf if rival is None else rival.gguf
            rows = _losses(held_out, *_files_losses(files, held_out.rows, threads, report))
    found = {"rival": name, "rows": [asdict(row) for row in rows], "answers": answers}
    (folders.out / EVIDENCE).write_text(
        json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    return Outcome({"rival": name, "warnings": warnings}, _said(rows, name))


def read_evidence(gate: Artifact) -> list[Evidence]:
    """The rows that `run_gate` wrote."""
    found = json.loads((gate.path / EVIDENCE).read_text(encoding="utf-8"))
    return [Evidence(**row) for row in found["rows"]]


def _checked(answer: dict[str, Any], challenger: bool, rival: bool) -> Evidence:
    return Evidence(
        kind="checks",
        suite=answer["suite"],
        item=answer["prompt_id"],
        challenger=float(challenger),
        rival=float(rival),
    )


def _files_losses(
    files: tuple[Path, Path], rows: Rows, threads: int, report: Report
) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """What each of two files makes of the rows."""

    def losses(file: Path, before: float) -> list[tuple[float, int]]:
        total = max(1, len(rows))

        def progress(done: int) -> None:
            report(before + 0.5 * done / total, None, f"{file.name}, row {done}")

        return file_losses(file, rows, threads=threads, progress=progress)

    return losses(files[0], 0.0), losses(files[1], 0.5)


def _losses(
    held_out: JudgingRows, challenger: list[tuple[float, int]], rival: list[tuple[float, int]]
) -> list[Evidence]:
    """Nats a token of each piece of evidence that has a token to predict."""
    own_P, theirs_P, tokens_P = (
        held_out.together(column)
        for column in ([nats for nats, _ in challenger], [nats for nats, _ in rival], [n for _, n in rival])
    )
    return [
        Evidence(
            kind="loss", suite="held-out rows", item=str(number), challenger=own / count, rival=theirs / count
        )
        for number, (own, theirs, count) in enumerate(
            zip(own_P.tolist(), theirs_P.tolist(), tokens_P.tolist(), strict=True), 1
        )
        if count
    ]


def _answers(
    prompts: Sequence[Prompt], rival: Rival, n_ctx: int, max_new_tokens: int, threads: int, report: Report
) -> list[str]:
    """The champion's answers, in order; what its own context does not hold it cannot answer."""
    context = min(n_ctx, rival.context_length)
    template = ChatTemplate.of(load_tokenizer(rival.model))
    fits = [
        len(template.encode(prompt.conversation, add_generation_prompt=True)) < context for prompt in prompts
    ]
    asked = [prompt for prompt, does in zip(prompts, fits, strict=True) if does]
    answered = iter(
        answer_all(
            rival.gguf,
            asked,
            tokenizer_dir=rival.model,
            max_new_tokens=max_new_tokens,
            n_ctx=context,
            threads=threads,
            progress=lambda n: report(n / max(1, len(asked)), None, f"{rival.name}, answer {n}"),
        )
    )
    return [next(answered) if does else "" for does in fits]


def _reads_alike(one: Path, other: Path) -> bool:
    """Whether two models have the same tokenizer: a loss a token can only then be compared."""
    return hash_file(one / "tokenizer.json") == hash_file(other / "tokenizer.json")


def _said(rows: Sequence[Evidence], rival: str) -> str:
    if not rows:
        return f"nothing that both it and {rival} can be measured on: blind votes will tell (nomoat arena)"
    if rows[0].kind == "checks":
        own, theirs = (int(sum(getattr(row, who) for row in rows)) for who in ("challenger", "rival"))
        return f"it passes {own} of {len(rows)} held-out prompts, {rival} {theirs}"
    better = sum(row.challenger < row.rival for row in rows)
    return f"less loss than {rival} on {better} of {len(rows)} held-out rows"
