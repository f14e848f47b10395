"""The form of tool calls is found in the template, and what a model writes in it is read back."""

from __future__ import annotations

import json

import pytest

from helpers import tiny_models
from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.template import CHATML, PLAIN, ChatTemplate
from nomoat.chat.tools import Call, CallForm

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}%CALLS%<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN = TURNS.replace(
    "%CALLS%",
    "{% for c in m.tool_calls or [] %}{% if loop.index0 or m.content %}{{ '\n' }}{% endif %}"
    "<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}",
)
BARE = TURNS.replace(
    "%CALLS%",
    "{% for c in m.tool_calls or [] %}"
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{% endfor %}',
)
LIST = TURNS.replace(
    "%CALLS%",
    "{% if m.tool_calls %}CALLS{{ m.tool_calls | map(attribute='function') | list | tojson }}{% endif %}",
)
NONE = TURNS.replace("%CALLS%", "")
PYTHON = TURNS.replace("%CALLS%", "{% for c in m.tool_calls or [] %}{{ c.function.name }}(){% endfor %}")


def form_of(source: str) -> CallForm | None:
    template = ChatTemplate(tiny_models.byte_level(), source, "test")
    return CallForm.of(lambda c, p: template.render(c, add_generation_prompt=p), template.stop_texts)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CHATML, CallForm("\n<tool_call>", "\n<tool_call>", "", "name", "arguments")),
        (PLAIN, CallForm("\nCall: ", "\nCall: ", "", "name", "arguments")),
        (
            QWEN,
            CallForm("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>", "name", "arguments"),
        ),
        (BARE, CallForm("", "", "", "name", "parameters")),
        (LIST, CallForm("CALLS[", ", ", "]", "name", "arguments")),
        (NONE, None),
        (PYTHON, None),
    ],
)
def test_each_template_tells_its_form(source: str, expected: CallForm | None) -> None:
    if source is PLAIN:
        tokenizer = tiny_models.byte_level()
        source = source.replace("eos_token", "'<|im_end|>'")
        template = ChatTemplate(tokenizer, source, "test")
        assert (
            CallForm.of(lambda c, p: template.render(c, add_generation_prompt=p), ["<|im_end|>"]) == expected
        )
    else:
        assert form_of(source) == expected


@pytest.mark.parametrize("source", [CHATML, QWEN, BARE, LIST])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("says", ["", "Let me look."])
def test_what_the_template_writes_is_read_back(source: str, count: int, says: str) -> None:
    template = ChatTemplate(tiny_models.byte_level(), source, "test")
    form = form_of(source)
    assert form is not None
    if says and not form.marker:
        pytest.skip("bare JSON cannot stand beside words")
    arguments = [{"city": "Kyiv", "days": 3, "note": 'a "b" }{ <x>'}, {}][:count]
    calls = tuple(
        {"type": "function", "function": {"name": f"f{i}", "arguments": a}} for i, a in enumerate(arguments)
    )
    asked = Message("user", "Weather?")
    prompt = template.render(Conversation((asked,)), add_generation_prompt=True)
    whole = template.render(
        Conversation((asked, Message("assistant", says, calls))), add_generation_prompt=False
    )
    answer = whole[len(prompt) :].removesuffix("<|im_end|>\n")
    content, found = form.parse(answer, {"f0", "f1"})
    assert content == says
    assert [(call.name, json.loads(call.arguments)) for call in found] == [
        (f"f{i}", a) for i, a in enumerate(arguments)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Just words.",
        "<tool_call>\n{not json}\n</tool_call>",
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": []}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call> and more',
        '<tool_call>\n{"name": "f", "argum',
        "<tool_call>",
    ],
)
def test_what_is_not_in_the_form_is_text(text: str) -> None:
    form = form_of(QWEN)
    assert form is not None
    assert form.parse(text, {"f"}) == (text, [])


def test_words_before_a_call_are_what_it_says() -> None:
    form = form_of(QWEN)
    assert form is not None
    answer = 'I look.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
    assert form.parse(answer, {"f"}) == ("I look.", [Call("f", '{"a": 1}')])


def test_a_schema_names_the_tool_and_its_parameters() -> None:
    form = form_of(BARE)
    assert form is not None
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = form.schema("f", parameters)
    assert schema["properties"] == {"name": {"const": "f"}, "parameters": parameters}
    assert form.schema("f", None)["properties"]["parameters"] == {"type": "object"}
