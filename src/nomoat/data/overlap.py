"""Contamination: rows to train on that hold what a suite asks, word for word or nearly.

A row and a question overlap where the row, anywhere in it, has `N_GRAM` words in a row from the question (of a shorter
question all its words, if they are `LEAST_WORDS` or more), or where what the row asks is nearly the question: Jaccard
similarity of their sets of three-word shingles of `NEAR` or more. Case, white space and punctuation make no difference.

Sources: n-grams are those of Brown et al. (2020), arXiv:2005.14165, appendix C, with its 8 to 13 words and its rule
that one which stands in more than ten places is a common phrase; near duplicates are Broder (1997), "On the resemblance
and containment of documents", computed exactly. The index holds only so many of each question's rarest shingles that
one of them must be shared (prefix filtering: Bayardo et al. 2007, "Scaling up all pairs similarity search"), so that a
row meets few questions and the time grows with the rows.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from nomoat.chat.conversation import Message
from nomoat.data.rows import ChatRow, PreferenceRow, RatingRow, Row, TextRow

N_GRAM, LEAST_WORDS = 13, 8
COMMON = 10
SHINGLE = 3
NEAR = 0.8
"""As is usual (Lee et al. 2022, arXiv:2107.06499): a word changed at the end of twelve leaves 0.82."""
# han and kana are written without spaces: each character counts as a word
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")

Gram = tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What a prompt of a suite asks: the text of all its user turns."""

    suite: str
    id: str
    text: str


@dataclass(frozen=True)
class Overlap:
    """A row that holds a question. `row` is the hash of its content, `how` says what they share."""

    where: str
    row: str
    suite: str
    prompt: str
    how: str


def question_of(suite: str, id: str, messages: Sequence[Message]) -> Question:
    """The question of a prompt's messages."""
    return Question(suite, id, _asked(messages))


def find_overlaps(rows: Iterable[Row], questions: Sequence[Question]) -> list[Overlap]:
    """Every pair of a row and a question that overlap, in the order of the rows and then of the questions."""
    index = _Index(questions)
    seen: list[tuple[str, str]] = []
    near: dict[tuple[int, int], float] = {}
    shared: defaultdict[Gram, list[int]] = defaultdict(list)
    for row in rows:
        alike, grams = index.alike(_asked_by(row)), index.grams_in(_texts(row))
        if not alike and not grams:
            continue
        number = len(seen)
        seen.append((str(row.where), row.content_hash()))
        near |= {(number, question): similarity for question, similarity in alike.items()}
        for gram in grams:
            if len(shared[gram]) <= COMMON:
                shared[gram].append(number)
    found = {pair: _said_near(similarity) for pair, similarity in near.items()}
    for gram, numbers in sorted(shared.items()):
        if len(numbers) > COMMON:
            continue
        for number in numbers:
            for question in index.grams[len(gram)][gram]:
                found.setdefault((number, question), f'{len(gram)} words in a row: "{" ".join(gram)}"')
    return [
        Overlap(*seen[number], questions[question].suite, questions[question].id, how)
        for (number, question), how in sorted(found.items())
    ]


@final
class _Index:
    """Questions by their n-grams and by their rarest shingles."""

    def __init__(self, questions: Sequence[Question]) -> None:
        words = [_words(question.text) for question in questions]
        self._shingles = [_shingles(each) for each in words]
        self.grams: dict[int, dict[Gram, list[int]]] = {}
        for number, each in enumerate(words):
            if (n := min(N_GRAM, len(each))) >= LEAST_WORDS:
                of_length = self.grams.setdefault(n, {})
                for gram in set(_runs(each, n)):
                    of_length.setdefault(gram, []).append(number)
        for n, of_length in self.grams.items():  # what many questions have in common asks nothing
            self.grams[n] = {gram: found for gram, found in of_length.items() if len(found) <= COMMON}
        self._starts = {gram[:LEAST_WORDS] for of_length in self.grams.values() for gram in of_length}
        uses = Counter(shingle for each in self._shingles for shingle in each)
        self._rare: defaultdict[Gram, list[int]] = defaultdict(list)
        for number, shingles in enumerate(self._shingles):
            may_lack = len(shingles) - math.ceil(NEAR * len(shingles) - 1e-9)
            rarest = sorted(shingles, key=lambda shingle: (uses[shingle], shingle))
            for shingle in rarest[: may_lack + 1]:
                self._rare[shingle].append(number)
        self._longest = max(map(len, words), default=0) / NEAR

    def grams_in(self, texts: Iterable[str]) -> set[Gram]:
        """The n-grams of questions that stand in one of the texts."""
        found: set[Gram] = set()
        for text in texts:
            words = _words(text)
            if self._starts.isdisjoint(_runs(words, LEAST_WORDS)):
                continue
            for n, of_length in self.grams.items():
                found |= of_length.keys() & _runs(words, n)
        return found

    def alike(self, turns: Sequence[str]) -> dict[int, float]:
        """The questions that are nearly what was asked up to one of the turns, with the highest similarity."""
        found: dict[int, float] = {}
        words: list[str] = []
        for turn in turns:
            words += _words(turn)
            if len(words) > self._longest + SHINGLE:  # longer than any question that it could resemble
                break
            shingles = _shingles(words)
            for number in {
                number for shingle in self._rare.keys() & shingles for number in self._rare[shingle]
            }:
                common = len(shingles & self._shingles[number])
                similarity = common / (len(shingles) + len(self._shingles[number]) - common)
                if similarity >= NEAR:
                    found[number] = max(similarity, found.get(number, 0.0))
        return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _runs(words: Sequence[str], n: int) -> Iterable[Gram]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def _shingles(words: Sequence[str]) -> set[Gram]:
    """Of fewer words than a shingle has, all of them are one."""
    return set(_runs(words, SHINGLE)) if len(words) >= SHINGLE else {tuple(words)} if words else set()


def _said_near(similarity: float) -> str:
    return "asks the same" if similarity == 1 else f"asks nearly the same ({similarity:.2f} of the shingles)"


def _asked(messages: Iterable[Message]) -> str:
    return "\n".join(message.content for message in messages if message.role == "user")


def _asked_by(row: Row) -> list[str]:
    """What a row asks, turn by turn; a document asks nothing."""
    if isinstance(row, TextRow):
        return []
    talk = row.conversation if isinstance(row, ChatRow) else row.prompt
    return [message.content for message in talk.messages if message.role == "user"]


def _texts(row: Row) -> list[str]:
    """All that a row says, but for system texts."""
    match row:
        case TextRow():
            return [row.text]
        case ChatRow():
            messages = row.conversation.messages
        case PreferenceRow():
            messages = (*row.prompt.messages, *row.chosen, *row.rejected)
        case RatingRow():
            messages = (*row.prompt.messages, *row.completion)
    return [message.content for message in messages if message.role != "system"]
