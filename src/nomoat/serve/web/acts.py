"""What the page's buttons do. Each act gives the parts that change with their new values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, final

import gradio as gr

from nomoat.errors import NomoatError
from nomoat.ledger.rows import Thumb
from nomoat.serve.errors import ApiError, told
from nomoat.serve.guard import holder_in
from nomoat.serve.models import Catalogue
from nomoat.serve.web.chats import Answer, Chat, Chats, Manner, Turn, shortened
from nomoat.serve.web.parts import Changes, Parts, nothing
from nomoat.serve.web.thumbs import Thumbs
from nomoat.serve.web.view import cut, model_choices, pace, past_choices, talk, thumbs
from nomoat.serve.web.writing import Writer, Writing

_THUMBS: dict[bool | str, Thumb] = {True: "up", False: "down"}
"""By what Gradio says of a click; one on the thumb that is up already says ''."""
_TICK_S = 0.06
_CHARACTERS_PER_TICK = 4000  # a longer answer takes the browser longer to set; it is shown less often


@final
class Acts:
    """Knows the page's parts, the kept conversations and what is being written; holds nothing of the
    reader's, so that a reload or a second tab finds all as it is."""

    def __init__(
        self, catalogue: Catalogue, writer: Writer, chats: Chats, thumbs: Thumbs | None, parts: Parts
    ) -> None:
        self._catalogue = catalogue
        self._writer = writer
        self._chats = chats
        self._thumbs = thumbs
        self._parts = parts
        self._one_opinion_at_a_time = asyncio.Lock()

    @property
    def takes_thumbs(self) -> bool:
        """Whether there is a place to keep them."""
        return self._thumbs is not None

    # ---- answering

    async def send(
        self, chat_id: str, text: str, request: gr.Request, *choices: Any
    ) -> AsyncGenerator[Changes]:
        """Say something and watch the answer come."""
        if not text.strip() or self._is_busy(chat_id):
            yield nothing()
            return
        model, beside_base, manner = await self._chosen(*choices)
        chat = await self._get(chat_id) or Chat.new(text, model)
        chat = replace(chat, model=model, beside_base=beside_base, manner=manner)
        chat = replace(chat, turns=(*chat.turns, Turn(text)))
        async for changes in self._answer(chat, request, begun={self._parts.box: ""}):
            yield changes

    async def retry(self, chat_id: str, request: gr.Request, *choices: Any) -> AsyncGenerator[Changes]:
        """Answer the last message anew. The reader may then say which answer is better, if both are to the same."""
        chat = await self._get(chat_id)
        if chat is None or not chat.turns or self._is_busy(chat_id):
            yield nothing()
            return
        model, beside_base, manner = await self._chosen(*choices)
        last = chat.turns[-1]
        before = last.answer or last.earlier  # there is no answer where the server ended while it was written
        earlier = before if manner.system == chat.manner.system else None
        turns = (*chat.turns[:-1], Turn(last.user, earlier=earlier))
        chat = replace(chat, model=model, beside_base=beside_base, manner=manner, turns=turns)
        async for changes in self._answer(chat, request):
            yield changes

    async def edit(
        self, chat_id: str, draft: str, edited: gr.EditData, request: gr.Request, *choices: Any
    ) -> AsyncGenerator[Changes]:
        """Say something else at an earlier place. Where more followed, that stays as a conversation of its own. Where
        it cannot be answered now, it is in the box, after what was typed there."""
        chat = await self._get(chat_id)
        place = _turn_of(edited.index)
        if chat is None or place >= len(chat.turns) or self._is_busy(chat_id):
            yield nothing()
            return
        text = edited.value if isinstance(edited.value, str) else edited.value["text"]
        # where it cannot be answered, the browser shows the edited message already
        refused = {**self._shown(chat), self._parts.box: f"{draft}\n\n{text}" if draft else text}
        model, beside_base, manner = await self._chosen(*choices)
        if place + 1 < len(chat.turns):
            chat = chat.branched()
        turns = (*chat.turns[:place], Turn(text))
        title = shortened(text) if place == 0 else chat.title
        chat = replace(chat, title=title, model=model, beside_base=beside_base, manner=manner, turns=turns)
        async for changes in self._answer(chat, request, refused=refused):
            yield changes

    async def undo(self, chat_id: str) -> Changes:
        """Take the last message and its answer back; the message is in the box again."""
        chat = await self._get(chat_id)
        if chat is None or not chat.turns or self._is_busy(chat_id):
            return nothing()
        *before, last = chat.turns
        chat = replace(chat, turns=tuple(before))
        await asyncio.to_thread(self._chats.save, chat)
        return {**self._shown(chat), self._parts.box: last.user}

    async def stop(self, chat_id: str) -> Changes:
        """End the answer that is being written; who watches it sees that."""
        await self._writer.stop(chat_id)
        return nothing()

    # ---- what the reader thinks of it

    async def rate(self, chat_id: str, liked: gr.LikeData, request: gr.Request) -> Changes:
        """A thumb up or down for an answer, or neither any more."""
        async with self._one_opinion_at_a_time:
            chat = await self._get(chat_id)
            place = _turn_of(liked.index)
            if chat is None or place >= len(chat.turns) or self._is_busy(chat_id):
                return nothing()
            turn = chat.turns[place]
            thumb = _THUMBS.get(liked.liked)
            if turn.answer is not None and await self._rated(chat, place, {thumb: turn.answer}, request):
                turn = replace(turn, answer=replace(turn.answer, thumb=thumb))
                chat = replace(chat, turns=(*chat.turns[:place], turn, *chat.turns[place + 1 :]))
                await asyncio.to_thread(self._chats.save, chat)
            return self._shown(chat)

    async def prefer_newer(self, chat_id: str, request: gr.Request) -> Changes:
        """The new answer to the last message is better than the one before. Both get their thumbs."""
        return await self._prefer(chat_id, request, is_newer_better=True)

    async def prefer_earlier(self, chat_id: str, request: gr.Request) -> Changes:
        """The answer before was better: the conversation goes on from it."""
        return await self._prefer(chat_id, request, is_newer_better=False)

    async def prefer_neither(self, chat_id: str) -> Changes:
        """They are equal: the new answer stays, and no thumb is kept."""
        async with self._one_opinion_at_a_time:
            chat = await self._get(chat_id)
            if chat is None or not chat.turns or self._is_busy(chat_id):
                return nothing()
            return await self._settle(chat, chat.turns[-1].answer)

    async def _prefer(self, chat_id: str, request: gr.Request, *, is_newer_better: bool) -> Changes:
        async with self._one_opinion_at_a_time:
            chat = await self._get(chat_id)
            choice = chat.turns[-1].choice if chat and chat.turns else None
            if chat is None or choice is None or self._is_busy(chat_id):
                return nothing()
            better, worse = choice if is_newer_better else reversed(choice)
            if not await self._rated(chat, len(chat.turns) - 1, {"up": better, "down": worse}, request):
                return nothing()
            return await self._settle(chat, replace(better, thumb="up"))

    async def _settle(self, chat: Chat, answer: Answer | None) -> Changes:
        """The last turn with this answer and no question any more."""
        turn = replace(chat.turns[-1], answer=answer, earlier=None)
        chat = replace(chat, turns=(*chat.turns[:-1], turn))
        await asyncio.to_thread(self._chats.save, chat)
        return self._shown(chat)

    async def _rated(
        self, chat: Chat, place: int, said: dict[Thumb | None, Answer], request: gr.Request
    ) -> bool:
        """Whether these could be kept; if not, the reader is told why."""
        assert self._thumbs is not None
        try:
            for thumb, answer in said.items():
                await asyncio.to_thread(self._thumbs.rate, chat, place, answer, thumb, holder_in(request))
        except NomoatError as error:
            gr.Warning(told(error).message, title="This could not be kept")
            return False
        return True

    # ---- the conversations

    async def open_page(self, chat_id: str) -> AsyncGenerator[Changes]:
        """What a browser sees that comes (back): its last conversation, and the models there are."""
        models = await asyncio.to_thread(model_choices, self._catalogue)
        names = [name for _, name in models]
        first = names[0] if names else None
        yield {self._parts.model: gr.update(choices=models, value=first), **await self._past(chat_id)}
        if await self._get(chat_id) is not None:  # else all is empty already, and the reader may be typing
            async for changes in self.open(chat_id):
                yield changes

    async def open(self, chat_id: str) -> AsyncGenerator[Changes]:
        """Show a conversation, and go on watching where an answer is being written."""
        writing = self._writer.running(chat_id or "")
        chat = writing.chat if writing else await self._get(chat_id)
        if chat is None:
            yield self._blank()
            return
        known = [name for _, name in await asyncio.to_thread(model_choices, self._catalogue)]
        manner = chat.manner
        yield {
            **self._shown(chat),
            **({self._parts.model: chat.model} if chat.model in known else {}),
            self._parts.beside_base: chat.beside_base,
            self._parts.system: manner.system,
            self._parts.temperature: manner.temperature,
            self._parts.top_p: manner.top_p,
            self._parts.max_tokens: manner.max_tokens,
            self._parts.seed: manner.seed,
        }
        if writing:
            async for changes in self._watch(writing):
                yield changes

    async def new(self, model: str) -> Changes:
        """An empty page. It becomes a conversation with its first message."""
        return {**self._blank(), **await self._past("")}

    async def search(self, words: str, chat_id: str) -> Changes:
        """The conversations that have these words."""
        return await self._past(chat_id, words)

    async def rename(self, chat_id: str, title: str, words: str) -> Changes:
        """Give the conversation another title."""
        chat = await self._get(chat_id)
        if chat is None or not title.strip() or self._is_busy(chat_id):
            return nothing()
        await asyncio.to_thread(self._chats.save, replace(chat, title=shortened(title)))
        return await self._past(chat_id, words)

    async def delete(self, chat_id: str, words: str) -> Changes:
        """Forget the conversation; no id where the reader thought better of it."""
        if not chat_id:
            return nothing()
        await self._writer.stop(chat_id)
        await asyncio.to_thread(self._chats.delete, chat_id)
        return {**self._blank(), **await self._past("", words)}

    async def compare(self, chat_id: str, beside_base: bool) -> Changes:
        """Show or hide the base's column."""
        chat = await self._get(chat_id)
        base = talk(chat, base=True) if chat else []
        return {self._parts.beside: gr.update(value=base, visible=beside_base)}

    # ---- what they share

    async def _answer(
        self,
        chat: Chat,
        request: gr.Request,
        *,
        begun: Changes | None = None,
        refused: Changes | None = None,
    ) -> AsyncGenerator[Changes]:
        """The answer to the last turn, with what changes besides once it is begun; or, where it cannot be now, why and
        what changes then."""
        writing = await self._begun(chat, request)
        if writing is None:
            yield refused or nothing()
            return
        yield {**self._shown(chat, is_writing=True), **await self._past(chat.id), **(begun or {})}
        async for changes in self._watch(writing):
            yield changes

    async def _begun(self, chat: Chat, request: gr.Request) -> Writing | None:
        if self._is_busy(chat.id):  # asked for from two tabs at once
            return None
        try:
            return await self._writer.start(chat, holder_in(request))
        except ApiError as refused:
            gr.Warning(refused.message, title="Not now")
            return None

    async def _watch(self, writing: Writing) -> AsyncGenerator[Changes]:
        """The answer as it grows, whether this page asked for it or finds it being written."""
        assert writing.task is not None
        while not writing.is_done:
            chat = writing.so_far()
            length = sum(
                len(answer.text) for answer in (chat.turns[-1].answer, chat.turns[-1].base) if answer
            )
            yield self._shown(chat, is_writing=True)
            await asyncio.wait({writing.task}, timeout=_TICK_S * (1 + length / _CHARACTERS_PER_TICK))
        if writing.error:
            gr.Warning(writing.error, title="The model could not answer")
        yield self._shown(writing.at_the_end())

    def _shown(self, chat: Chat, *, is_writing: bool = False) -> Changes:
        parts = self._parts
        choice = chat.turns[-1].choice if chat.turns and not is_writing and self.takes_thumbs else None
        return {
            parts.chat_id: chat.id,
            parts.past: chat.id,
            parts.title: chat.title,
            parts.talk: gr.update(value=talk(chat), feedback_value=thumbs(chat)),
            parts.beside: gr.update(value=talk(chat, base=True), visible=chat.beside_base),
            parts.choice: gr.update(visible=choice is not None),
            parts.earlier: f"**The answer before:**\n\n{cut(choice[1].text)}" if choice else "",
            parts.pace: f"{chat.model} is writing …" if is_writing else pace(chat),
            parts.send: gr.update(interactive=not is_writing),
            parts.stop: gr.update(interactive=is_writing),
        }

    def _blank(self) -> Changes:
        parts = self._parts
        return {
            parts.chat_id: "",
            parts.past: None,
            parts.title: "",
            parts.talk: [],
            parts.beside: [],
            parts.choice: gr.update(visible=False),
            parts.earlier: "",
            parts.pace: "",
            parts.box: "",
            parts.send: gr.update(interactive=True),
            parts.stop: gr.update(interactive=False),
        }

    async def _past(self, chat_id: str, words: str = "") -> Changes:
        found = await asyncio.to_thread(self._chats.find, words)
        is_there = any(chat.id == chat_id for chat in found)
        return {self._parts.past: gr.update(choices=past_choices(found), value=chat_id if is_there else None)}

    async def _get(self, chat_id: str | None) -> Chat | None:
        return await asyncio.to_thread(self._chats.get, chat_id or "")

    async def _chosen(
        self,
        model: str | None,
        beside_base: bool,
        system: str,
        temperature: float,
        top_p: float,
        max_tokens: float,
        seed: float | None,
    ) -> tuple[str, bool, Manner]:
        if model is None:  # sent before the page had the list
            model = (await asyncio.to_thread(self._catalogue.names))[0].name
        seed = None if seed is None else int(seed)
        return model, beside_base, Manner(system.strip(), temperature, top_p, int(max_tokens), seed)

    def _is_busy(self, chat_id: str) -> bool:
        if self._writer.running(chat_id) is None:
            return False
        gr.Info("The last answer is still being written. Stop ends it.")
        return True


def _turn_of(index: Any) -> int:
    """The page counts messages, two for each turn."""
    return int(index[0] if isinstance(index, list | tuple) else index) // 2
