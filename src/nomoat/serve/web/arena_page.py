"""The arena's page: two answers side by side, a vote, and only then the names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, fields
from typing import Any, final

import gradio as gr

from nomoat.errors import NomoatError
from nomoat.evaluate.battle import Battle
from nomoat.evaluate.head_to_head import by_day, head_to_head, voters
from nomoat.evaluate.standings import standings
from nomoat.ledger.rows import REASONS, VoteVerdict
from nomoat.serve.errors import ApiError
from nomoat.serve.guard import holder_in
from nomoat.serve.http import log_fault
from nomoat.serve.limits import Ration
from nomoat.serve.web.arena import Arena, Shown
from nomoat.serve.web.arena_view import (
    CONFIDENCE,
    diligence,
    leaderboard,
    matrix,
    over_time,
    pairings,
    question,
    side,
    told,
)
from nomoat.serve.web.look import nav
from nomoat.serve.web.page import LATEX
from nomoat.serve.web.parts import Changes, nothing
from nomoat.serve.web.view import cut

_VERDICTS: dict[str, tuple[VoteVerdict, str]] = {
    "vote-left": ("left", "← Left is better"),
    "vote-tie": ("tie", "Tie"),
    "vote-bad": ("both bad", "Both are bad"),
    "vote-right": ("right", "Right is better →"),
}


def arena_page(arena: Arena, ration: Ration) -> gr.Blocks:
    """The page over the server's battles. What a voter asks for counts as their key's; what was answered ahead as
    nobody's."""
    with gr.Blocks(title="nomoat arena", analytics_enabled=False) as page:
        parts = _lay_out()
        _wire(page, parts, Acts(arena, ration, parts))
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


@dataclass(frozen=True, eq=False)
class Parts:
    """The page's components by name."""

    shown_id: Any
    question: Any
    left: Any
    right: Any
    ballot: tuple[Any, ...]
    reasons: Any
    note: Any
    told: Any
    own: Any
    keep_own: Any
    box: Any
    ask: Any
    go_on: Any
    next: Any
    standing: Any
    standings: Any

    def changing(self) -> list[Any]:
        """What an act on the first tab may change."""
        names = {field.name for field in fields(self)} - {"ballot", "standing", "standings"}
        return [*self.ballot, *(getattr(self, name) for name in sorted(names))]


def _lay_out() -> Parts:
    shown_id = gr.BrowserState("", storage_key="nomoat-arena", secret="nomoat")  # no secret: it is a number
    with gr.Row(elem_id="top"):
        gr.HTML(nav("Arena"), elem_id="pages")
        gr.Button("◐", elem_id="theme", size="sm", min_width=44)
    with gr.Tab("Vote", elem_id="voting"):
        asked = gr.Markdown(elem_id="question", latex_delimiters=LATEX)
        with gr.Row(elem_id="answers"):
            left, right = (
                gr.Markdown(elem_id=side, label=side, show_label=True, container=True, latex_delimiters=LATEX)
                for side in ("left", "right")
            )
        with gr.Row(elem_id="ballot"):
            ballot = tuple(
                gr.Button(said, elem_id=name, interactive=False, min_width=80)
                for name, (_, said) in _VERDICTS.items()
            )
        with gr.Row(elem_id="why"):
            reasons = gr.CheckboxGroup(
                REASONS, elem_id="reasons", label="What decided it", show_label=False, container=False
            )
            note = gr.Textbox(
                "",
                elem_id="note",
                show_label=False,
                container=False,
                placeholder="Why? (as you like; goes with the vote)",
                max_length=2000,
                max_lines=4,
            )
        said = gr.Markdown(elem_id="told")
        own = gr.Textbox(
            "",
            elem_id="own",
            show_label=False,
            container=False,
            placeholder="What would have been a good answer? (as you like; nights learn from it)",
            max_length=20_000,
            lines=3,
            max_lines=12,
            visible=False,
        )
        keep_own = gr.Button("Keep my answer", elem_id="keep-own", visible=False)
        with gr.Row(elem_id="entry"):
            box = gr.Textbox(
                "",
                elem_id="box",
                show_label=False,
                container=False,
                placeholder="Ask both something of your own",
                max_lines=10,
                scale=1,
            )
            ask = gr.Button("Ask", elem_id="ask")
            go_on = gr.Button("Go on", elem_id="go-on", interactive=False)
            following = gr.Button("Next", elem_id="next", variant="primary")
        gr.Markdown(
            f"Keys: ← or a, → or b, t tie, x both bad, n next, 1 to {len(REASONS)} a reason. With a prompt of your own "
            "you may go on before you vote. Names are told with the vote.",
            elem_id="keys",
        )
    with gr.Tab("Standings", elem_id="standing") as standing:
        table = gr.HTML(elem_id="standings")
    return Parts(
        shown_id,
        asked,
        left,
        right,
        ballot,
        reasons,
        note,
        said,
        own,
        keep_own,
        box,
        ask,
        go_on,
        following,
        standing,
        table,
    )


