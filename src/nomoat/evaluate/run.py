"""Answer prompts with both models and measure both on held-out rows: the raw material of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.evaluate.checks import run_checks
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


def judge(prompts: Sequence[Prompt], base: Sequence[str], tuned: Sequence[str]) -> list[Answer]:
    """Both models' answers with what every check says; a prompt passes when all its checks do."""
    return [_judged(*triple) for triple in zip(prompts, base, tuned, strict=True)]


def _judged(prompt: Prompt, base: str, tuned: str) -> Answer:
    checks: list[dict[str, Any]] = [
        {
            "kind": of_base.kind,
            "base_passed": of_base.passed,
            "tuned_passed": of_tuned.passed,
            "base_detail": of_base.detail,
            "tuned_detail": of_tuned.detail,
        }
        for of_base, of_tuned in zip(
            run_checks(base, prompt.checks), run_checks(tuned, prompt.checks), strict=True
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
