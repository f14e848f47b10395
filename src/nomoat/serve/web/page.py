"""The chat page: what is on it, and what happens when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from nomoat.serve.models import Catalogue
from nomoat.serve.web.acts import Acts
from nomoat.serve.web.attach import ATTACH
from nomoat.serve.web.chats import Chats, Manner
from nomoat.serve.web.look import nav
from nomoat.serve.web.parts import Parts
from nomoat.serve.web.thumbs import Thumbs
from nomoat.serve.web.writing import Writer

# Export is the browser's own download. It asks for the conversation that the page has told it of.
_EXPORT = "(id) => { if (id) window.location.assign(`/chats/${id}`); }"
_LEAVE = "() => fetch('/logout', { method: 'POST' }).then(() => window.location.assign('/login'))"
_SURE = "(id, words) => [id && confirm('Delete this conversation?') ? id : '', words]"
LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": r"\[", "right": r"\]", "display": True},
    {"left": r"\(", "right": r"\)", "display": False},
]


def chat_page(
    catalogue: Catalogue, writer: Writer, chats: Chats, thumbs: Thumbs | None, *, demands_key: bool
) -> gr.Blocks:
    """The page over the server's models and the workspace's conversations."""
    with gr.Blocks(title="nomoat", analytics_enabled=False, fill_height=True) as page:
        parts = _lay_out(demands_key=demands_key)
        _wire(page, parts, Acts(catalogue, writer, chats, thumbs, parts))
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


def _lay_out(*, demands_key: bool) -> Parts:
    default = Manner()
    chat_id = gr.BrowserState("", storage_key="nomoat-chat", secret="nomoat")  # no secret: it is a name
    with gr.Sidebar(width=280):
        gr.HTML(nav("Chat"), elem_id="pages")
        new = gr.Button("New chat", elem_id="new", variant="secondary")
        search = gr.Textbox(
            "", elem_id="search", show_label=False, placeholder="Search", max_length=200, container=False
        )
        past = gr.Radio(elem_id="past", label="Conversations", show_label=False, container=False)
        title = gr.Textbox("", elem_id="title", label="Title (Enter renames)", max_length=120, max_lines=1)
        with gr.Row():
            delete = gr.Button("Delete", elem_id="delete", size="sm")
            export = gr.Button("Export", elem_id="export", size="sm")
        with gr.Accordion("System prompt and sampling", open=False, elem_id="manner"):
            system = gr.Textbox("", elem_id="system", label="System prompt", lines=2, max_lines=8)
            temperature = gr.Slider(
                0, 2, default.temperature, step=0.05, label="Temperature", elem_id="temperature"
            )
            top_p = gr.Slider(0.05, 1, default.top_p, step=0.05, label="Top p", elem_id="top-p")
            max_tokens = gr.Slider(16, 4096, default.max_tokens, step=16, label="Tokens at most")
            seed = gr.Number(None, label="Seed (empty: a new one each time)", precision=0, minimum=0)
        leave = gr.Button("Log out", elem_id="leave", size="sm", visible=demands_key)
        leave.click(None, js=_LEAVE, api_visibility="private")
    with gr.Row(elem_id="top"):
        model = gr.Dropdown(
            elem_id="picker", label="Model", show_label=False, container=False, filterable=False
        )
        beside_base = gr.Checkbox(elem_id="compare", label="Beside base", container=False)
        gr.Button("◐", elem_id="theme", size="sm", min_width=44)
    with gr.Row(elem_id="columns", scale=1):
        talk = _chatbot("talk", "The chosen model", editable="user")
        beside = _chatbot("beside", "The base", visible=False)
    with gr.Column(elem_id="choice", visible=False) as choice:
        earlier = gr.Markdown(elem_id="earlier", sanitize_html=True, latex_delimiters=LATEX)
        with gr.Row(elem_id="which"):
            newer_better = gr.Button("The new answer is better", elem_id="newer-better", size="sm")
            earlier_better = gr.Button("The one before is better", elem_id="earlier-better", size="sm")
            equal = gr.Button("Equal", elem_id="equal", size="sm")
    pace = gr.Markdown(elem_id="pace")
    with gr.Row(elem_id="entry"):
        attach = gr.Button("+", elem_id="attach", variant="secondary", min_width=44)
        box = gr.Textbox(
            "",
            elem_id="box",
            show_label=False,
            container=False,
            placeholder="Say something",
            lines=1,
            max_lines=10,
            autofocus=True,
            scale=1,
        )
        send = gr.Button("Send", elem_id="send", variant="primary")
        stop = gr.Button("Stop", elem_id="stop", variant="stop", interactive=False)
    return Parts(
        chat_id, new, search, past, title, delete, export, model, beside_base, talk, beside,
        choice, earlier, newer_better, earlier_better, equal, pace, box, attach,
        send, stop, system, temperature, top_p, max_tokens, seed,
    )  # fmt: skip


def _chatbot(name: str, label: str, **more: Any) -> gr.Chatbot:
    return gr.Chatbot(
        elem_id=name,
        label=label,
        show_label=False,
        height="100%",
        sanitize_html=True,
        allow_tags=False,
        allow_file_downloads=False,
        latex_delimiters=LATEX,
        layout="bubble",
        buttons=["copy"],
        **more,
    )


def _wire(page: gr.Blocks, parts: Parts, acts: Acts) -> None:
    def on(event: Callable[..., Any], act: Callable[..., Any] | None, inputs: Any, **more: Any) -> Any:
        return event(
            act,
            inputs,
            parts.shown() if act else None,
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,
            **more,
        )

    here = parts.chat_id
    asked = [here, parts.box, *parts.choices()]
    on(page.load, acts.open_page, [here])
    parts.attach.click(None, [parts.box], [parts.box], js=ATTACH, api_visibility="private")
    for event in (parts.send.click, parts.box.submit):
        on(event, acts.send, asked)
    on(parts.stop.click, acts.stop, [here])
    on(parts.talk.retry, acts.retry, [here, *parts.choices()])
    on(parts.talk.edit, acts.edit, asked)
    on(parts.talk.undo, acts.undo, [here])
    if acts.takes_thumbs:
        on(parts.talk.like, acts.rate, [here], trigger_mode="multiple")
    on(parts.newer_better.click, acts.prefer_newer, [here])
    on(parts.earlier_better.click, acts.prefer_earlier, [here])
    on(parts.equal.click, acts.prefer_neither, [here])
    on(parts.new.click, acts.new, [parts.model])
    on(parts.past.input, acts.open, [parts.past])
    on(parts.search.change, acts.search, [parts.search, here])
    on(parts.title.submit, acts.rename, [here, parts.title, parts.search])
    on(parts.delete.click, acts.delete, [here, parts.search], js=_SURE)
    on(parts.export.click, None, [here], js=_EXPORT)
    on(parts.beside_base.input, acts.compare, [here, parts.beside_base])
