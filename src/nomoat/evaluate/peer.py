"""An outside model on the owner's held-out prompts, judged by the checks that judge every generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nomoat.chat.conversation import Conversation
from nomoat.engine.base import Sampling
from nomoat.engine.openai import OpenAIEngine
from nomoat.errors import DataError, EngineError
from nomoat.evaluate.checker import Checker
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.interview import Failed, Interview, Progress
from nomoat.evaluate.prompts import Prompt
from nomoat.evaluate.stats.intervals import paired_difference_of_rates
from nomoat.ledger.rows import Sample

BOOTSTRAP_SAMPLES = 10_000


@dataclass(frozen=True)
class SuiteResult:
    """Which prompts of a suite were passed, by id; those that were not answered are not among them."""

    suite: str
    passed: Mapping[str, bool]
    unanswered: int


def ask_suites(
    interview: Interview[str], prompts: Sequence[Prompt], progress: Progress = lambda done, total: None
) -> list[SuiteResult]:
    """Have all prompts with checks answered, suite by suite in the order of their files. A suite without an answer is
    left out.

    Raises DataError where no prompt has checks, or as `Checker` does, EngineError where most are not answered.
    """
    checked = [prompt for prompt in prompts if prompt.checks]
    if not checked:
        raise DataError(
            "peer: no held-out prompt has checks, so that nothing can be measured",
            hint='Name files of prompts with checks: evaluate.prompts: [mine.jsonl], a line such as {"messages": '
            '[...], "checks": [{"kind": "words", "max": 50}]}',
        )
    with Checker() as checker:
        checker.load(checked)  # before anything is paid for
        replies = interview.replies([prompt.conversation for prompt in checked], progress)
        return _results(checked, replies, checker)


def _results(
    prompts: Sequence[Prompt], replies: Sequence[str | Failed], checker: Checker
) -> list[SuiteResult]:
    found = []
    for suite in dict.fromkeys(prompt.suite for prompt in prompts):
        answers = [
            (prompt, reply) for prompt, reply in zip(prompts, replies, strict=True) if prompt.suite == suite
        ]
        passed = {
            prompt.id: checker.passes(prompt, reply)
            for prompt, reply in answers
            if not isinstance(reply, Failed)
        }
        if passed:
            found.append(SuiteResult(suite, passed, len(answers) - len(passed)))
    return found


def reply_of(engine: OpenAIEngine, question: Conversation, sampling: Sampling) -> str | Failed:
    """The endpoint's answer."""
    try:
        (reply,) = engine.generate([question], sampling)
    except EngineError as error:
        return Failed("no answer", error.message)
    return reply.text


def difference_to(
    samples: Sequence[Sample], prompts: Sequence[Prompt], result: SuiteResult, *, confidence: float
) -> Estimate | None:
    """A generation's pass rate minus the outside model's, on the prompts that both answered; None where these are fewer
    than two. A prompt that was another one when the generation answered it is not the same."""
    asked = {
        prompt.id: [message.to_dict() for message in prompt.conversation.messages]
        for prompt in prompts
        if prompt.suite == result.suite
    }
    pairs = [
        (result.passed[sample.prompt_id], sample.tuned_passed)
        for sample in samples
        if sample.suite == result.suite
        and sample.prompt_id in result.passed
        and sample.tuned_passed is not None
        and sample.prompt == asked[sample.prompt_id]
    ]
    if len(pairs) < 2:
        return None
    return paired_difference_of_rates(
        pairs.count((True, False)),
        pairs.count((False, True)),
        len(pairs),
        confidence=confidence,
        samples=BOOTSTRAP_SAMPLES,
        seed=0,
    )
