"""The stage `evaluate`: base against tuned, on rows and prompts that no training saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nomoat.chat.template import ChatTemplate
from nomoat.data.split import asked_keys
from nomoat.data.store import TokenStore
from nomoat.errors import DataError
from nomoat.evaluate.checker import Checker
from nomoat.evaluate.compare import compare_losses, compare_pass_rates, conclude, no_rival
from nomoat.evaluate.comparison import Comparison, Metric
from nomoat.evaluate.prompts import UNANSWERED, Prompt, held_out_questions, read_prompts, write_prompts
from nomoat.evaluate.run import answer_all, judge
from nomoat.model.load import Machine, load_model, load_tokenizer
from nomoat.model.logprobs import row_losses
from nomoat.night.fidelity import beginnings, check_files, held_out_prompts
from nomoat.night.held_out import JudgingRows
from nomoat.night.jobs import Folders, Outcome, Report

_MOST_ASKED = 40
"""Held-out rows that people may be asked to vote on, answered in the night or not. Eight would soon be known by heart;
of hundreds no two models would meet on the same one, and such votes link them (`ballots.links`)."""
Losses = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Nats and tokens of each piece of evidence."""


def run_evaluate(
    folders: Folders,
    report: Report,
    *,
    base: Path,
    tuned: Path,
    base_gguf: Path,
    tuned_gguf: Path,
    gguf_files: Path,
    data: Path,
    prompt_files: tuple[Path, ...],
    machine: Machine,
    threads: int,
    batch_tokens: int,
    n_ctx: int,
    max_prompts: int,
    max_new_tokens: int,
    max_held_out_rows: int,
    samples: int,
    confidence: float,
    bootstrap_samples: int,
    seed: int,
) -> Outcome:
    """Held-out loss of both models, and their answers by the files that would be served, with every check.

    The loss is that of rows that did not steer training; of all held-out rows where these are too few. Writes
    `comparison.json` (the Comparison), `losses.json` (by prompt or text, in nats), so that every figure can be computed
    again, `fidelity.json` (every file in `gguf_files` against the folder it was made from), and without `prompt_files`
    the held-out prompts that are left for the arena.
    """
    held_out = JudgingRows.or_all(data, max_held_out_rows)
    report(0.0, None, "held-out loss of the base")
    of_base = _losses(base, held_out, batch_tokens, machine)
    report(0.05, None, "held-out loss of the tuned model")
    of_tuned = _losses(tuned, held_out, batch_tokens, machine)
    report(0.1, None, "every file against its folder")
    _write_fidelity(
        folders.out,
        check_files(
            gguf_files, tuned, held_out_prompts(tuned, data, n_ctx=n_ctx), n_ctx=n_ctx, threads=threads
        ),
    )

    prompts = owners_prompts(prompt_files, max_prompts)
    if not prompt_files:
        questions = held_out_questions(
            data / "held_out.jsonl",
            max(samples, _MOST_ASKED),
            template=ChatTemplate.of(load_tokenizer(tuned)),
            most_tokens=n_ctx - min(max_new_tokens, n_ctx // 2),
        )
        prompts = questions[:samples]
        write_prompts(folders.out / UNANSWERED, questions[samples:])
    answer = partial(
        answer_all,
        prompts=prompts,
        tokenizer_dir=tuned,
        max_new_tokens=max_new_tokens,
        n_ctx=n_ctx,
        threads=threads,
    )
    total = max(1, len(prompts))
    by_base = answer(base_gguf, progress=lambda n: report(0.2 + 0.4 * n / total, None, f"base, answer {n}"))
    by_tuned = answer(
        tuned_gguf, progress=lambda n: report(0.6 + 0.4 * n / total, None, f"tuned, answer {n}")
    )

    with Checker() as checker:
        answers = judge(prompts, by_base, by_tuned, checker)
    bootstrap: dict[str, Any] = {"confidence": confidence, "samples": bootstrap_samples, "seed": seed}
    metrics: list[Metric] = [
        *compare_pass_rates(answers, **bootstrap),
        compare_losses(of_base, of_tuned, **bootstrap),
    ]
    comparison = conclude(metrics, answers, confidence=confidence)
    _write_comparison(folders.out, comparison)
    losses = {"base": _listed(of_base), "tuned": _listed(of_tuned)}
    (folders.out / "losses.json").write_text(json.dumps(losses) + "\n")
    return Outcome({"verdict": comparison.verdict, "warnings": checker.warnings()}, comparison.said)


def run_evaluate_new_base(
    folders: Folders,
    report: Report,
    *,
    model: Path,
    gguf_files: Path,
    held_out: Path,
    held_out_loss: float,
    n_ctx: int,
    threads: int,
) -> Outcome:
    """A base from scratch has no rival to beat, but its files must be the model that was trained."""
    report(0.0, None, "every file against its folder")
    prompts = beginnings(TokenStore.open(held_out), n_ctx=n_ctx)
    _write_fidelity(folders.out, check_files(gguf_files, model, prompts, n_ctx=n_ctx, threads=threads))
    comparison = no_rival(held_out_loss)
    _write_comparison(folders.out, comparison)
    return Outcome({"verdict": comparison.verdict}, comparison.said)


def _write_fidelity(out: Path, files: list[dict[str, Any]]) -> None:
    (out / "fidelity.json").write_text(json.dumps({"files": files}, indent=1) + "\n")


def _write_comparison(out: Path, comparison: Comparison) -> None:
    (out / "comparison.json").write_text(json.dumps(asdict(comparison), indent=1) + "\n")


def _losses(folder: Path, held_out: JudgingRows, batch_tokens: int, machine: Machine) -> Losses:
    model = load_model(folder, machine).eval()
    found = row_losses(model, held_out.rows, batch_tokens=batch_tokens, device=machine.device)
    return held_out.together(found.nll_N), held_out.together(found.tokens_N)


def _listed(losses: Losses) -> dict[str, list[float]]:
    nll_P, tokens_P = losses
    return {"nll": nll_P.tolist(), "tokens": tokens_P.tolist()}


def owners_prompts(files: Sequence[Path], max_prompts: int | None = None) -> list[Prompt]:
    """The first `max_prompts`, or all, of the owner's prompts. Raises DataError with file, line and field."""
    return [prompt for file in files for prompt in read_prompts(file, most=max_prompts)][:max_prompts]


def asked_by(prompts: Sequence[Prompt]) -> set[str]:
    """What prompts ask at last, as `asked_keys`."""
    return {key for prompt in prompts for key in asked_keys(prompt.conversation)[-1:]}


def check_functions(prompts: Sequence[Prompt]) -> None:
    """DataError where an owner's function among the checks cannot be loaded: before training, not after."""
    with Checker() as checker:
        checker.load(prompts)


def check_prompts(
    prompts: Sequence[Prompt],
    *,
    base: Path,
    chat_template: Path | None,
    n_ctx: int,
    key: str = "evaluate.prompts",
) -> None:
    """DataError where a prompt, of the recipe's `key`, leaves no room for an answer: before training, not after."""
    template = ChatTemplate.of(load_tokenizer(base), chat_template)
    for prompt in prompts:
        tokens = len(template.encode(prompt.conversation, add_generation_prompt=True))
        if tokens >= n_ctx:
            raise DataError(
                f"{key}: {prompt.suite}: {prompt.id} has {tokens} tokens; expected fewer than {n_ctx}, "
                "so that there is room for an answer",
                hint="Shorten or remove it. The room is sft.max_seq_len + evaluate.max_new_tokens, and at most "
                "the context of the base.",
            )
