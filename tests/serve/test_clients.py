"""lm-eval's own API clients, unmodified, against `nomoat serve` with the embedded base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import nomoat
from helpers.serving import Running, serving
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.model.load import load_tokenizer
from nomoat.quantize.convert import to_gguf

lm_eval = pytest.importorskip("lm_eval", reason="the extra eval is not installed")
pytest.importorskip("tenacity", reason="lm-eval's API clients need it")
pytestmark = pytest.mark.slow

BASE = Path(nomoat.__file__).parent / "assets" / "base"
TOKENS = 12
WORDS = ("cat", "old tree", "small boat")
HEAD = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
"""
CHOICE = """\
output_type: multiple_choice
doc_to_text: "Where is the {{word}}? It is"
doc_to_choice: [" on the hill", " under the old red roof"]
doc_to_target: target
metric_list:
  - metric: acc
"""
ANSWER = """\
output_type: generate_until
doc_to_text: "The {{word}}"
doc_to_target: "{{word}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, do_sample: false}
metric_list:
  - metric: exact_match
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    gguf = to_gguf(BASE, tmp_path_factory.mktemp("base") / "base-F32.gguf", type="F32").path

    def open_engine() -> LlamaServerEngine:
        return LlamaServerEngine(gguf, tokenizer_dir=BASE, exact=True, n_parallel=2)

    with serving({"base": open_engine}) as running:
        yield running


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"word": w, "target": i % 2}) + "\n" for i, w in enumerate(WORDS)))
    for name, text in {"tiny_choice": CHOICE, "tiny_answer": ANSWER}.items():
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name, rows=rows) + text)
    return folder


def asked(folder: Path, client: str, url: str, names: list[str], **more: Any) -> dict[str, list[Any]]:
    """The samples of each task, which hold what was asked and what came: `arguments` and `resps`."""
    found = lm_eval.simple_evaluate(
        model=client,
        model_args={"model": "base", "base_url": url, "max_retries": 1, "num_concurrent": 1, **more},
        tasks=names,
        task_manager=lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=10,
        log_samples=True,
        apply_chat_template="chat" in client,
    )
    assert found is not None
    samples: dict[str, list[Any]] = found["samples"]
    return samples


def test_local_completions_gets_what_transformers_gives(base: Running, tasks: Path) -> None:
    url = f"{base.url}/v1/completions"
    samples = asked(tasks, "local-completions", url, ["tiny_choice", "tiny_answer"], tokenizer=str(BASE))
    tokenizer = load_tokenizer(BASE)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    for sample in samples["tiny_choice"]:
        for (context, choice), ((logp, is_greedy),) in zip(sample["arguments"], sample["resps"], strict=True):
            prompt, tokens = tokenizer.encode(context), torch.tensor(tokenizer.encode(context + choice))
            with torch.no_grad():
                logp_TV = model(tokens[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            chosen = tokens[len(prompt) :]
            # a few tokens, in float32 by two programs
            assert logp == pytest.approx(float(logp_TV.gather(1, chosen[:, None]).sum()), abs=1e-3)
            assert is_greedy == bool((logp_TV.argmax(-1) == chosen).all())
    for sample in samples["tiny_answer"]:
        prompt = torch.tensor([tokenizer.encode(sample["arguments"][0][0])])
        with torch.no_grad():
            written = model.generate(prompt, max_new_tokens=TOKENS, do_sample=False)[0, prompt.shape[1] :]
        assert sample["resps"] == [[tokenizer.decode(written, skip_special_tokens=True).partition("\n")[0]]]


def test_local_chat_completions_gets_what_the_chat_says(base: Running, tasks: Path) -> None:
    samples = asked(tasks, "local-chat-completions", f"{base.url}/v1/chat/completions", ["tiny_answer"])
    with base.client() as client:
        for word, sample in zip(WORDS, samples["tiny_answer"], strict=True):
            body = {
                "model": "base",
                "messages": [{"role": "user", "content": f"The {word}"}],
                "temperature": 0,
                "max_tokens": TOKENS,
                "stop": ["\n"],
            }
            answer = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            assert answer and sample["resps"] == [[answer]]
