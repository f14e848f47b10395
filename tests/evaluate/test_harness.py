"""lm-eval's tasks from local files against our engines, beside lm-eval's own transformers model on the same weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from helpers import tiny_models
from helpers.endpoints import Reply, listening, said
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.engine.openai import OpenAIEngine
from nomoat.engine.request import Request
from nomoat.engine.torchserver import TorchEngine
from nomoat.errors import DataError, EngineError
from nomoat.model.load import Machine
from nomoat.quantize.convert import to_gguf

if TYPE_CHECKING:
    from nomoat.evaluate.harness_models import EngineModel, Weighing

lm_eval = pytest.importorskip("lm_eval", reason="the extra eval is not installed")
pytestmark = pytest.mark.slow

WORDS = ("cat", "dog", "old tree", "small boat", "red ball", "moon")
CHOICE = """\
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Where is the {{{{word}}}}? It is"
doc_to_choice: [" on the hill", " in the house", " under the old red roof"]
doc_to_target: target
metric_list:
  - metric: acc
  - metric: acc_norm
"""
TEXT = """\
task: tiny_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
"""
ANSWER = """\
task: tiny_answer
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "The {{{{word}}}}"
doc_to_target: "{{{{word}}}}"
generation_kwargs: {{until: ["e"], max_gen_toks: 12}}
metric_list:
  - metric: exact_match
