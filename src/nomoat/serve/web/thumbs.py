"""What readers of the chat page think of its answers, kept for the nights to learn from."""

from __future__ import annotations

from typing import Any, final

from nomoat.errors import ServeError
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.feedback import add_rating, take_back_rating
from nomoat.ledger.keys import Holder
from nomoat.ledger.rows import Rating, Thumb
from nomoat.ledger.store import Ledger
from nomoat.serve.guard import VOTE, allows
from nomoat.serve.models import Catalogue
from nomoat.serve.web.arena import Votes
from nomoat.serve.web.chats import Answer, Chat


@final
class Thumbs:
    """Puts thumbs into the workspace's ledger. Called from threads."""

    def __init__(self, catalogue: Catalogue, votes: Votes) -> None:
        self._catalogue = catalogue
        self._votes = votes

    def rate(
        self, chat: Chat, place: int, answer: Answer, thumb: Thumb | None, holder: Holder | None
    ) -> None:
        """Keep somebody's thumb on an answer to the turn at `place`; no thumb takes it back. No holder: no key is
        demanded.

        Raises:
            ServeError: the key may not vote.
            NomoatError: the model is here no more and there is a thumb to keep, or the ledger cannot be written.
        """
        if holder is not None and not allows(holder, VOTE):
            raise ServeError("thumbs are votes, and this key lacks the scope vote")
        prompt = {"messages": chat.asked(place, answer)}
        said: dict[str, Any] = {
            "voter": self._votes.voter_of(holder),
            "model_name": answer.model,
            "prompt_hash": canonical_key(prompt),
            "answer": answer.text,
        }
        with Ledger.open(self._votes.ledger_path) as ledger:
            if thumb is None:
                take_back_rating(ledger, **said)
            else:
                model = self._catalogue.find(answer.model).model
                add_rating(ledger, Rating(**said, verdict=thumb, model=model, prompt=prompt))