def _wire(page: gr.Blocks, parts: Parts, acts: Acts) -> None:
    def on(event: Callable[..., Any], act: Callable[..., Any], inputs: Any, **more: Any) -> Any:
        known = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
        return event(act, inputs, **{"outputs": parts.changing()} | known | more)

    drawing = [on(page.load, acts.open, [parts.shown_id]), on(parts.next.click, acts.next, [parts.shown_id])]
    asked = [parts.shown_id, parts.box]
    asking = [on(event, acts.ask, asked, cancels=drawing) for event in (parts.ask.click, parts.box.submit)]
    asking.append(on(parts.go_on.click, acts.go_on, asked))
    parts.next.click(None, cancels=asking)  # whoever does not want to see the end may go on
    for button, (verdict, _) in zip(parts.ballot, _VERDICTS.values(), strict=True):
        on(button.click, acts.voting(verdict), [parts.shown_id, parts.reasons, parts.note])
    on(parts.keep_own.click, acts.answer, [parts.shown_id, parts.own])
    on(parts.standing.select, acts.standings, None, outputs=[parts.standings])


@final
class Acts:
    """What the buttons do. Holds nothing of its own: what may be voted on is the arena's to know."""

    def __init__(self, arena: Arena, ration: Ration, parts: Parts) -> None:
        self._arena = arena
        self._ration = ration
        self._parts = parts

    async def open(self, shown_id: str, request: gr.Request) -> AsyncGenerator[Changes]:
        """What a browser sees that comes (back): the battle it had and has not voted on, or a new one."""
        shown = self._arena.find(shown_id or "", self._voter(request))
        if shown is not None:
            yield self._battle(shown)
            return
        async for changes in self.next("", request):
            yield changes

    async def next(self, shown_id: str, request: gr.Request) -> AsyncGenerator[Changes]:
        """A held-out prompt."""
        self._arena.skip(shown_id or "", self._voter(request))
        yield self._waiting("") | self._entry(True)
        try:
            yield self._battle(await self._arena.draw(self._voter(request)))
        except (NomoatError, ApiError) as error:
            yield self._failed(error)

    async def ask(self, shown_id: str, text: str, request: gr.Request) -> AsyncGenerator[Changes]:
        """A prompt of the voter's own."""
        if not text.strip():
            yield nothing()
            return
        with self._counted(request) as is_let:
            if not is_let:
                yield nothing()
                if self._arena.find(shown_id or "", self._voter(request)) is None:
                    async for changes in self.next("", request):  # the page gave up its draw in order to ask
                        yield changes
                return
            self._arena.skip(shown_id or "", self._voter(request))
            yield self._waiting(text) | self._entry(False)
            try:
                async with aclosing(self._arena.ask(text, self._voter(request))) as steps:
                    async for step in steps:
                        yield self._step(step)
            except (NomoatError, ApiError) as error:
                yield self._failed(error)

    async def go_on(self, shown_id: str, text: str, request: gr.Request) -> AsyncGenerator[Changes]:
        """Say something more to both of a typed battle; the vote is about all of it then."""
        shown = self._arena.find(shown_id or "", self._voter(request))
        if shown is None or not text.strip():
            yield nothing()
            return
        with self._counted(request) as is_let:
            if not is_let:
                yield nothing()
                return
            yield self._ballot(False) | self._entry(False) | {self._parts.told: "Both are answering …"}
            try:
                async with aclosing(self._arena.go_on(shown.id, text, shown.voter)) as steps:
                    async for step in steps:
                        yield self._step(step)
            except (NomoatError, ApiError) as error:
                log_fault(error)
                yield self._battle(shown) | {self._parts.told: f"Not answered: {_nameless(error)}"}

    def voting(self, verdict: VoteVerdict) -> Callable[..., Any]:
        """What the button of a verdict does."""

        async def vote(shown_id: str, reasons: list[str], note: str, request: gr.Request) -> Changes:
            try:
                voter = self._voter(request)
                cast = await self._arena.vote(shown_id or "", voter, verdict, note, reasons)
            except NomoatError as error:
                log_fault(error)
                gr.Warning(str(error), title="The vote could not be kept")
                return nothing()
            said = told(cast) if cast else "This one was voted on already, or skipped: the first vote counts."
            own = self._own(self._arena.may_answer(shown_id or "", voter))
            return self._ballot(False) | own | self._why() | {self._parts.told: said}

        return vote

    async def answer(self, shown_id: str, text: str, request: gr.Request) -> Changes:
        """What would have been a good answer, where both were bad."""
        if not text.strip():
            return nothing()
        try:
            is_kept = await self._arena.answer(shown_id or "", self._voter(request), text.strip())
        except NomoatError as error:
            log_fault(error)
            gr.Warning(str(error), title="The answer could not be kept")
            return nothing()
        said = "Kept: your answer. Nights learn from it." if is_kept else "Not kept: the vote was taken back."
        return self._own(False) | {self._parts.told: said}

    async def standings(self) -> str:
        """The leaderboard and the voters, as they are now."""
        seen = await self._arena.seen()
        names, anchor = dict(seen.nights.names), await self._arena.champion()
        zero = anchor.model if anchor else None

        def tables() -> str:
            found = standings(seen.evidence, names, anchor=zero, confidence=CONFIDENCE)
            pairs = head_to_head(seen.evidence, names, alpha=1 - CONFIDENCE)
            against = pairings(pairs) + matrix(pairs, [one.name for one in found])
            cast = over_time(by_day(seen.votes)) + diligence(voters(seen.votes, confidence=CONFIDENCE))
            return leaderboard(found, len(seen.votes) - len(seen.evidence)) + against + cast

        # of thousands of votes it takes a second, and others wait for answers
        return await asyncio.to_thread(tables)

    # ---- what they share

    @contextmanager
    def _counted(self, request: gr.Request) -> Generator[bool]:
        """A request of the voter's key while inside; where the key may have no more now they are told so, and it is
        False."""
        with ExitStack() as held:
            try:
                held.enter_context(self._ration.request(holder_in(request)))
            except ApiError as refused:
                gr.Warning(refused.message, title="Not now")
                yield False
            else:
                yield True

    def _voter(self, request: gr.Request) -> str:
        return self._arena.voter_of(holder_in(request))

    def _battle(self, shown: Shown) -> Changes:
        parts, battle = self._parts, shown.battle
        opened = self._ballot(True) | self._entry(True) | self._own(False) | self._why()
        return opened | {
            parts.go_on: gr.update(interactive=battle.question.is_typed),
            parts.shown_id: shown.id,
            parts.question: cut(question(battle.question.conversation)),
            parts.left: cut(side(battle, "left")),
            parts.right: cut(side(battle, "right")),
            parts.told: "",
        }

    def _waiting(self, text: str) -> Changes:
        parts = self._parts
        emptied = dict.fromkeys((parts.shown_id, parts.left, parts.right), "")
        return self._ballot(False) | self._own(False) | emptied | {
            parts.question: cut(text),
            parts.told: "Both are answering …",
        }  # fmt: skip

    def _step(self, step: Battle | Shown) -> Changes:
        if isinstance(step, Shown):
            return self._battle(step) | self._entry(True, value="")
        return {self._parts.left: cut(side(step, "left")), self._parts.right: cut(side(step, "right"))}

    def _failed(self, error: Exception) -> Changes:
        log_fault(error)
        return self._ballot(False) | self._entry(True) | {self._parts.told: f"No battle: {error}"}

    def _entry(self, is_open: bool, **text: str) -> Changes:
        box, ask = self._parts.box, self._parts.ask
        return {box: gr.update(**text, interactive=is_open), ask: gr.update(interactive=is_open)}

    def _why(self) -> Changes:
        """Nothing ticked and nothing written for the next vote."""
        return {self._parts.reasons: [], self._parts.note: ""}

    def _own(self, is_open: bool) -> Changes:
        own, keep = self._parts.own, self._parts.keep_own
        return {own: gr.update(value="", visible=is_open), keep: gr.update(visible=is_open)}

    def _ballot(self, is_open: bool) -> Changes:
        """Whoever may not vote may not go on either."""
        closed = {} if is_open else {self._parts.go_on: gr.update(interactive=False)}
        return closed | {button: gr.update(interactive=is_open) for button in self._parts.ballot}


def _nameless(error: Exception) -> str:
    """What may be said of an error while there is something to vote on: which model cannot be opened tells a name."""
    is_of_model = isinstance(error, ApiError) and (error.code or "").startswith("model_")
    return "a model cannot be opened now; the log says why" if is_of_model else str(error)
