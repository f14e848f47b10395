"""The stage `sample`: pairs of a model's own answers, judged by the checks of their prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from nomoat.engine.base import Completion, Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.errors import DataError
from nomoat.evaluate.checker import Checker
from nomoat.evaluate.prompts import Prompt
from nomoat.night.contamination import row_of
from nomoat.night.evaluation import owners_prompts
from nomoat.night.jobs import Folders, Outcome, Report
from nomoat.train.hooks import Interrupted

PAIRS = "pairs.jsonl"
_ANSWERS = "answers.jsonl"
Judged = tuple[str, bool | None]
"""An answer and whether it is good, or None."""


def run_sample(
    folders: Folders,
    report: Report,
    *,
    gguf: Path,
    tokenizer_dir: Path,
    chat_template: Path | None,
    prompt_files: Sequence[Path],
    samples: int,
    temperature: float,
    max_new_tokens: int,
    n_ctx: int,
    threads: int,
    seed: int,
    stop_asked: Callable[[], bool],
    leave_out: Collection[str] = (),
) -> Outcome:
    """Answer every prompt `samples` times with the file `gguf`, but for those whose content's hash is in `leave_out`,
    and write `pairs.jsonl`: preference rows of answers that pass all checks of their prompt, each beside one that does
    not.

    An answer that does not end by itself passes nothing, and one of which an owner's function cannot tell is neither
    good nor bad. Answers are kept in the scratch folder prompt by prompt, and
    every one draws with a seed of its own, so that a stopped stage goes on to the same bytes. Raises DataError where
    no prompt had answers of both kinds.
    """
    prompts = prompts_with_checks(prompt_files, leave_out)
    kept = folders.scratch / _ANSWERS
    done = _kept(kept)
    with (
        LlamaCppEngine(
            gguf,
            tokenizer_dir=tokenizer_dir,
            n_ctx=n_ctx,
            n_threads=threads,
            n_parallel=samples,  # a prompt's answers alone, so that what came before changes none of them
            chat_template=chat_template,
        ) as engine,
        kept.open("a", encoding="utf-8", newline="\n") as file,
        Checker() as checker,
    ):
        for index in range(len(done), len(prompts)):
            if stop_asked():
                raise Interrupted(f"stopped after answers to {index} of {len(prompts)} prompts")
            report(index / len(prompts), None, f"answers to prompt {index + 1} of {len(prompts)}")
            sampling = Sampling(
                max_new_tokens=max_new_tokens, temperature=temperature, seed=seed + index * samples
            )
            found = engine.generate([prompts[index].conversation] * samples, sampling)
            done.append([_judged(prompts[index], completion, checker) for completion in found])
            file.write(json.dumps(done[-1], ensure_ascii=False) + "\n")
            file.flush()
    rows = [row for prompt, answers in zip(prompts, done, strict=True) for row in _pairs(prompt, answers)]
    passed, answers_in_all = sum(good is True for each in done for _, good in each), len(prompts) * samples
    said = (
        f"{answers_in_all:,} answers to {len(prompts):,} prompts, of which {passed / answers_in_all:.0%} pass"
    )
    if untold := sum(good is None for each in done for _, good in each):
        said += f", and {untold:,} of which a check could not tell"
    if not rows:
        raise DataError(
            f"{said}: no prompt has answers that pass beside answers that do not, so there is nothing to learn",
            hint="Raise prefer.samples or prefer.temperature, or give prompts that the model gets right now and then.",
        )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folders.out / PAIRS).write_text(text, encoding="utf-8")
    meta = {"prompts": len(prompts), "answers": answers_in_all, "passed": passed, "pairs": len(rows)}
    return Outcome(meta, f"{said}; {len(rows):,} pairs")


def prompts_with_checks(files: Sequence[Path], leave_out: Collection[str] = ()) -> list[Prompt]:
    """The prompts of `prefer.prompts` but for those whose content's hash is in `leave_out`. DataError where none is
    left, and with file and prompt where one has no check, for then no answer to it is better than another."""
    read = owners_prompts(files)
    prompts = [prompt for prompt in read if row_of(prompt).content_hash() not in leave_out]
    if read and not prompts:
        raise DataError(
            f"prefer.prompts: all {len(read)} hold what held-out prompts ask, and data.decontaminate: remove leaves "
            "them out",
            hint="Name other prompts, or data.decontaminate: list",
        )
    for prompt in prompts:
        if not prompt.checks:
            raise DataError(
                f"prefer.prompts: {prompt.suite}: {prompt.id} has no checks; expected at least one, which says whether "
                "an answer is good",
                hint='For example: "checks": [{"kind": "includes", "words": ["kite"]}]',
            )
    return prompts


def _kept(file: Path) -> list[list[Judged]]:
    """What a run before has answered; a line that was cut off is dropped, from the file too."""
    if not file.exists():
        return []
    *whole, _ = file.read_text(encoding="utf-8").split("\n")
    file.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    return [[(text, good) for text, good in json.loads(line)] for line in whole]


def _judged(prompt: Prompt, completion: Completion, checker: Checker) -> Judged:
    """The answer, and whether it is good; None where a check cannot tell."""
    if completion.finish_reason != "stop":
        return completion.text, False
    results = checker.results(prompt.question, prompt.checks, completion.text)
    if any(result.failed is not None for result in results):
        return completion.text, None
    return completion.text, all(result.passed for result in results)


def _pairs(prompt: Prompt, answers: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """As many pairs as there are answers of the rarer kind, each answer once; empty ones are of no use."""
    good = [text for text, passed in answers if passed and text.strip()]
    bad = [text for text, passed in answers if passed is False and text.strip()]
    for chosen, rejected in zip(good, bad, strict=False):
        row = prompt.conversation.to_dict()
        yield {
            "prompt": row.pop("messages"),
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            **row,
        }
