"""`nomoat export`: what other programs open answers as the generation does here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import xllamacpp
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from helpers.generations import workspace_with_generation
from nomoat.chat.conversation import Conversation, Message
from nomoat.cli.export import KEYS
from nomoat.cli.main import app
from nomoat.cli.served import find_generation
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine

TALK = Conversation((Message("user", "Tell me of Lily."),))
TOKENS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace_with_generation(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def expected(made: Path) -> list[int]:
    """The generation's greedy answer here."""
    served = find_generation(made, "latest")
    with LlamaCppEngine(served.gguf, tokenizer_dir=served.tokenizer_dir, exact=True) as engine:
        return list(engine.generate([TALK], Sampling(max_new_tokens=TOKENS))[0].tokens)


def nomoat(*words: str) -> Result:
    return CliRunner().invoke(app, ["export", *words])


def exported(made: Path, program: str, out: Path) -> dict[str, Any]:
    result = nomoat(program, "--out", str(out), "--workspace", str(made), "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found.keys() == KEYS.keys()
    assert sorted(found["files"]) == sorted(
        str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()
    )
    assert str(out) in found["next"]
    return found


@pytest.mark.parametrize("program", ["transformers", "vllm"])
def test_transformers_answers_the_same_and_knows_where_to_stop(
    program: str, made: Path, tmp_path: Path, expected: list[int]
) -> None:
    exported(made, program, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    served = find_generation(made, "latest")
    with LlamaCppEngine(served.gguf, tokenizer_dir=served.tokenizer_dir) as engine:
        prompt = engine.template.encode(TALK, add_generation_prompt=True)
        assert model.generation_config.eos_token_id == list(engine.template.stop_token_ids)
    asked = tokenizer.apply_chat_template(
        [m.to_dict() for m in TALK.messages],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    assert asked["input_ids"][0].tolist() == prompt
    output = model.generate(**asked, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    assert output[0, len(prompt) :].tolist() == expected


@pytest.mark.parametrize("program", ["llamacpp", "lmstudio", "ollama"])
def test_llama_cpp_renders_and_answers_the_same(
    program: str, made: Path, tmp_path: Path, expected: list[int]
) -> None:
    """Through llama.cpp's own chat handler, which is what its programs and LM Studio use; with Ollama the
    prompt comes from the Modelfile, and tests/share/test_ollama.py holds it to the template."""
    found = exported(made, program, tmp_path / "out")
    (name,) = [file for file in found["files"] if file.endswith(".gguf")]
    if program == "lmstudio":
        assert name == "nomoat/gen-0001/gen-0001.gguf"
    gguf = tmp_path / "out" / name
    served = find_generation(made, "latest")
    assert gguf.read_bytes() == served.gguf.read_bytes()
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx, params.n_parallel, params.verbosity, params.warmup = 128, 1, -1, False
    params.hostnames = [str(tmp_path / "s.sock")]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    answer = server.handle_chat_completions(
        {"messages": [m.to_dict() for m in TALK.messages], "temperature": 0, "max_tokens": TOKENS}
    )
    del server
    with LlamaCppEngine(gguf, tokenizer_dir=served.tokenizer_dir) as engine:
        prompt = engine.template.encode(TALK, add_generation_prompt=True)
        text = engine.template.tokenizer.decode(expected, skip_special_tokens=True)
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    assert answer["choices"][0]["message"]["content"] == text.rstrip("\ufffd")
    field = GGUFReader(gguf).get_field("tokenizer.chat_template")
    assert field is not None and field.contents()


def test_a_modelfile_lies_beside_the_file(made: Path, tmp_path: Path) -> None:
    found = exported(made, "ollama", tmp_path / "out")
    assert found["files"] == ["Modelfile", "gen-0001.gguf"]
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith("FROM ./gen-0001.gguf\n")
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER num_ctx 256" in text


def test_nothing_is_written_over_and_nothing_is_left_half_done(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    again = nomoat("llamacpp", "--out", str(out), "--workspace", str(made))
    assert again.exit_code == 2
    assert f"Error: {out}: is there already\n  Give another folder: --out DIR\n" == again.stderr
    base = nomoat("vllm", "base", "--out", str(tmp_path / "base"), "--workspace", str(made))
    assert base.exit_code == 2
    assert "its weights in transformers' form are not in this workspace" in base.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert nomoat("llamacpp", "base", "--out", str(tmp_path / "b"), "--workspace", str(made)).exit_code == 0
