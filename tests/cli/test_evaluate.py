"""`nomoat evaluate` with lm-eval's part told by a test."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from helpers import tiny_models
from helpers.workspaces import two_generations
from nomoat.cli import evaluate
from nomoat.cli.chat import ChatEngine
from nomoat.cli.main import app
from nomoat.data.overlap import Overlap
from nomoat.engine.openai import Spent
from nomoat.engine.torchserver import TorchEngine
from nomoat.errors import ArtifactError, DataError
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.contamination import Contamination
from nomoat.serve.models import ServedModel


@dataclass
class Score:
    """As the harness has it."""

    task: str
    metric: str
    filter: str
    higher_is_better: bool
    score: Estimate
    by_item: dict[int, float]


MODELS = SimpleNamespace(
    EngineModel=lambda engine, **keys: SimpleNamespace(engine=engine, **keys),
    EndpointModel=lambda engine, **keys: SimpleNamespace(engine=engine, **keys),
)


def ask(*words: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *words])


def test_without_lm_eval_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "find_spec", lambda name: None)
    result = ask("--tasks", "arc_easy")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: nomoat evaluate --tasks needs lm-eval, which is not installed\n"
        '  Install it: pip install "nomoat[eval]"\n'
    )


def test_two_models_on_the_same_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the harness, and what is shown of its scores."""
    asked: list[dict[str, Any]] = []

    def score(metric: str, value: float, low: float) -> Any:
        found = Estimate(value, low, value + 0.1, 20)
        return Score(
            task="mine", metric=metric, filter="none", higher_is_better=True, score=found, by_item={}
        )

    def run_tasks(model: Any, tasks: list[str], **keys: Any) -> Any:
        asked.append({"tasks": tasks, "chat": model.chat, **keys})
        value = {"gen-0002": 0.5, "base": 0.25}[model.engine.name]
        scores = [score("acc", value, value - 0.1), score("word_perplexity", 9.5, float("nan"))]
        return SimpleNamespace(scores=scores, cut=1, asked=20, questions=[], spent=None)

    harness = SimpleNamespace(
        run_tasks=run_tasks, paired_difference=lambda one, other, confidence: Estimate(0.25, 0.05, 0.45, 20)
    )
    monkeypatch.setitem(sys.modules, "nomoat.evaluate.harness", harness)
    monkeypatch.setitem(sys.modules, "nomoat.evaluate.harness_models", MODELS)
    monkeypatch.setattr(evaluate, "find_spec", lambda name: object())
    monkeypatch.setattr(evaluate, "find_model", lambda _, which: ServedModel(which, tmp_path, tmp_path, 64))
    monkeypatch.setattr(
        evaluate, "_file", lambda model, context: SimpleNamespace(name=model.name, close=lambda: None)
    )
    words = ("gen-0002", "--tasks", "mine, arc_easy", "--against", "base", "--limit", "20", "--chat")
    found = json.loads(ask(*words, "--json").stdout)
    assert found.keys() == evaluate.KEYS.keys()
    assert found["contamination"] == {}, "there is no night here"
    assert (found["model"], found["against"], found["cut"], found["asked"]) == ("gen-0002", "base", 2, 40)
    acc, perplexity = found["scores"]
    assert (acc["score"]["value"], acc["against"]["value"], acc["difference"]["low"]) == (0.5, 0.25, 0.05)
    assert (perplexity["score"]["value"], perplexity["score"]["low"]) == (9.5, None)
    assert [(one["tasks"], one["limit"], one["chat"]) for one in asked] == [
        (["mine", "arc_easy"], 20, True)
    ] * 2
    lines = [" ".join(line.split()) for line in ask(*words).stdout.splitlines()]
    assert lines[0] == "task metric gen-0002 base difference documents"
    assert lines[2] == "mine acc 0.500 (0.400 to 0.600) 0.250 (0.150 to 0.350) 0.250 (0.050 to 0.450) 20"
    assert "9.500 (interval not known)" in lines[3]
    assert lines[4] == "2 of 40 requests were cut at their beginning to fit (--context)"


