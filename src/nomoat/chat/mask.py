"""Which tokens of a rendered conversation are trained: exactly those the model itself must produce.

The proof needs no marks in the template. For every assistant turn, the prompt that serving would send is
rendered, and so is the conversation up to the end of that turn. The prompt must open both, and its tokens
must be the first tokens of the whole, so the answer starts where they end; it ends with the first stop token
after that. Where any of this fails, the row is refused with the reason, never trained approximately."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tokenizers import Encoding

from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.template import ChatTemplate
from nomoat.errors import DataError

TrainOn = Literal["all", "last"]
_GIVE_TEMPLATE = "Give another template: data.chat_template: my_template.jinja"


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens. `trained[i]` says that token i is a supervised target; `text` is what the
    tokens stand for."""

    tokens: list[int]
    trained: list[bool]
    text: str


class TurnsRewrittenError(DataError):
    """The template shows an earlier answer otherwise than when it was given (Qwen3 drops its thoughts). No
    single rendering serves every turn; `one_row_per_answer` gives one for each."""


@dataclass(frozen=True)
class _Answer:
    """One trained turn in the rendered text: what serving sends before it, and where its stop token ends."""

    turn: int
    prompt: str
    end: int


@dataclass(frozen=True)
class _Plan:
    text: str
    answers: tuple[_Answer, ...]


def render_trained(
    template: ChatTemplate, conversation: Conversation, *, train_on: TrainOn = "all"
) -> Rendered:
    """Tokens and mask of one conversation, cut after the last trained turn. A message's own `loss` goes
    before `train_on`; an assistant turn with nothing before it is a greeting, not an answer to a prompt, and
    is not trained. DataError where the mask cannot be exact."""
    (result,) = render_batch(template, [conversation], train_on=train_on)
    if isinstance(result, DataError):
        raise result
    return result


def render_batch(
    template: ChatTemplate, conversations: Sequence[Conversation], *, train_on: TrainOn = "all"
) -> list[Rendered | DataError]:
    """`render_trained` for many, tokenised together; errors are values."""
    plans = [_planned(template, conversation, train_on) for conversation in conversations]
    texts = [text for plan in plans if isinstance(plan, _Plan) for text in _texts(plan)]
    encodings = iter(template.encodings(texts))
    results: list[Rendered | DataError] = []
    for plan in plans:
        if isinstance(plan, DataError):
            results.append(plan)
            continue
        whole, *prompts = [next(encodings) for _ in _texts(plan)]
        try:
            trained = _trained(template, plan, whole, [prompt.ids for prompt in prompts])
        except DataError as error:
            results.append(error)
        else:
            results.append(Rendered(whole.ids, trained, plan.text))
    return results


def one_row_per_answer(conversation: Conversation, *, train_on: TrainOn = "all") -> list[Conversation]:
    """The conversation once for every trained turn, cut after it and trained on it alone: exact for
    templates that rewrite earlier turns, at the price of repeated prompts."""
    return [
        Conversation(
            tuple(
                replace(message, loss=j == turn if message.role == "assistant" else None)
                for j, message in enumerate(conversation.messages[: turn + 1])
            ),
            conversation.tools,
        )
        for turn in _trained_turns(conversation, train_on)
    ]


def _texts(plan: _Plan) -> list[str]:
    return [plan.text, *(answer.prompt for answer in plan.answers)]


def _trained_turns(conversation: Conversation, train_on: TrainOn) -> list[int]:
    turns = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
    wanted = turns if train_on == "all" else turns[-1:]
    trained = [
        i
        for i in turns
        if (conversation.messages[i].loss if conversation.messages[i].loss is not None else i in wanted)
    ]
    if trained[:1] == [0]:
        if conversation.messages[0].loss:
            raise DataError(
                "messages[0].loss: true, but nothing stands before this turn that it could answer."
            )
        return trained[1:]
    return trained


