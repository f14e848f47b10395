from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import pytest

from helpers.chat_templates import CHATML, FAMILIES, Family
from helpers.tiny_tokenizers import qwen, tiny
from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.template import ChatTemplate
from nomoat.errors import DataError

TALK = Conversation((Message("user", "Who are you?"), Message("assistant", "A fox."), Message("user", "Oh!")))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("prompt", [True, False])
def test_bytes_are_those_of_transformers(family: Family, prompt: bool) -> None:
    tokenizer = family.tokenizer()
    template = ChatTemplate.of(tokenizer)
    messages = [message.to_dict() for message in TALK.messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
    assert template.render(TALK, add_generation_prompt=prompt) == text
    assert template.encode(TALK, add_generation_prompt=prompt) == ids
    assert template.origin == "tokenizer"
    assert template.fingerprint == hashlib.sha256(family.template.encode()).hexdigest()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("begun", ["The best answer is", "```python\ndef f():\n"])
def test_an_answer_that_is_begun_breaks_off_where_transformers_has_it(family: Family, begun: str) -> None:
    tokenizer = family.tokenizer()
    talk = Conversation((Message("user", "Who are you?"), Message("assistant", begun)))
    messages = [message.to_dict() for message in talk.messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert ChatTemplate.of(tokenizer).render_begun(talk) == text


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("chatml", ("<|im_end|>", "<|endoftext|>")),
        ("smollm", ("<|im_end|>",)),
        ("llama3", ("<|eot_id|>",)),
        ("llama2", ("</s>",)),
        ("mistral", ("</s>",)),
        ("gemma", ("<end_of_turn>", "<eos>")),
        ("phi3", ("<|end|>", "<|endoftext|>")),
    ],
)
def test_stop_tokens_are_found_by_rendering(name: str, stops: tuple[str, ...]) -> None:
    (family,) = [family for family in FAMILIES if family.name == name]
    assert ChatTemplate.of(family.tokenizer()).stop_texts == stops


def test_qwen_with_its_own_template(tmp_path: Path) -> None:
    template = ChatTemplate.of(qwen(tmp_path))
    assert template.stop_token_ids == (151645,)
    assert template.encode(Conversation((Message("user", "hi"),)), add_generation_prompt=True)[-3:] == [
        151644,
        77091,
        198,
    ]


def test_plain_default_uses_only_the_tokenizers_own_eos() -> None:
    template = ChatTemplate.of(tiny("<s>", "</s>", eos="</s>", bos="<s>"))
    talk = Conversation((Message("system", "Be kind."), *TALK.messages))
    assert template.origin == "default"
    assert template.render(talk, add_generation_prompt=True) == (
        "System:\nBe kind.\nUser:\nWho are you?\nAssistant:\nA fox.</s>\nUser:\nOh!\nAssistant:\n"
    )
    assert template.stop_texts == ("</s>",)


def test_plain_default_begins_with_bos_where_the_tokenizer_adds_it() -> None:
    tokenizer = tiny("<s>", "</s>", eos="</s>", bos="<s>", add_bos=True)
    template = ChatTemplate.of(tokenizer)
    text = template.render(TALK, add_generation_prompt=True)
    assert text.startswith("<s>User:\nWho")
    assert template.encode(TALK, add_generation_prompt=True) == tokenizer(text[len("<s>") :])["input_ids"]


