"""lm-eval's tasks against a GGUF file: its own tasks, or those of local files, with an interval beside every number.

Importing it needs the extra `eval`. Contexts that do not fit are cut at their beginning, as lm-eval's own models do it,
but counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from nomoat.chat.conversation import Conversation, parse_messages
from nomoat.data.overlap import SHINGLE, Question
from nomoat.engine.base import Sampling
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.engine.request import Request, whole_answer
from nomoat.errors import DataError, EngineError
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats.intervals import normal_quantile, paired_bootstrap_mean, wilson
from nomoat.evaluate.stats.winrate import standard_error

LONGEST_ANSWER = 256
"""Tokens of an answer where its task does not say, as lm-eval's own models have it."""
BOOTSTRAP = {"samples": 10_000, "seed": 0}


@dataclass(frozen=True)
class TaskScore:
    """One metric of a task. `filter` is how lm-eval took the answer out of the text, 'none' where it did not; `by_item`
    holds the metric of each document, where the score is their mean."""

    task: str
    metric: str
    filter: str
    higher_is_better: bool | None
    score: Estimate
    by_item: dict[int, float]


@dataclass(frozen=True)
class TaskRun:
    """All scores of a run; `cut` contexts did not fit and lost their beginning, of `asked`. `questions` are all texts
    of the documents that say something: what they ask, tell and answer."""

    scores: list[TaskScore]
    cut: int
    asked: int
    questions: list[Question]


def run_tasks(
    engine: LlamaServerEngine,
    tasks: Sequence[str],
    *,
    task_files: Path | None,
    limit: int | None,
    num_fewshot: int | None,
    chat: bool,
    confidence: float,
    progress: Callable[[int], None],
) -> TaskRun:
    """Evaluate on `tasks`, names of lm-eval's or of YAML files in the folder `task_files`. `chat` renders every prompt
    with the served chat template. `progress` is told how many requests were answered.

    Raises DataError where a task is not known, cannot be loaded, or has fewer than two documents.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    folder = str(task_files) if task_files else None
    manager = TaskManager(include_path=folder, include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):  # reading lm-eval's own thousands takes up to a minute
        manager = TaskManager(include_path=folder)
    for name in tasks:
        if name not in manager.all_tasks:
            raise DataError(
                f"--tasks: lm-eval knows no task {name}",
                hint="Its own are listed by: lm-eval ls tasks. Local YAML files are looked for in --task-files DIR.",
            )
    model = EngineModel(engine, chat=chat, progress=progress)
    try:
        found = simple_evaluate(
            model=model,
            tasks=list(tasks),
            num_fewshot=num_fewshot,
            limit=limit,
            bootstrap_iters=1000,
            apply_chat_template=chat,
            task_manager=manager,
        )
    except (OSError, ValueError) as error:
        if isinstance(error, DataError | EngineError):
            raise
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"--tasks {','.join(tasks)}: lm-eval cannot load or score them: {said}",
            hint="Without a network a task needs data files: dataset_path: json, dataset_kwargs: {data_files: ...}.",
        ) from error
    assert found is not None  # this process is the only one
    scores, questions = list(_scores(found, confidence)), list(_questions(found["samples"]))
    return TaskRun(scores, model.cut, model.asked, questions)


def paired_difference(one: TaskScore, other: TaskScore, confidence: float) -> Estimate | None:
    """How much higher `one` scores than `other` on the same documents, with the paired bootstrap's interval; None where
    every document differs by the same, or the metric is no mean."""
    shared = sorted(one.by_item.keys() & other.by_item.keys())
    try:
        return paired_bootstrap_mean(
            [one.by_item[item] - other.by_item[item] for item in shared], confidence=confidence, **BOOTSTRAP
        )
    except ValueError:
        return None


@final
class EngineModel(TemplateLM):
    """A loaded GGUF file as lm-eval asks for a model. `cut` and `asked` count contexts."""

    def __init__(self, engine: LlamaServerEngine, *, chat: bool, progress: Callable[[int], None]) -> None:
        super().__init__()
        self._engine, self._chat, self._progress = engine, chat, progress
        self.tokenizer = engine.template.tokenizer
        self.cut = self.asked = 0

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def max_length(self) -> int:
        return self._engine.n_ctx

    @property
    def tokenizer_name(self) -> str:
        return self._engine.template.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str:
        return self._engine.template.source

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        talk = Conversation(parse_messages(chat_history, "lm-eval"))
        return self._engine.template.render(talk, add_generation_prompt=add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        # a rendered chat begins as its template says, and is served without anything added
        begins = not self._chat if add_special_tokens is None else add_special_tokens
        return self._engine.tokenize(string, begins=begins)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, in windows that each know one token before them."""
        return [
            sum(logp for logp, _ in self._weighed(self._windows(request.args[0]))) for request in requests
        ]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        with ThreadPoolExecutor(self._engine.n_parallel) as pool:
            return [
                self._count(text) for text in pool.map(lambda request: self._answer(*request.args), requests)
            ]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return list(self._weighed((context, continuation) for _, context, continuation in requests))

    def _weighed(self, parts: Iterable[tuple[list[int], list[int]]]) -> Iterator[tuple[float, bool]]:
        """log p of each continuation after its context, and whether it is what greedy decoding writes."""
        for context, continuation in parts:
            tokens = self._fitted(context, self.max_length - len(continuation)) + continuation
            weighed = self._engine.weigh(tokens, 1)[-len(continuation) :] if continuation else []
            logp = sum(written.chosen.logprob or 0.0 for written in weighed)
            yield self._count((logp, all(w.top[0].token == w.chosen.token for w in weighed)))

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        tokens = self.tok_encode(text, add_special_tokens=False)
        windows = get_rolling_token_windows(
            tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length - 1, context_len=1
        )
        return map(make_disjoint_window, windows)

    def _answer(self, context: str, wanted: Mapping[str, Any]) -> str:
        most = min(int(wanted.get("max_gen_toks", LONGEST_ANSWER)), self.max_length - 1)
        until = wanted.get("until") or []
        sampling = Sampling(
            max_new_tokens=most,
            temperature=float(wanted.get("temperature", 1.0)) if wanted.get("do_sample") else 0.0,
            top_p=float(wanted.get("top_p", 1.0)),
            top_k=int(wanted.get("top_k", 0)),
            stop=(until,) if isinstance(until, str) else tuple(until),
        )
        prompt = self._fitted(self.tok_encode(context), self.max_length - most)
        pieces, _ = whole_answer(self._engine, Request(tuple(prompt), sampling))
        return "".join(piece.text for piece in pieces)

    def _fitted(self, context: list[int], room: int) -> list[int]:
        if room < 1:
            raise EngineError(
                f"a task's continuation leaves no room for its context in {self.max_length} tokens",
                hint="Give more: --context N, up to what the model was made for.",
            )
        self.cut += len(context) > room
        return context[-room:]

    def _count(self, found: Any) -> Any:
        self.asked += 1
        self._progress(self.asked)
        return found


