"""A jinja template and the Go template made of it write the same bytes, or it is refused."""

from __future__ import annotations

import pytest

from helpers import chat_templates, go_template, tiny_models
from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.template import CHATML, ChatTemplate
from nomoat.errors import DataError
from nomoat.share.ollama import modelfile, wrapping_of

TALKS = [
    [("user", "Hello")],
    [("system", "Be “kind”."), ("user", "Hello")],
    [("user", "One\nTwo"), ("assistant", 'say "3" {{ .X }}'), ("user", "Четыре")],
    [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
]


def template_of(name: str) -> ChatTemplate:
    if name == "ours":
        return ChatTemplate(tiny_models.byte_level(), CHATML, "default")
    family = next(family for family in chat_templates.FAMILIES if family.name == name)
    return ChatTemplate.of(family.tokenizer())


@pytest.mark.parametrize("name", ["ours", "chatml", "smollm", "llama3", "gemma", "mistral"])
def test_the_go_template_writes_what_the_jinja_one_does(name: str) -> None:
    template = template_of(name)
    source = wrapping_of(template).go_template()
    assert "\n" not in source and '"""' not in source
    shown = 0
    for turns in TALKS:
        messages = tuple(Message(role, text) for role, text in turns)
        try:
            expected = template.render(Conversation(messages), add_generation_prompt=True)
        except DataError:  # some families take no system text
            continue
        system = next((text for role, text in turns if role == "system"), "")
        values = {"System": system, "Messages": [{"Role": role, "Content": text} for role, text in turns]}
        assert go_template.render(source, values) == expected
        shown += 1
    assert shown >= 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama2", "puts the system text inside another turn"),
        ("phi3", "does not show the turns in their order"),
    ],
)
def test_a_template_that_does_more_is_refused(name: str, said: str) -> None:
    """Llama 2 folds the system text into the first question; Phi-3 closes a conversation that has ended."""
    with pytest.raises(DataError, match=said) as caught:
        wrapping_of(template_of(name))
    assert "export it for llama.cpp or LM Studio" in str(caught.value)


def test_a_template_that_counts_its_turns_is_refused() -> None:
    counting = CHATML.replace("message['role'] + '", "message['role'] + (loop.index | string) + '")
    assert counting != CHATML
    with pytest.raises(DataError, match="otherwise than turn by turn|in their order"):
        wrapping_of(ChatTemplate(tiny_models.byte_level(), counting, "mine"))


def test_a_modelfile_names_the_file_the_stops_and_the_context() -> None:
    lines = modelfile("gen-0001.gguf", template_of("ours"), n_ctx=512).splitlines()
    assert lines[0] == "FROM ./gen-0001.gguf"
    assert lines[1].startswith('TEMPLATE """{{ ') and lines[1].endswith('}}"""')
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert lines[-1] == "PARAMETER num_ctx 512"