def test_default_is_chatml_where_its_tokens_exist() -> None:
    template = ChatTemplate.of(tiny("<|endoftext|>", "<|im_start|>", "<|im_end|>", eos="<|endoftext|>"))
    assert template.origin == "default"
    assert template.render(TALK, add_generation_prompt=True) == (
        "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\nA fox.<|im_end|>\n"
        "<|im_start|>user\nOh!<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("specials", [("<s>", "</s>"), ("</s>", "<|im_start|>", "<|im_end|>")])
def test_defaults_show_tools_calls_and_results(specials: tuple[str, ...]) -> None:
    template = ChatTemplate.of(tiny(*specials, eos="</s>"))
    call = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
    tool = {"type": "function", "function": {"name": "clock", "parameters": {}}}
    talk = Conversation(
        (Message("user", "Time?"), Message("assistant", "", (call,)), Message("tool", "12:00")), (tool,)
    )
    text = template.render(talk, add_generation_prompt=False)
    for part in (
        '{"type": "function", "function": {"name": "clock", "parameters": {}}}',
        '{"name": "clock", "arguments": {"zone": "UTC"}}',
        "12:00",
    ):
        assert part in text


def test_a_file_overrides_the_tokenizers_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{% for m in messages %}{{ m.role }}={{ m.content }}{{ eos_token }};{% endfor %}")
    template = ChatTemplate.of(tiny("</s>", eos="</s>", template=CHATML), str(path))
    assert template.origin == str(path)
    assert template.render(TALK, add_generation_prompt=False) == (
        "user=Who are you?</s>;assistant=A fox.</s>;user=Oh!</s>;"
    )


def test_named_templates_use_the_default_one() -> None:
    tokenizer = tiny("</s>", "<|im_start|>", "<|im_end|>", eos="</s>")
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ messages }}"}
    assert ChatTemplate.of(tokenizer).source == CHATML


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "data.chat_template: cannot read {path}: No such file or directory."),
        (b"\xff\xfe{", "data.chat_template: cannot read {path}: it is not UTF-8 text."),
        (b"hello", "data.chat_template: {path} is no chat template: it never mentions `messages`."),
    ],
)
def test_override_that_cannot_be_used(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "mine.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        ChatTemplate.of(tiny("</s>", eos="</s>"), str(path))
    assert error.value.message == expected.format(path=path)


def test_neither_template_nor_eos() -> None:
    with pytest.raises(DataError) as error:
        ChatTemplate.of(tiny("<pad>"))
    assert error.value.message == (
        "chat template: the tokenizer has neither a chat template nor an eos token, so an answer could not "
        "end."
    )


def test_template_that_does_not_parse() -> None:
    template = ChatTemplate.of(tiny("</s>", eos="</s>", template="\n{% for m in messages %}{{ m }"))
    with pytest.raises(DataError) as error:
        template.render(TALK, add_generation_prompt=False)
    assert error.value.message == "chat template (tokenizer): line 2: unexpected '}'"


def test_template_that_refuses_a_role() -> None:
    (gemma,) = [family for family in FAMILIES if family.name == "gemma"]
    with pytest.raises(DataError) as error:
        ChatTemplate.of(gemma.tokenizer()).render(
            Conversation((Message("system", "Be kind."), Message("user", "Hi"))), add_generation_prompt=True
        )
    assert str(error.value) == (
        "chat template (tokenizer): refuses this conversation (system user): System role not supported\n"
        "  Change the row to what the template takes, or give another: data.chat_template: my_template.jinja"
    )


def test_answers_that_never_end_are_refused() -> None:
    endless = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(DataError) as error:
        _ = ChatTemplate.of(tiny("</s>", eos="</s>", template=endless)).stop_token_ids
    assert error.value.message == (
        "chat template (tokenizer): the stop token is never trained: assistant turns do not end in a special "
        "token (after the answer stands '\\n')."
    )


def test_the_date_in_a_template_is_the_same_every_day() -> None:
    dated = (
        "{% set day = strftime_now('%d %b %Y') if strftime_now is defined else 'none' %}\n"
        "{{ day }} {{ strftime_now('%Y-%m-%d') }}{% for m in messages %} {{ m.content }}{{ eos_token }}{% "
        "endfor %}"
    )
    template = ChatTemplate.of(tiny("</s>", eos="</s>", template=dated))
    text = template.render(Conversation((Message("user", "Hi"),)), add_generation_prompt=False)
    assert text == "26 Jul 2024 2024-07-26 Hi</s>"
    assert date.today() > date(2024, 7, 26)


def test_a_tokenizers_own_truncation_does_not_cut_rows() -> None:
    tokenizer = tiny("</s>", eos="</s>")
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    ids = ChatTemplate.of(tokenizer).encode(TALK, add_generation_prompt=False)
    assert tokenizer.decode(ids) == ChatTemplate.of(tokenizer).render(TALK, add_generation_prompt=False)
