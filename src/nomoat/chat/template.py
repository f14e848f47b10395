"""The one place that makes bytes from messages: training, serving, export and evaluation all render here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import jinja2
from tokenizers import Encoding

from nomoat.chat.conversation import Conversation, Message
from nomoat.errors import DataError

IM_START, IM_END = "<|im_start|>", "<|im_end|>"

# Templates that print today's date (Llama 3's do) would give other bytes every day, and the served prompt
# would not be the trained one. They all see the day that Llama's own templates name where there is no clock.
_DAY = {
    "%d": "26",
    "%b": "Jul",
    "%B": "July",
    "%m": "07",
    "%y": "24",
    "%Y": "2024",
    "%A": "Friday",
    "%a": "Fri",
}
_ONE_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{word}')" for code, word in _DAY.items())
    + " | replace('%H', '00') | replace('%M', '00') | replace('%S', '00') }}{% endmacro +%}"
)

# The two defaults use only tokens the tokenizer has, and only what every jinja engine knows (llama.cpp has
# its own). Content is trimmed, so that no space at its edge can merge with the line break before it.
CHATML = """
{%- if tools -%}{{ '<|im_start|>tools' }}
{%- for tool in tools -%}{{ '\n' + (tool | tojson) }}{%- endfor -%}{{ '<|im_end|>\n' }}{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\n' + (message['content'] | trim) }}
{%- for call in message['tool_calls'] or [] -%}
{{ '\n<tool_call>' + (call['function'] | tojson) }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
PLAIN = """
{%- if tools -%}{{ 'Tools:\n' }}
{%- for tool in tools -%}{{ (tool | tojson) + '\n' }}{%- endfor -%}{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{ 'Assistant:\n' + (message['content'] | trim) }}
{%- for call in message['tool_calls'] or [] -%}{{ '\nCall: ' + (call['function'] | tojson) }}{%- endfor -%}
{{ eos_token + '\n' }}
{%- elif message['role'] == 'user' -%}{{ 'User:\n' + (message['content'] | trim) + '\n' }}
{%- elif message['role'] == 'tool' -%}{{ 'Tool:\n' + (message['content'] | trim) + '\n' }}
{%- else -%}{{ 'System:\n' + (message['content'] | trim) + '\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:\n' }}{%- endif -%}
"""
_PROBE = "nomoat probe answer"


@final
class ChatTemplate:
    """A jinja template bound to a tokenizer. `origin` is 'tokenizer', 'default' or the path it came from."""

    def __init__(self, tokenizer: Any, source: str, origin: str) -> None:
        self.tokenizer = tokenizer
        self.source = source
        self.origin = origin

    @staticmethod
    def of(tokenizer: Any, override: str | Path | None = None) -> ChatTemplate:
        """The template in the file `override`, else the tokenizer's own, else a plain one for tokenizers
        without any: ChatML where its two tokens exist, otherwise lines of 'User:' and 'Assistant:' that end
        in the tokenizer's own eos. DataError where there is neither a template nor an eos token."""
        if override is not None:
            return ChatTemplate(tokenizer, _read_template(Path(override)), str(override))
        own = tokenizer.chat_template
        if isinstance(own, dict):
            own = own.get("default")
        if own:
            return ChatTemplate(tokenizer, own, "tokenizer")
        return ChatTemplate(tokenizer, _default_source(tokenizer), "default")

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the template's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def has_generation_marks(self) -> bool:
        """Whether the template itself marks what the assistant says, with {% generation %}."""
        return "endgeneration" in self.source

    def render(self, conversation: Conversation, *, add_generation_prompt: bool) -> str:
        """The conversation as text, special tokens written out. DataError where the template refuses it."""
        return self._render(conversation, add_generation_prompt)[0]

    def render_begun(self, conversation: Conversation) -> str:
        """The conversation as text that breaks off in its last turn, the assistant's, which is to be gone on with.
        DataError where the template refuses it."""
        return self._render(conversation, False, breaks_off=True)[0]

    def marked_spans(self, conversation: Conversation) -> list[tuple[int, int]]:
        """Character spans [start, end) of the rendered text inside {% generation %} marks."""
        return self._render(conversation, False, marks=True)[1]

    def encode(self, conversation: Conversation, *, add_generation_prompt: bool) -> list[int]:
        """Token ids of exactly the rendered text; nothing is added in front or behind."""
        return self.encode_texts([self.render(conversation, add_generation_prompt=add_generation_prompt)])[0]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered texts, as one batch."""
        return [e.ids for e in self._backend().encode_batch_fast(list(texts), add_special_tokens=False)]

    def encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Rendered texts as tokens with their places in the text, as one batch."""
        encodings: list[Encoding] = self._backend().encode_batch(list(texts), add_special_tokens=False)
        return encodings

    def _backend(self) -> Any:
        """The tokenizer without settings of some training run that its file may carry, which would cut or pad
        rows unasked."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return backend

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """The tokens that end an assistant turn: what the template writes after an answer, then eos.

        DataError where no assistant turn ends in a special token: such a model would never stop."""
        user, answer = Message("user", "Hello"), Message("assistant", _PROBE)
        text = self.render(Conversation((user, answer)), add_generation_prompt=False)
        stop = self._first_special(text[text.rindex(_PROBE) + len(_PROBE) :] if _PROBE in text else "")
        if stop is None:
            raise DataError(
                f"chat template ({self.origin}): the stop token is never trained: assistant turns do not end "
                f"in a special token (after the answer stands {_tail(text)!r}).",
                hint="Give a template whose assistant turns end in the tokenizer's eos token: "
                "data.chat_template: my_template.jinja",
            )
        eos = self.tokenizer.eos_token_id
        return (stop,) if eos is None or eos == stop else (stop, eos)

    @cached_property
    def stop_texts(self) -> tuple[str, ...]:
        """The stop tokens as the template writes them."""
        return tuple(self.tokenizer.convert_ids_to_tokens(list(self.stop_token_ids)))

    def _first_special(self, text: str) -> int | None:
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        return next((i for i in self.encode_texts([text])[0] if i in special), None)

    def _render(
        self,
        conversation: Conversation,
        add_generation_prompt: bool,
        marks: bool = False,
        breaks_off: bool = False,
    ) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                conversations=[[message.to_dict() for message in conversation.messages]],
                tools=list(conversation.tools) or None,
                chat_template=_ONE_DAY + self.source if "strftime_now" in self.source else self.source,
                return_assistant_tokens_mask=marks,
                continue_final_message=breaks_off,
                add_generation_prompt=add_generation_prompt,
                **self.tokenizer.special_tokens_map,
            )
        except jinja2.TemplateSyntaxError as error:
            raise DataError(
                f"chat template ({self.origin}): line {error.lineno}: {error.message}",
                hint="Mend the template, or give another: data.chat_template: my_template.jinja",
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise DataError(
                f"chat template ({self.origin}): refuses this conversation "
                f"({' '.join(m.role for m in conversation.messages)}): {error}",
                hint="Change the row to what the template takes, or give another: "
                "data.chat_template: my_template.jinja",
            ) from error
        return texts[0], spans[0] if marks else []


def _tail(text: str) -> str:
    return text[text.rindex(_PROBE) + len(_PROBE) :][:40] if _PROBE in text else text[-40:]


def _read_template(path: Path) -> str:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"data.chat_template: cannot read {path}: {reason}.") from None
    if "messages" not in source:
        raise DataError(f"data.chat_template: {path} is no chat template: it never mentions `messages`.")
    return source


def _default_source(tokenizer: Any) -> str:
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    if {IM_START, IM_END} <= added:
        return CHATML
    if tokenizer.eos_token is None:
        raise DataError(
            "chat template: the tokenizer has neither a chat template nor an eos token, so an answer could "
            "not end.",
            hint="Give a template: data.chat_template: my_template.jinja",
        )
    return ("{{- bos_token -}}" + PLAIN) if adds_bos(tokenizer) else PLAIN


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its bos token in front of plain text."""
    ids = tokenizer("a", verbose=False)["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