def test_what_a_generation_was_trained_on_is_held_against_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said for each generation; a base has no rows."""
    two_generations(tmp_path, lambda _: [])
    hit = Overlap("data-aa: row 3", "ab", "mine", "7", "asks the same")
    told: dict[int, Contamination | None] = {2: Contamination(1, 40, 1, 20, [hit]), 1: None}
    monkeypatch.setattr(
        "nomoat.evaluate.contamination.contamination_of", lambda _, __, generation, *more: told[generation.id]
    )
    estimate = Estimate(0.5, 0.4, 0.6, 20)
    scores = [Score("mine", "acc", "none", True, estimate, {})]
    harness = SimpleNamespace(
        run_tasks=lambda *_, **keys: SimpleNamespace(
            scores=scores, cut=0, asked=20, questions=[], spent=None
        ),
        paired_difference=lambda *_: None,
    )
    monkeypatch.setitem(sys.modules, "nomoat.evaluate.harness", harness)
    monkeypatch.setitem(sys.modules, "nomoat.evaluate.harness_models", MODELS)
    monkeypatch.setattr(evaluate, "find_spec", lambda name: object())
    monkeypatch.setattr(evaluate, "find_model", lambda _, which: ServedModel(which, tmp_path, tmp_path, 64))
    monkeypatch.setattr(evaluate, "_file", lambda *_: SimpleNamespace(close=lambda: None))
    words = ("gen-0002", "--tasks", "mine", "--workspace", str(tmp_path), "--against")
    found = json.loads(ask(*words, "gen-0001", "--json").stdout)["contamination"]
    assert found["gen-0002"] == {"rows": 1, "of_rows": 40, "documents": 1, "of": 20, "found": [asdict(hit)]}
    assert found["gen-0001"] is None
    assert json.loads(ask(*words, "base", "--json").stdout)["contamination"].keys() == {"gen-0002"}
    text = " ".join(ask(*words, "gen-0001").stdout.split())
    assert (
        "1 of 40 rows that gen-0002 was trained on hold 1 of 20 documents, word for word or nearly "
        "data-aa: row 3 holds mine 7: asks the same" in text
    )
    assert "gen-0001: the rows it was trained on are not here any more, so they were not checked" in text


def test_a_folder_of_weights_needs_no_file_and_torch_computes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_models.build(tmp_path / "model", "llama")
    found = evaluate.find_subject(tmp_path, str(folder), None)
    assert (found.name, found.tokenizer_dir) == ("model", folder)
    with closing(found.open(100)) as engine:
        assert isinstance(engine, TorchEngine)
        assert engine.n_ctx == 100
    with pytest.raises(DataError, match="model is a folder of weights, and llama.cpp reads GGUF files"):
        evaluate.find_subject(tmp_path, str(folder), ChatEngine.LLAMACPP)
    served = ServedModel("gen-0001", tmp_path / "none.gguf", folder, 64)
    monkeypatch.setattr(evaluate, "find_model", lambda *_: served)
    with closing(evaluate.find_subject(tmp_path, "gen-0001", ChatEngine.TORCH).open(4096)) as engine:
        assert isinstance(engine, TorchEngine)
    monkeypatch.setattr(evaluate, "find_model", lambda *_: replace(served, name="base", is_base=True))
    with pytest.raises(
        ArtifactError, match="base: its weights in transformers' form are not in this workspace"
    ):
        evaluate.find_subject(tmp_path, "base", ChatEngine.TORCH)


def test_an_endpoint_is_asked_as_it_is_served_and_its_cost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run_tasks(model: Any, tasks: list[str], **keys: Any) -> Any:
        asked.append(model)
        spent = Spent(1000, 20, 0.5)
        return SimpleNamespace(scores=[], cut=0, asked=20, questions=[], spent=spent)

    harness = SimpleNamespace(run_tasks=run_tasks, paired_difference=lambda *_: None)
    monkeypatch.setitem(sys.modules, "nomoat.evaluate.harness", harness)
    monkeypatch.setitem(sys.modules, "nomoat.evaluate.harness_models", MODELS)
    monkeypatch.setattr(evaluate, "find_spec", lambda name: object())
    words = ("http://127.0.0.1:1/v1/", "--tasks", "mine", "--workspace", str(tmp_path))
    assert "an endpoint answers chats only" in ask(*words, "--model", "m").stderr
    assert (
        "which of its models is to do the tasks? Give its name: --model NAME" in ask(*words, "--chat").stderr
    )
    result = ask(*words, "--model", "m", "--chat", "--json")
    found = json.loads(result.stdout)
    assert (found["model"], found["spent"]) == (
        "m",
        {"prompt_tokens": 1000, "completion_tokens": 20, "dollars": 0.5},
    )
    assert asked[0].identity == "http://127.0.0.1:1/v1 m"
    assert "1,000 tokens read, 20 written, $0.5000" in ask(*words, "--model", "m", "--chat").stdout