def _scores(found: Mapping[str, Any], confidence: float) -> Iterator[TaskScore]:
    """Every number that lm-eval gives, task by task, with its interval."""
    for task, results in found["results"].items():
        items = found["samples"].get(task, [])
        better = found["higher_is_better"].get(task, {})
        for key, value in results.items():
            metric, _, filter = key.partition(",")
            if not filter or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            by_item = _by_item(items, metric, filter)
            n = len(by_item) or _documents(task, found)
            if n < 2:
                raise DataError(
                    f"--tasks: {task} has {n} document; expected at least 2, for one alone has no error"
                )
            error = results.get(f"{metric}_stderr,{filter}")
            score = _estimate(float(value), list(by_item.values()), error, n, confidence)
            if score.value != _mean(by_item):
                by_item = {}
            yield TaskScore(task, metric, filter, better.get(metric), score, by_item)


def _questions(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Question]:
    """The texts of every document, field by field: so neither a task's own words nor its examples are among them."""
    for task, items in samples.items():
        for number, document in {int(item["doc_id"]): item["doc"] for item in items}.items():
            for text in _texts(document):
                if len(text.split()) >= SHINGLE:  # fewer are labels and numbers
                    yield Question(task, str(number), text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _documents(task: str, found: Mapping[str, Any]) -> int:
    """How many documents a task has, or all the tasks of a group."""
    if task in found["n-samples"]:
        return int(found["n-samples"][task]["effective"])
    return sum(_documents(name, found) for name in found["group_subtasks"].get(task, []))


def _by_item(items: Sequence[Mapping[str, Any]], metric: str, filter: str) -> dict[int, float]:
    return {
        int(item["doc_id"]): float(item[metric])
        for item in items
        if item.get("filter") == filter and isinstance(item.get(metric), int | float)
    }


def _mean(by_item: Mapping[int, float]) -> float | None:
    return sum(by_item.values()) / len(by_item) if by_item else None


def _estimate(value: float, items: list[float], error: Any, n: int, confidence: float) -> Estimate:
    """Wilson's interval of a share; else plus and minus the standard error, of the documents or lm-eval's own. Of a
    perplexity lm-eval tells no error: its ends are NaN, and shown as not known."""
    is_mean = bool(items) and abs(sum(items) / len(items) - value) < 1e-9
    if is_mean and set(items) <= {0.0, 1.0}:
        return wilson(sum(items), n, confidence)
    if is_mean:
        value, error = sum(items) / len(items), standard_error(items)
    half = normal_quantile(confidence) * float(error) if isinstance(error, int | float) else float("nan")
    return Estimate(value, value - half, value + half, n)
