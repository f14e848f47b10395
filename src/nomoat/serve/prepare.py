"""From a request to what the engine is asked: the one place where a server's prompts are rendered."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nomoat.chat.conversation import Conversation, parse_messages, parse_tools
from nomoat.chat.tools import CallForm
from nomoat.engine.base import Sampling
from nomoat.engine.grammar import checked, json_rule, text_rule
from nomoat.engine.request import Request, ServingEngine
from nomoat.errors import DataError
from nomoat.serve.errors import ApiError, told, too_long
from nomoat.serve.schemas import Generated, Sampled, Stop

_WHERE = "request"
_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True)
class Asked:
    """A chat as a server got it, whichever endpoint it came through.

    Attributes:
        tool_choice: 'none', 'auto', 'required', or ('name', the tool's name).
        schema: what the answer's JSON must fit; None for any text.
    """

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]] = ()
    tool_choice: str | tuple[str, str] = "auto"
    parallel_calls: bool = True
    schema: Any = None
    field: str = "messages"


@dataclass(frozen=True)
class Prepared:
    """Ready for the engine. `form` and `names` are set where tools may be called."""

    request: Request
    form: CallForm | None = None
    names: frozenset[str] = frozenset()


def prepare_chat(engine: ServingEngine, asked: Asked, settings: Settings) -> Prepared:
    """Render, tokenize and constrain a chat. Runs in a thread.

    Raises:
        ApiError: something in it cannot be used.
    """
    try:
        messages = parse_messages([_plain_role(m) for m in asked.messages], _WHERE, field=asked.field)
    except DataError as error:
        raise told(error, param=asked.field) from error
    try:
        tools = parse_tools(list(asked.tools), _WHERE) if asked.tool_choice != "none" else ()
        form = _form_for(engine, tools)
    except DataError as error:
        raise told(error, param="tools") from error
    try:
        prompt = engine.encode(Conversation(messages, tools))
    except DataError as error:
        raise told(error, param=asked.field) from error
    names = frozenset(tool["function"]["name"] for tool in tools)
    grammar = _grammar(asked, tools, names, form)
    return Prepared(settings.request(engine, prompt, grammar), form, names)


def prepare_text(engine: ServingEngine, prompt: str | Sequence[int], settings: Settings) -> Prepared:
    """Plain text, or token ids, to be continued. Runs in a thread."""
    tokens = engine.tokenize(prompt, begins=True) if isinstance(prompt, str) else list(prompt)
    if not tokens:
        raise ApiError(400, "prompt: is empty; expected text", param="prompt")
    return Prepared(settings.request(engine, tokens, None))


@dataclass(frozen=True)
class Settings:
    """How one choice of a request is to be written."""

    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None

    @staticmethod
    def of(body: Sampled, *, max_tokens: int | None, top_logprobs: int | None = None) -> Settings:
        """OpenAI's defaults where nothing is said; without a seed, a new one."""
        more: dict[str, Any] = {}
        seed = None
        if isinstance(body, Generated):
            seed = body.seed
            more = {
                "stop": _stops(body.stop),
                "frequency_penalty": body.frequency_penalty or 0.0,
                "presence_penalty": body.presence_penalty or 0.0,
                "logit_bias": _biases(body.logit_bias or {}),
            }
        return Settings(
            max_tokens=max_tokens,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            seed=secrets.randbits(31) if seed is None else seed,
            top_logprobs=top_logprobs,
            **more,
        )

    def request(self, engine: ServingEngine, prompt: Sequence[int], grammar: str | None) -> Request:
        """For this engine. Raises ApiError where the prompt leaves no room."""
        room = engine.n_ctx - len(prompt)
        if room < 1:
            raise too_long(len(prompt), engine.n_ctx)
        sampling = Sampling(
            max_new_tokens=room if self.max_tokens is None else min(room, self.max_tokens),
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            stop=self.stop,
        )
        return Request(
            prompt=tuple(prompt),
            sampling=sampling,
            min_p=self.min_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias=self.logit_bias,
            grammar=grammar,
            top_logprobs=self.top_logprobs,
        )


def _plain_role(message: dict[str, Any]) -> dict[str, Any]:
    """`developer` is what newer clients call `system`."""
    return message | {"role": "system"} if message.get("role") == "developer" else message


def _form_for(engine: ServingEngine, tools: Sequence[dict[str, Any]]) -> CallForm | None:
    if not tools:
        return None
    form = engine.call_form
    if form is None:
        raise DataError(
            f"{_WHERE}: tools: this model's chat template shows no tool calls as JSON, so it was not trained "
            "to make any",
            hint="Leave the tools out, or train on rows with tool calls and a template that writes them.",
        )
    return form


def _grammar(
    asked: Asked, tools: Sequence[dict[str, Any]], names: frozenset[str], form: CallForm | None
) -> str | None:
    """What the answer may look like: JSON, calls, or words without the text that announces a call."""
    wanted = asked.tool_choice
    if wanted != "none" and wanted != "auto" and form is None:
        raise ApiError(400, "tool_choice: asks for a call, but there are no tools", param="tool_choice")
    if isinstance(wanted, tuple) and wanted[1] not in names:
        raise ApiError(400, f"tool_choice: there is no tool named {wanted[1]!r}", param="tool_choice")
    try:
        if form is None:
            if asked.schema is None:
                return None
            return checked(f"start: {json_rule(asked.schema)}", f"{_WHERE}: response_format")
        chosen = [t for t in tools if not isinstance(wanted, tuple) or t["function"]["name"] == wanted[1]]
        calls = _calls_rule(form, chosen, several=asked.parallel_calls and not isinstance(wanted, tuple))
        if wanted != "auto":
            return checked(f"start: {text_rule(form.opening)} calls\n{calls}", f"{_WHERE}: tools")
        if asked.schema is not None:
            start = f"start: {json_rule(asked.schema)} | {text_rule(form.opening)} calls"
            return checked(f"{start}\n{calls}", f"{_WHERE}: response_format or tools")
        if not form.marker:
            return None  # nothing tells a call from words before it has begun
        return checked(f"{_words_or_calls(form)}\n{calls}", f"{_WHERE}: tools")
    except DataError as error:
        raise told(error, param="tools" if tools else "response_format") from error


def _words_or_calls(form: CallForm) -> str:
    marker = "".join(f"\\{letter}" if letter in '\\/.^$*+?()[]{}|&~-#"' else letter for letter in form.marker)
    marker = marker.replace("\n", "\\n")
    return (
        f"start: WORDS | WORDS? {text_rule(form.opening.lstrip())} calls\n"
        f"WORDS: /(.|\\n)+/ & ~/(.|\\n)*{marker}(.|\\n)*/"
    )


def _calls_rule(form: CallForm, tools: Sequence[dict[str, Any]], *, several: bool) -> str:
    each = [
        json_rule(form.schema(tool["function"]["name"], tool["function"].get("parameters"))) for tool in tools
    ]
    more = f" ({_maybe(form.between)} call)*" if several else ""
    return f"calls: call{more} {_maybe(form.closing)}\ncall: {' | '.join(each)}"


def _maybe(text: str) -> str:
    return text_rule(text) if text else ""


def _stops(stop: Stop) -> tuple[str, ...]:
    return () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)


def _biases(raw: dict[str, float]) -> tuple[tuple[int, float], ...]:
    for key in raw:
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise ApiError(
                400, f"logit_bias: got {key[:20]!r}; expected token ids as keys", param="logit_bias"
            )
    return tuple((int(key), value) for key, value in raw.items())
