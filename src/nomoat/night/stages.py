"""The stages: each reads folders and writes one, with plain keyword arguments.

Nothing passes between two stages but folders, so any of them can be skipped, killed and resumed, or run
elsewhere.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nomoat.chat.template import ChatTemplate
from nomoat.data.judged import JudgedStore
from nomoat.data.judgements import prepare_judgements
from nomoat.data.prepare import prepare
from nomoat.data.report import DataReport
from nomoat.data.store import TokenStore
from nomoat.errors import DataError, RecipeError
from nomoat.model.adapters import load_adapter
from nomoat.model.load import Machine, count_parameters, load_model, load_tokenizer, read_shape
from nomoat.model.merge import check_saved, merge_dtype, probe_logits, probe_rows, save_model
from nomoat.night.held_out import HELD_OUT, LEAST_HELD_OUT, steering_groups, steering_rows
from nomoat.night.jobs import Folders, Outcome, Report
from nomoat.quantize.convert import to_gguf
from nomoat.quantize.mixture import GgufType
from nomoat.train.finetune import finetune
from nomoat.train.hooks import Hooks, Progress
from nomoat.train.loop import TrainResult
from nomoat.train.prefer import prefer
from nomoat.train.pretrain import pretrain
from nomoat.train.run import TrainingKeys

ADAPTER, MODEL = "adapter", "model"


def tokenizer_with_template(base: Path, chat_template: Path | None) -> tuple[Any, ChatTemplate]:
    """The base's tokenizer, carrying the template that the night renders with, whoever it came from."""
    tokenizer = load_tokenizer(base)
    template = ChatTemplate.of(tokenizer, chat_template)
    tokenizer.chat_template = template.source
    return tokenizer, template


def run_data(folders: Folders, report: Report, **keys: Any) -> Outcome:
    """Read, check, split, render and tokenise the owner's rows."""
    result = _prepared(prepare, "sft", folders, report, **keys)
    _check_held_out(result.sequences["held_out"], result, keys["held_out_share"])
    return Outcome(result.to_dict(), result.said)


def run_judgements(folders: Folders, report: Report, **keys: Any) -> Outcome:
    """Read, check, split, render and tokenise judged answers."""
    result = _prepared(prepare_judgements, keys.get("section", "prefer"), folders, report, **keys)
    good = len(TokenStore.open(folders.out / HELD_OUT))
    _check_held_out(good, result, keys["held_out_share"])
    return Outcome(result.to_dict(), result.said)


def _prepared(
    prepare_rows: Callable[..., DataReport],
    trainer: str,
    folders: Folders,
    report: Report,
    *,
    base: Path,
    chat_template: Path | None,
    max_seq_len: int,
    **keys: Any,
) -> DataReport:
    context = _context(base, max_seq_len, trainer)
    tokenizer, template = tokenizer_with_template(base, chat_template)
    return prepare_rows(
        max_seq_len=max_seq_len,
        context=context,
        tokenizer=tokenizer,
        template=template,
        out=folders.out,
        progress=lambda done, total: report(done / max(1, total), None, "reading"),
        **keys,
    )


def _context(base: Path, max_seq_len: int, section: str) -> int:
    """The longest row that the base can read; RecipeError where the recipe wants longer ones."""
    context = read_shape(base).context
    if max_seq_len > context:
        raise RecipeError(
            f"{section}.max_seq_len: {max_seq_len} tokens are more than the base's context of {context}",
            hint=f"Set {section}.max_seq_len to {context} or less.",
        )
    return context


def _check_held_out(held_out: int, result: DataReport, share: float) -> None:
    kept = result.rows.train + result.rows.held_out
    if held_out < LEAST_HELD_OUT:
        raise DataError(
            f"{held_out} of {kept} rows is held out with data.held_out: {share:g}; expected at "
            f"least {LEAST_HELD_OUT}, so that the two models can be compared on them.",
            hint="Raise data.held_out, or add rows.",
        )


def run_pretrain(
    folders: Folders,
    report: Report,
    *,
    machine: Machine,
    keys: TrainingKeys,
    seconds_left: Callable[[], float | None],
    stop_asked: Callable[[], bool],
    **shape: Any,
) -> Outcome:
    """A base of one's own: tokenizer and weights from scratch as a model folder, and the held-out text."""
    result = pretrain(
        folders.out / MODEL,
        folders.scratch,
        keys=keys,
        machine=machine,
        hooks=hooks_of(report, seconds_left, stop_asked),
        **shape,
    )
    shutil.copytree(folders.scratch / "data" / HELD_OUT, folders.out / HELD_OUT)
    return trained(folders.out, result)


