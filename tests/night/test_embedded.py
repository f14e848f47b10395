"""The embedded base: its F16 file answers as torch does, token for token, from the same rendered bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nomoat
from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.mask import render_trained
from nomoat.chat.template import ChatTemplate
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.evaluate.prompts import read_prompts
from nomoat.model.load import load_tokenizer
from nomoat.quantize.convert import to_gguf

ASSETS = Path(nomoat.__file__).parent / "assets"
TOKENS = 32


@pytest.mark.slow
def test_the_f16_file_equals_torch_token_for_token_on_twenty_prompts(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = ASSETS / "base"
    to_gguf(base, tmp_path / "base-F16.gguf", type="F16")
    template = ChatTemplate.of(load_tokenizer(base))
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    questions = [p.conversation for p in read_prompts(ASSETS / "starter" / "heldout.jsonl", most=20)]
    with LlamaCppEngine(tmp_path / "base-F16.gguf", tokenizer_dir=base, exact=True) as engine:
        answers = engine.generate(questions, Sampling(max_new_tokens=TOKENS))
    assert len(answers) == 20
    for question, answer in zip(questions, answers, strict=True):
        ids = torch.tensor([template.encode(question, add_generation_prompt=True)])
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        assert list(answer.tokens) == found[0, ids.shape[1] :].tolist(), question


def test_training_sees_the_tokens_that_serving_sends() -> None:
    template = ChatTemplate.of(load_tokenizer(ASSETS / "base"))
    user, answer = Message("user", "A story about Milo, please."), Message("assistant", "Once upon a time.")
    served = template.encode(Conversation((user,)), add_generation_prompt=True)
    trained = render_trained(template, Conversation((user, answer)))
    assert trained.tokens[: len(served)] == served
    assert not any(trained.trained[: len(served)])
    stop = next(
        i for i in range(len(served), len(trained.tokens)) if trained.tokens[i] in template.stop_token_ids
    )
    assert all(trained.trained[len(served) : stop + 1])
    assert not any(trained.trained[stop + 1 :])
