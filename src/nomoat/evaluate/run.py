"""Answer prompts with both models and measure both on held-out rows: the raw material of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from nomoat.data.pack import Rows
from nomoat.engine.base import Sampling
from nomoat.engine.cmodel import CModel
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.evaluate.checker import Checker
from nomoat.evaluate.comparison import Answer
from nomoat.evaluate.prompts import Prompt


def answer_all(
    gguf: Path,
    prompts: Sequence[Prompt],
    *,
    tokenizer_dir: Path,
    max_new_tokens: int,
    n_ctx: int,
    threads: int,
    progress: Callable[[int], None],
) -> list[str]:
    """Greedy answers of a GGUF file, in order. One prompt at a time, since batching changes last digits."""
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
    answers = []
    with LlamaCppEngine(gguf, tokenizer_dir=tokenizer_dir, n_ctx=n_ctx, n_threads=threads) as engine:
        for done, prompt in enumerate(prompts, 1):
            answers.append(engine.generate([prompt.conversation], sampling)[0].text)
            progress(done)
    return answers


def file_losses(
    gguf: Path, rows: Rows, *, threads: int, progress: Callable[[int], None]
) -> list[tuple[float, int]]:
    """What a GGUF file makes of rows: nats of all tokens to predict, and how many these are, of each row.

    Raises:
        EngineError: the file cannot be loaded, or a row has a token that it does not know.
    """
    found = []
    with CModel(gguf) as model:
        for index in range(len(rows)):
            tokens_T, is_trained_T = rows[index]
            places = np.flatnonzero(is_trained_T[1:])  # whose next token is to be predicted
            nats, start = 0.0, 0
            for logits_PV in model.logits_in_parts(tokens_T.tolist(), n_threads=threads):
                here = places[(places >= start) & (places < start + len(logits_PV))]
                logp_PV = log_softmax(logits_PV[here - start].astype(np.float64), axis=1)
                nats -= float(logp_PV[np.arange(len(here)), tokens_T[here + 1]].sum())
                start += len(logits_PV)
            found.append((nats, len(places)))
            progress(index + 1)
    return found


def judge(
    prompts: Sequence[Prompt], base: Sequence[str], tuned: Sequence[str], checker: Checker
) -> list[Answer]:
    """Both models' answers with what every check says; a prompt passes when all its checks do. Raises DataError as
    `checker` does."""
    return [_judged(*triple, checker) for triple in zip(prompts, base, tuned, strict=True)]


def _judged(prompt: Prompt, base: str, tuned: str, checker: Checker) -> Answer:
    checks: list[dict[str, Any]] = [
        {
            "kind": of_base.kind,
            "base_passed": of_base.passed,
            "tuned_passed": of_tuned.passed,
            "base_detail": of_base.detail,
            "tuned_detail": of_tuned.detail,
        }
        for of_base, of_tuned in zip(
            *(checker.results(prompt.question, prompt.checks, text) for text in (base, tuned)), strict=True
        )
    ]
    return Answer(
        suite=prompt.suite,
        prompt_id=prompt.id,
        messages=[message.to_dict() for message in prompt.conversation.messages],
        base=base,
        tuned=tuned,
        base_passed=all(check["base_passed"] for check in checks) if checks else None,
        tuned_passed=all(check["tuned_passed"] for check in checks) if checks else None,
        checks=checks,
    )
