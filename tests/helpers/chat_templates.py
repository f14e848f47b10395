"""Chat templates in the manner of the families, in our own shortened words, with a tokenizer for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken

from helpers.tiny_tokenizers import LLAMA3_CUT, tiny

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLLM = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a small model.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set c = bos_token + c %}{% endif %}"
    "{{ c }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set first = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set loop_messages = messages %}{% set first = '' %}{% endif %}"
    "{% for m in loop_messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (first if loop.first else '') + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + "
    "'[/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') "
    "}}"
    "{% endif %}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# Phi-3 closes a finished conversation with eos, and its tokens swallow the white space behind them.
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
# Qwen3 takes the thoughts out of every answer but those after the last question.
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% set c = m.content %}{% if m.role == 'assistant' %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% if loop.index0 > ns.last %}"
    "{% set c = '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' + c %}{% endif %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# DeepSeek-R1's distillates open the thoughts in the generation prompt and show answers without them.
OPEN_THOUGHTS = CHATML.replace(
    "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A template, the tokens it needs, and what a trained answer looks like in it."""

    name: str
    template: str
    tokenizer: Callable[[], Any]
    answer: Callable[[str], str]
    takes_system: bool = True


def _rstrip(token: str) -> AddedToken:
    return AddedToken(token, rstrip=True, special=True, normalized=False)


FAMILIES = [
    Family(
        "chatml",
        CHATML,
        lambda: tiny("<|endoftext|>", "<|im_start|>", "<|im_end|>", eos="<|endoftext|>", template=CHATML),
        lambda c: c + "<|im_end|>",
    ),
    Family(
        "smollm",
        SMOLLM,
        lambda: tiny("<|im_start|>", "<|im_end|>", eos="<|im_end|>", bos="<|im_start|>", template=SMOLLM),
        lambda c: c + "<|im_end|>",
    ),
    Family(
        "llama3",
        LLAMA3,
        lambda: tiny(
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            eos="<|eot_id|>",
            bos="<|begin_of_text|>",
            add_bos=True,
            template=LLAMA3,
            cut=LLAMA3_CUT,
        ),
        lambda c: c.strip() + "<|eot_id|>",
    ),
    Family(
        "llama2",
        LLAMA2,
        lambda: tiny("<s>", "</s>", eos="</s>", bos="<s>", add_bos=True, template=LLAMA2),
        lambda c: " " + c.strip() + " </s>",
    ),
    Family(
        "mistral",
        MISTRAL,
        lambda: tiny(
            "<s>", "</s>", "[INST]", "[/INST]", eos="</s>", bos="<s>", add_bos=True, template=MISTRAL
        ),
        lambda c: " " + c.strip() + "</s>",
        takes_system=False,
    ),
    Family(
        "gemma",
        GEMMA,
        lambda: tiny(
            "<bos>",
            "<eos>",
            "<start_of_turn>",
            "<end_of_turn>",
            eos="<eos>",
            bos="<bos>",
            add_bos=True,
            template=GEMMA,
        ),
        lambda c: c.strip() + "<end_of_turn>",
        takes_system=False,
    ),
    Family(
        "phi3",
        PHI3,
        lambda: tiny(
            "<|endoftext|>",
            _rstrip("<|system|>"),
            _rstrip("<|user|>"),
            _rstrip("<|assistant|>"),
            _rstrip("<|end|>"),
            eos="<|endoftext|>",
            template=PHI3,
        ),
        lambda c: c + "<|end|>",
    ),
]
