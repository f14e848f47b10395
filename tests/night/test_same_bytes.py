"""Training, evaluation and chat render the same bytes, with the tokenizer's template and with the owner's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from helpers.nights import run, write_rows
from nomoat.chat.conversation import Conversation, parse_messages
from nomoat.chat.template import ChatTemplate
from nomoat.cli.served import find_base, find_generation
from nomoat.data.store import TokenStore
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.ledger.artifacts import HOUSE
from nomoat.model.load import load_tokenizer, resolve_base

OWN = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + ':' + message['content'] + '<|im_end|>' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant:' }}{%- endif -%}"
)


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_the_embedded_base_through_a_night(own: bool, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 40)
    words = ["base=embedded", f"data.train={rows}", "sft.max_steps=2"]
    if own:
        (tmp_path / "own.jinja").write_text(OWN)
        words.append(f"data.chat_template={tmp_path / 'own.jinja'}")
    summary = run(tmp_path, *words)
    template = ChatTemplate.of(
        load_tokenizer(resolve_base("embedded", tmp_path)), tmp_path / "own.jinja" if own else None
    )
    (data,) = tmp_path.glob(f"{HOUSE}/artifacts/data-*")
    talks = [json.loads(line) for line in (data / "held_out.jsonl").read_text().splitlines()]
    whole = [Conversation(parse_messages(talk["messages"], "held out")) for talk in talks]
    asked = [Conversation(talk.messages[:-1]) for talk in whole]
    prompts = [template.encode(talk, add_generation_prompt=True) for talk in asked]

    store = TokenStore.open(data / "held_out")
    assert len(store) == len(whole) > 1
    for (tokens, trained), talk, prompt in zip(store, whole, prompts, strict=True):
        assert tokens.tolist() == template.encode(talk, add_generation_prompt=False)
        assert tokens.tolist()[: len(prompt)] == prompt
        assert trained.tolist().index(True) == len(prompt)  # training begins where the served prompt ends

    evaluated = [Conversation(parse_messages(a.messages, "")) for a in summary.comparison.answers]
    assert len(evaluated) > 1
    assert all(talk in asked for talk in evaluated)
    for which, served in (("tuned", find_generation), ("base", find_base)):
        model = served(tmp_path, "latest")  # as `nomoat chat` opens it
        with LlamaCppEngine(model.gguf, tokenizer_dir=model.tokenizer_dir) as engine:
            assert [engine.template.encode(talk, add_generation_prompt=True) for talk in asked] == prompts
            told = engine.generate(evaluated, Sampling(max_new_tokens=16))
        assert [answer.text for answer in told] == [getattr(a, which) for a in summary.comparison.answers]
        field = GGUFReader(model.gguf).get_field("tokenizer.chat_template")
        assert field is not None
        assert field.contents() == template.source  # for other programs that open the file
