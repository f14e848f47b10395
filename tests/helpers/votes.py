"""Votes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.workspaces import ledger_path
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.rows import Vote, VoteRow
from nomoat.ledger.store import Ledger

VOTE = Vote(
    cast_at="2026-11-24T07:00:00.000Z",
    voter="ada",
    verdict="left",
    left_model="quantize-aaaa/night-Q8_0.gguf",
    right_model="quantize-bbbb/base-Q8_0.gguf",
    left_name="gen-0001",
    right_name="base",
    source="typed",
    prompt_hash="ab" * 32,
    prompt={"messages": [{"role": "user", "content": "Tell me a story."}]},
    left_answer="Once.",
    right_answer="Twice.",
    sampling={"temperature": 0.7, "seed": 3},
    seconds=4.5,
)


def vote_on(asked: str, chosen: str, rejected: str, *, left: bool = True, **other: Any) -> Vote:
    """A vote for `chosen`, which stands on the left or the right."""
    prompt = {"messages": [{"role": "user", "content": asked}]}
    said = {
        "prompt": prompt,
        "prompt_hash": canonical_key(prompt),
        "verdict": "left" if left else "right",
        "left_answer": chosen if left else rejected,
        "right_answer": rejected if left else chosen,
    }
    return replace(VOTE, **(said | other))


def kept(workspace: Path) -> tuple[VoteRow, ...]:
    """The votes of a workspace's ledger."""
    with Ledger.open(ledger_path(workspace)) as ledger:
        return ledger.judgements.votes()
