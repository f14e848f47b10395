"""Thumbs of the chat page in the ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.serving import Names
from nomoat.errors import ArtifactError
from nomoat.ledger.feedback import standing_ratings
from nomoat.ledger.rows import RatingRow
from nomoat.ledger.store import Ledger
from nomoat.serve.models import ServedModel
from nomoat.serve.web.arena import Votes
from nomoat.serve.web.chats import Answer, Chat, Manner, Turn
from nomoat.serve.web.thumbs import Thumbs
from nomoat.serve.web.writing import Column, Writing

BRIEF, RHYMED = Manner(system="Be brief."), Manner(system="Rhyme.")


def kept(path: Path) -> list[RatingRow]:
    with Ledger.open(path) as ledger:
        return standing_ratings(ledger)


def test_a_thumb_is_on_what_was_asked_then_and_can_be_taken_back_later(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    thumbs = Thumbs(Names(["gen-0001"]), Votes(path, lambda holder: "ada"))
    chat = replace(Chat.new("Why?", "gen-0001"), manner=BRIEF, turns=(Turn("Why?"),))
    column = Column("gen-0001", chat.manner.system, ["So."], ended="stop")
    chat = Writing(chat, [column]).so_far()
    answer = chat.turns[0].answer
    assert answer is not None
    thumbs.rate(chat, 0, answer, "up", None)
    later = replace(chat, manner=RHYMED, turns=(*chat.turns, Turn("And?", Answer("gen-0001", "No.", "stop"))))
    thumbs.rate(later, 0, answer, "down", None)
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert [(row.verdict, row.prompt["messages"]) for row in kept(path)] == [("down", asked)]
    thumbs.rate(later, 0, answer, None, None)
    assert kept(path) == []


class Gone(Names):
    """Its files were deleted."""

    def find(self, resolved: str) -> ServedModel:
        raise ArtifactError(f"{resolved} is gone")


def test_a_thumb_can_be_taken_back_when_its_model_is_gone(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "ledger.db", lambda holder: "ada")
    answer = Answer("gen-0001", "So.", "stop", system="")
    chat = replace(Chat.new("Why?", "gen-0001"), turns=(Turn("Why?", answer),))
    Thumbs(Names(["gen-0001"]), votes).rate(chat, 0, answer, "up", None)
    gone = Thumbs(Gone([]), votes)
    with pytest.raises(ArtifactError):
        gone.rate(chat, 0, answer, "down", None)
    assert len(kept(votes.ledger_path)) == 1
    gone.rate(chat, 0, answer, None, None)
    assert kept(votes.ledger_path) == []
