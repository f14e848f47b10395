"""The page's parts by name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr


@dataclass(frozen=True, eq=False)
class Parts:
    """Gradio's components. `choices` are what an answer is asked for with; `shown` what an act may change."""

    chat_id: Any
    new: Any
    search: Any
    past: Any
    title: Any
    delete: Any
    export: Any
    model: Any
    beside_base: Any
    talk: Any
    beside: Any
    choice: Any
    earlier: Any
    newer_better: Any
    earlier_better: Any
    equal: Any
    pace: Any
    box: Any
    attach: Any
    send: Any
    stop: Any
    system: Any
    temperature: Any
    top_p: Any
    max_tokens: Any
    seed: Any

    def choices(self) -> list[Any]:
        return [
            self.model,
            self.beside_base,
            self.system,
            self.temperature,
            self.top_p,
            self.max_tokens,
            self.seed,
        ]

    def shown(self) -> list[Any]:
        silent = {"new", "search", "delete", "export", "attach", "newer_better", "earlier_better", "equal"}
        return [getattr(self, field.name) for field in fields(self) if field.name not in silent]


Changes = dict[Any, Any]
"""Parts with their new values."""


def nothing() -> Changes:
    """No part changes. Generators give it too: one that gives nothing at all empties every part."""
    unchanged: Changes = gr.skip()
    return unchanged