"""
NAMES = ["tiny_choice", "tiny_text", "tiny_answer"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"word": f"{w} {n}", "target": n % 3, "text": f"The {w} saw {n} birds. " * 9}
        for n in range(4)
        for w in WORDS
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in zip(NAMES, (CHOICE, TEXT, ANSWER), strict=True):
        (folder / f"{name}.yaml").write_text(text.format(file=folder / "rows.jsonl"))
    one = folder / "one.jsonl"
    one.write_text(json.dumps(rows[0]) + "\n")
    (folder / "one.yaml").write_text(CHOICE.format(file=one).replace("tiny_choice", "tiny_one"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_models.build(tmp_path_factory.mktemp("model"), "llama")
    to_gguf(folder, folder / "model.gguf", type="F32")
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LlamaServerEngine]:
    with LlamaServerEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True, n_parallel=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def weights(folder: Path) -> Iterator[TorchEngine]:
    with TorchEngine(folder, n_parallel=2, machine=Machine("cpu", torch.float32)) as engine:
        yield engine


def run(
    engine: Weighing, tasks: Path, names: list[str], *, chat: bool = False, limit: int | None = None
) -> Any:
    from nomoat.evaluate.harness import run_tasks

    return run_tasks(
        model_of(engine, chat=chat), names, task_files=tasks, limit=limit, num_fewshot=None, confidence=0.95
    )


def model_of(engine: Weighing, *, chat: bool = False) -> EngineModel:
    from nomoat.evaluate.harness_models import EngineModel

    return EngineModel(engine, chat=chat, progress=lambda n: None)


@pytest.mark.parametrize("name", ["llama.cpp", "torch"])
def test_every_kind_of_task_gives_what_lm_evals_own_model_gives(
    name: str, engine: LlamaServerEngine, weights: TorchEngine, folder: Path, tasks: Path
) -> None:
    found = run(engine if name == "llama.cpp" else weights, tasks, NAMES)
    peer = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32", "max_length": engine.n_ctx},
        device="cpu",
        tasks=NAMES,
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=10,
    )
    assert peer is not None
    scores = {(score.task, score.metric): score for score in found.scores}
    assert scores.keys() == {
        ("tiny_choice", "acc"), ("tiny_choice", "acc_norm"),
        ("tiny_text", "word_perplexity"), ("tiny_answer", "exact_match"),
    }  # fmt: skip
    for (task, metric), score in scores.items():
        # float32 on both sides; a perplexity is an exponential of sums of some hundred logarithms
        assert score.score.value == pytest.approx(peer["results"][task][f"{metric},none"], rel=1e-4), task
        is_known = score.score.low <= score.score.value <= score.score.high
        assert is_known or (metric == "word_perplexity" and math.isnan(score.score.low)), (
            "lm-eval tells no error"
        )
    choice = scores["tiny_choice", "acc"]
    assert choice.by_item == {item["doc_id"]: item["acc"] for item in peer["samples"]["tiny_choice"]}
    assert (choice.score.n, choice.higher_is_better) == (24, True)
    assert (found.cut, found.asked) == (0, 24 * 3 + 24 + 24)
    asked = [one for one in found.questions if (one.suite, one.id) == ("tiny_choice", "0")]
    assert [one.text for one in asked] == ["The cat saw 0 birds. " * 9], "the word alone is a label"
    assert len(found.questions) == 3 * (24 + 3 * 4), "half of the words have three with their number"


def test_weights_their_f16_file_and_lm_evals_own_model_give_the_same(
    folder: Path, weights: TorchEngine
) -> None:
    """Greedy answers are equal to the letter; log p in float32, and within what llama.cpp loses in float16."""
    from lm_eval.models.huggingface import HFLM

    to_gguf(folder, folder / "half.gguf", type="F16")
    texts = [(f"The {word} saw", f" {n} birds and the") for n in range(4) for word in WORDS]
    asked = [SimpleNamespace(args=(text, {"until": ["e"], "max_gen_toks": 12})) for text, _ in texts]
    scored = [SimpleNamespace(args=pair) for pair in texts]
    with LlamaServerEngine(folder / "half.gguf", tokenizer_dir=folder, exact=True, n_parallel=1) as file:
        models = [model_of(weights), model_of(file), HFLM(str(folder), dtype="float32", device="cpu")]
        answers = [model.generate_until(asked) for model in models]
        found = [model.loglikelihood(scored) for model in models]
    # of a character that is not finished where the answer is cut llama.cpp tells nothing
    mine, in_file, peers = ([text.rstrip("\ufffd") for text in each] for each in answers)
    assert mine == peers
    assert in_file == peers
    assert sum(map(bool, mine)) == len(texts)
    for each, within in ((found[0], 1e-5), (found[1], 5e-4)):
        assert [logp for logp, _ in each] == pytest.approx([logp for logp, _ in found[2]], rel=within)
        assert [is_greedy for _, is_greedy in each] == [is_greedy for _, is_greedy in found[2]]


def test_several_answers_to_one_prompt_are_drawn_apart(weights: TorchEngine) -> None:
    wanted = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 12}
    asked = [SimpleNamespace(args=("The moon", wanted))] * 3
    found = model_of(weights).generate_until(asked)
    assert len(set(found)) == 3
    assert model_of(weights).generate_until(asked) == found


def test_answers_are_cut_at_until_and_the_chat_template_is_the_served_one(
    engine: LlamaServerEngine, tasks: Path
) -> None:
    model = model_of(engine, chat=True)
    text = model.apply_chat_template([{"role": "user", "content": "Hello"}])
    assert model.tok_encode(text) == engine.tokenize(text)
    plain = model_of(engine)
    assert plain.tok_encode("Hello") == engine.tokenize("Hello", begins=True)
    assert run(engine, tasks, ["tiny_answer"], chat=True, limit=3).asked == 3


BEGUN = [
    {"role": "user", "content": "Write f."},
    {"role": "assistant", "content": "```python\ndef f():\n"},
]


def test_an_answer_that_its_task_has_begun_goes_on(engine: LlamaServerEngine, tasks: Path) -> None:
    template = engine.template
    assert model_of(engine, chat=True).apply_chat_template(BEGUN, add_generation_prompt=False) == (
        template.tokenizer.apply_chat_template(
            BEGUN, chat_template=template.source, tokenize=False, continue_final_message=True
        )
    )
    text = ANSWER.format(file=tasks / "rows.jsonl").replace("tiny_answer", "tiny_begun")
    (tasks / "begun.yaml").write_text(text + 'gen_prefix: "The best answer is"\n')
    assert run(engine, tasks, ["tiny_begun"], chat=True, limit=3).asked == 3


def test_an_endpoint_is_not_asked_to_go_on_with_an_answer(tasks: Path, tmp_path: Path) -> None:
    from nomoat.evaluate.harness import run_tasks
    from nomoat.evaluate.harness_models import EndpointModel

    text = ANSWER.format(file=tasks / "rows.jsonl").replace("tiny_answer", "tiny_started")
    (tasks / "started.yaml").write_text(text + 'gen_prefix: "The best answer is"\n')
    with listening(lambda sent: (200, {}, said("no"))) as endpoint, OpenAIEngine(endpoint.url, "m") as there:
        model = EndpointModel(there, identity="m", file=tmp_path / "kept.jsonl", progress=lambda n: None)
        with pytest.raises(
            DataError, match=r'begun by its task \("The best answer is", gen_prefix\), which an'
        ):
            run_tasks(
                model, ["tiny_started"], task_files=tasks, limit=None, num_fewshot=None, confidence=0.95
            )
    assert not endpoint.seen


def test_long_contexts_are_counted(engine: LlamaServerEngine) -> None:
    model = model_of(engine)
    long = engine.tokenize("birds " * 2 * engine.n_ctx)
    model._loglikelihood_tokens([(None, long, [5, 6]), (None, long[:3], [5, 6])])
    assert (model.cut, model.asked) == (1, 2)


@pytest.mark.parametrize(
    ("context", "wanted", "read", "written", "cut"),
    [
        (20, 12, 20, 12, 0),
        (20, 32_768, 20, 236, 0),  # whose task allows more than there is
        (100, 200, 100, 156, 0),
        (250, 200, 128, 128, 1),
        (250, 12, 244, 12, 1),  # as lm-eval's own models do it
    ],
)
def test_an_answer_gives_way_to_its_context(
    context: int, wanted: int, read: int, written: int, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nomoat.evaluate import harness_models

    asked: list[Request] = []
    monkeypatch.setattr(harness_models, "whole_answer", lambda _, request: ([], asked.append(request)))
    tokenizer = SimpleNamespace(bos_token_id=1, eos_token_id=2)
    engine = SimpleNamespace(
        n_ctx=256,
        n_parallel=1,
        template=SimpleNamespace(tokenizer=tokenizer),
        tokenize=lambda text, begins: [*map(int, text.split())],
    )
    model = model_of(cast("Weighing", engine))
    text = " ".join(map(str, range(context)))
    model.generate_until([SimpleNamespace(args=(text, {"max_gen_toks": wanted}))])
    (request,) = asked
    assert request.prompt == tuple(range(context - read, context))
    assert (request.sampling.max_new_tokens, model.cut, model.asked) == (written, cut, 1)


def test_differences_are_paired(engine: LlamaServerEngine, tasks: Path) -> None:
    from nomoat.evaluate.harness import paired_difference

    one = next(s for s in run(engine, tasks, ["tiny_choice"]).scores if s.metric == "acc")
    other = type(one)(**{**vars(one), "by_item": {k: 1 - v if k < 12 else v for k, v in one.by_item.items()}})
    found = paired_difference(one, other, 0.95)
    assert found is not None
    assert found.value == pytest.approx(sum(2 * v - 1 for k, v in one.by_item.items() if k < 12) / 24)
    assert paired_difference(one, one, 0.95) is None, "alike everywhere: no spread"


def test_what_cannot_be_evaluated_is_refused(engine: LlamaServerEngine, tasks: Path) -> None:
    with pytest.raises(DataError, match="lm-eval knows no task tiny_chioce"):
        run(engine, tasks, ["tiny_chioce"])
    with pytest.raises(DataError, match="tiny_one has 1 document; expected at least 2"):
        run(engine, tasks, ["tiny_one"])
    (tasks / "gone.yaml").write_text(
        CHOICE.format(file=tasks / "nothing.jsonl").replace("tiny_choice", "gone")
    )
    with pytest.raises(DataError, match="--tasks gone: lm-eval cannot load or score them"):
        run(engine, tasks, ["gone"])


def test_an_endpoint_writes_answers_once_and_is_not_asked_how_likely_a_text_is(
    tasks: Path, tmp_path: Path
) -> None:
    from nomoat.evaluate.harness import run_tasks
    from nomoat.evaluate.harness_models import EndpointModel

    def reply(sent: dict[str, Any]) -> Reply:
        asked = sent["messages"][-1]["content"]
        is_refused = "moon 3" in asked and not is_mended
        return (
            (400, {}, {"error": {"message": "not that"}}) if is_refused else (200, {}, said(asked[4:] + "#x"))
        )

    def evaluated(names: list[str]) -> Any:
        with OpenAIEngine(endpoint.url, "m") as engine:
            model = EndpointModel(
                engine, identity="there m", file=tmp_path / "kept.jsonl", progress=lambda n: None
            )
            return run_tasks(model, names, task_files=tasks, limit=None, num_fewshot=None, confidence=0.95)

    text = ANSWER.format(file=tasks / "rows.jsonl").replace("tiny_answer", "tiny_written")
    (tasks / "written.yaml").write_text(text.replace('["e"]', '["1", "2", "3", "4", "#"]'))
    is_mended = False
    with listening(reply) as endpoint:
        with pytest.raises(
            DataError,
            match=r"tiny_choice \(multiple_choice\), tiny_text \(loglikelihood_rolling\) asks how likely",
        ) as caught:
            evaluated(["tiny_choice", "tiny_text", "tiny_written"])
        assert "(generate_until): --tasks tiny_written" in str(caught.value)
        assert not endpoint.seen, "refused before anything is paid for"
        with pytest.raises(EngineError, match="1 of 24 replies failed: no answer"):
            evaluated(["tiny_written"])
        is_mended = True
        found = evaluated(["tiny_written"])
        assert len(endpoint.seen) == 25, "answers that had come are not asked for again"
    (score,) = found.scores
    # what comes behind a text that ends answers is cut here too, so 1, 2 and 3 end the words themselves
    assert (score.score.value, score.score.n) == (0.25, 24)
    assert (found.asked, found.cut) == (24, 0)
    assert (found.spent.prompt_tokens, found.spent.completion_tokens) == (10, 4)