def run_sft(
    folders: Folders,
    report: Report,
    *,
    base: Path,
    data: Path,
    chat_template: Path | None,
    machine: Machine,
    seconds_left: Callable[[], float | None],
    stop_asked: Callable[[], bool],
    **keys: Any,
) -> Outcome:
    """Fine-tune the base on prepared rows: `adapter/` in PEFT's layout, or `model/` for full weights."""
    tokenizer, _ = tokenizer_with_template(base, chat_template)
    result = finetune(
        base,
        tokenizer,
        TokenStore.open(data / "train"),
        steering_rows(data),
        folders.out,
        folders.scratch,
        machine=machine,
        hooks=hooks_of(report, seconds_left, stop_asked),
        **keys,
    )
    return trained(folders.out, result)


def run_prefer(
    folders: Folders,
    report: Report,
    *,
    base: Path,
    judgements: Path,
    chat_template: Path | None,
    machine: Machine,
    seconds_left: Callable[[], float | None],
    stop_asked: Callable[[], bool],
    **keys: Any,
) -> Outcome:
    """Learn from judged answers: `adapter/` in PEFT's layout, or `model/` for full weights."""
    tokenizer, _ = tokenizer_with_template(base, chat_template)
    result = prefer(
        base,
        tokenizer,
        JudgedStore(judgements / "judged" / "train"),
        steering_groups(judgements),
        TokenStore.open(judgements / HELD_OUT),
        folders.out,
        folders.scratch,
        machine=machine,
        hooks=hooks_of(report, seconds_left, stop_asked, preparing="the reference"),
        **keys,
    )
    return trained(folders.out, result)


def hooks_of(
    report: Report,
    seconds_left: Callable[[], float | None],
    stop_asked: Callable[[], bool],
    preparing: str = "frozen blocks, once for all passes",
    what: str = "loss",
) -> Hooks:
    """What a running stage tells and asks; `what` is the number that its progress is told by."""

    def on_progress(p: Progress) -> None:
        report(p.step / p.last_step, p.seconds_left, f"step {p.step} of {p.last_step}, {what} {p.loss:.3f}")

    return Hooks(
        seconds_left=seconds_left,
        stop_asked=stop_asked,
        on_preparation=lambda share: report(0.0, None, f"{preparing}: {share:.0%}"),
        on_progress=on_progress,
    )


def trained(out: Path, result: TrainResult) -> Outcome:
    """What a stage that trains says of itself; its curve goes to a file."""
    (out / "training.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    meta = {key: value for key, value in asdict(result).items() if key != "curve"}
    said = (
        f"held-out loss {result.first_loss:.3f} → {result.best_loss:.3f}, best at step {result.best_step} "
        f"of {result.steps}"
    )
    told = {f"best_{name}": value for name, value in result.best_metrics.items()}
    if "accuracy" in result.best_metrics:
        first, best = result.curve.held_out[0]["accuracy"], result.best_metrics["accuracy"]
        said += f"; judgements followed {first:.0%} → {best:.0%}"
    return Outcome(meta | told | {"events": result.curve.events}, said)


def run_merge(
    folders: Folders,
    report: Report,
    *,
    base: Path,
    base_sha256: str,
    adapter: Path,
    data: Path,
    chat_template: Path | None,
    machine: Machine,
    trained_in_4bit: bool,
) -> Outcome:
    """Fold the adapter into its base, which is never the quantised one that it may have been trained on; refused
    unless the folder reads back as the same model."""
    tokenizer, _ = tokenizer_with_template(base, chat_template)
    dtype = merge_dtype(count_parameters(base), machine.dtype)
    adapted = load_adapter(load_model(base, machine, weights=dtype), adapter, base_sha256=base_sha256)
    rows = probe_rows(TokenStore.open(data / "held_out"))
    before = probe_logits(adapted, rows, machine.device)
    report(0.3, None, "folding the adapter in")
    save_model(adapted.merge_and_unload(), tokenizer, folders.out / MODEL)
    report(0.7, None, "reading it back")
    difference = check_saved(before, folders.out / MODEL, rows, machine, dtype)
    meta = {"dtype": str(dtype).removeprefix("torch."), "largest_logit_difference": difference}
    into = " into the unquantised base (it was trained on the base in 4 bits)" if trained_in_4bit else ""
    return Outcome(meta, f"merged{into}; logits differ from the adapter's by at most {difference:.1e}")


def run_quantize(
    folders: Folders,
    report: Report,
    *,
    model: Path,
    chat_template: Path | None,
    types: tuple[GgufType, ...],
    name: str,
) -> Outcome:
    """GGUF files of a model folder, one a type, each opened and its tokenizer compared."""
    files: list[dict[str, Any]] = []
    for index, type in enumerate(types):
        report(index / len(types), None, type)
        started = time.monotonic()
        made = to_gguf(model, folders.out / f"{name}-{type}.gguf", type=type, chat_template=chat_template)
        files.append(
            {
                "file": made.path.name,
                "type": made.type,
                "bytes": made.bytes,
                "tensor_types": made.tensor_types,
                "context_length": made.context_length,
                "seconds": round(time.monotonic() - started, 3),
            }
        )
    said = ", ".join(f"{f['type']} {f['bytes'] / 1e6:.1f} MB" for f in files)
    return Outcome({"files": files}, said)