def _planned(template: ChatTemplate, conversation: Conversation, train_on: TrainOn) -> _Plan | DataError:
    try:
        return _plan(template, conversation, train_on)
    except DataError as error:
        return error


def _plan(template: ChatTemplate, conversation: Conversation, train_on: TrainOn) -> _Plan:
    """Everything that can be settled on text, before tokenising."""
    turns = _trained_turns(conversation, train_on)
    if turns:
        conversation = _first(conversation, turns[-1] + 1)
    text = template.render(conversation, add_generation_prompt=False)
    _check_shown(template, conversation, text)
    answers = []
    for turn in turns:
        shown = (
            text
            if turn == turns[-1]
            else template.render(_first(conversation, turn + 1), add_generation_prompt=False)
        )
        answer = _answer(template, conversation, turn, shown)
        if shown[: answer.end] != text[: answer.end]:
            raise TurnsRewrittenError(
                f"messages[{turn}]: the chat template ({template.origin}) shows this answer otherwise once "
                "more turns follow, so what is trained would not be what was served.",
                hint='Train on the last answer of each conversation only: data.train_on: "last"',
            )
        answers.append(answer)
    if template.has_generation_marks:
        _check_marks(template, conversation, text, answers)
    return _Plan(text, tuple(answers))


def _first(conversation: Conversation, turns: int) -> Conversation:
    return Conversation(conversation.messages[:turns], conversation.tools)


def _answer(template: ChatTemplate, conversation: Conversation, turn: int, shown: str) -> _Answer:
    """The answer in `shown`, the conversation rendered up to and with this turn."""
    prompt = template.render(_first(conversation, turn), add_generation_prompt=True)
    if not shown.startswith(prompt):
        at = next((i for i, (a, b) in enumerate(zip(prompt, shown, strict=False)) if a != b), len(shown))
        raise DataError(
            f"messages[{turn}]: the chat template ({template.origin}) writes {prompt[at:][:40]!r} where it "
            f"asks for an answer, but {shown[at:][:40]!r} where it shows one, so no answer can be trained as "
            "it would be served.",
            hint=_GIVE_TEMPLATE,
        )
    message = conversation.messages[turn]
    said = f"{message.content}{message.reasoning_content or ''}{_json(list(message.tool_calls))}"
    stray = next((stop for stop in template.stop_texts if stop in said), None)
    if stray is not None:
        raise DataError(f"messages[{turn}]: the answer holds the stop token {stray} in its text.")
    ends = [
        shown.find(stop, len(prompt)) + len(stop)
        for stop in template.stop_texts
        if stop in shown[len(prompt) :]
    ]
    if not ends:
        raise DataError(
            f"messages[{turn}]: the stop token is never trained: the chat template ({template.origin}) ends "
            f"this answer with {shown[-20:]!r}, and not with {' or '.join(template.stop_texts)}.",
            hint=_GIVE_TEMPLATE,
        )
    _check_answer(template, message, f"messages[{turn}]", shown[len(prompt) : min(ends)])
    return _Answer(turn, prompt, min(ends))


def _check_shown(template: ChatTemplate, conversation: Conversation, text: str) -> None:
    """No turn and no tool may be lost in rendering: the model would be trained on answers to nothing."""
    for i, message in enumerate(conversation.messages):
        if not _is_in(message.content, text):
            raise DataError(
                f"messages[{i}]: the chat template ({template.origin}) does not show the text of this "
                f"{message.role} turn.",
                hint=f"Drop the {message.role} turns, or give a template that shows them: "
                "data.chat_template: my_template.jinja",
            )
    for i, tool in enumerate(conversation.tools):
        if tool["function"]["name"] not in text:
            raise DataError(
                f"tools[{i}]: the chat template ({template.origin}) does not show tools to the model.",
                hint="Drop the tools, or give a template that shows them: "
                "data.chat_template: my_template.jinja",
            )


def _check_answer(template: ChatTemplate, message: Message, where: str, answer: str) -> None:
    """Everything the turn says must be in its answer, or it would not be trained."""
    if not _is_in(message.content, answer):
        raise DataError(
            f"{where}: the chat template ({template.origin}) leaves out this turn's text.",
            hint=_GIVE_TEMPLATE,
        )
    if message.reasoning_content and not _is_in(message.reasoning_content, answer):
        raise DataError(
            f"{where}.reasoning_content: the chat template ({template.origin}) leaves it out.",
            hint="Write the reasoning into content, or give a template that reads reasoning_content: "
            "data.chat_template: my_template.jinja",
        )
    for call in message.tool_calls:
        if call["function"]["name"] not in answer:
            raise DataError(
                f"{where}.tool_calls: the chat template ({template.origin}) leaves them out.",
                hint=_GIVE_TEMPLATE,
            )


def _is_in(content: str, text: str) -> bool:
    """Whether the last line of `content` is in `text`, as it is or as JSON. The last line only: templates
    trim, and some take the thoughts out of an earlier answer, but none drops the end of what it shows."""
    lines = content.strip().splitlines()
    return not lines or lines[-1].strip() in text or _json(lines[-1].strip())[1:-1] in text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _check_marks(
    template: ChatTemplate, conversation: Conversation, text: str, answers: list[_Answer]
) -> None:
    """The template's own {% generation %} marks must cover each answer and must not start before it."""
    spans = template.marked_spans(conversation)
    for answer in answers:
        start = len(answer.prompt)
        inside = [(a, b) for a, b in spans if a < answer.end and b > start]
        covered = start
        for a, b in inside:
            covered = max(covered, b) if a <= covered else covered
        if covered < answer.end or inside[0][0] < start:
            marked = "".join(text[a:b] for a, b in inside)
            raise DataError(
                f"messages[{answer.turn}]: the {{% generation %}} marks of the chat template "
                f"({template.origin}) hold {_ends(marked)}, but serving has the model produce "
                f"{_ends(text[start : answer.end])}.",
                hint="Mend the marks: from the end of the generation prompt to the stop token.",
            )


def _ends(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:28]} ... {text[-28:]}")


def _trained(template: ChatTemplate, plan: _Plan, whole: Encoding, prompts: list[list[int]]) -> list[bool]:
    """The mask over the tokens of the whole text, from the tokens of every prompt."""
    tokens = whole.ids
    trained = [False] * len(tokens)
    stops = set(template.stop_token_ids)
    for answer, prompt in zip(plan.answers, prompts, strict=True):
        start = len(prompt)
        if tokens[:start] != prompt:
            raise _merged(template, answer, tokens, prompt)
        stop = next((i for i in range(start, len(tokens)) if tokens[i] in stops), None)
        span = whole.token_to_chars(stop) if stop is not None else None
        # A token that swallows the white space behind it (Phi-3's) may end later than its text does.
        if stop is None or span is None or not span[0] < answer.end <= span[1]:
            raise DataError(
                f"messages[{answer.turn}]: the stop token is never trained: the tokenizer does not read "
                f"{plan.text[answer.end - 12 : answer.end]!r} as its stop token.",
                hint=_GIVE_TEMPLATE,
            )
        trained[start : stop + 1] = [True] * (stop + 1 - start)
    return trained


def _merged(template: ChatTemplate, answer: _Answer, tokens: list[int], prompt: list[int]) -> DataError:
    at = next((i for i, (a, b) in enumerate(zip(tokens, prompt, strict=False)) if a != b), len(tokens) - 1)
    sent, held = ([template.tokenizer.decode([i]) for i in ids[at : at + 3]] for ids in (prompt, tokens))
    return DataError(
        f"messages[{answer.turn}]: the tokenizer melts the end of the prompt into the answer: serving sends "
        f"{sent}, but the whole text holds {held}, so what is trained would not be what is served.",
        hint="Trim the answer, or end the template's generation prompt in a special token or one line break: "
        "data.chat_template: my_template.jinja",
    )
