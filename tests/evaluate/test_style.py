"""Features of style against a CommonMark parser, and win rates freed of them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from markdown_it import MarkdownIt

from helpers.votes import VOTE
from nomoat.evaluate.calibration import compare
from nomoat.evaluate.judge import Pair, Verdict
from nomoat.evaluate.standings import standings
from nomoat.evaluate.style import style_differences, style_of
from nomoat.ledger.rows import Vote

TEXT = """# Cats

They **purr** and __sleep__, which is ** not bold ** nor 2 * 3 * 4.

## What they eat ##
- fish, **raw**
- mice
  1. small ones
  2. **big** ones
* birds

#hashtag and 1.5 kg are nothing.

```python
# a comment
- no item, **kwargs**
```

Call `**this**` code.

###
"""


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "",
        "plain",
        "~~~\n# never closed\n- in code",
        "Go:\n\n```\nno **bold**\n~~~\n```\n# Out",
        "```\n```\n# In",
        "```a``` is\n# In",
        "**__a__** and **b** c**",
    ],
)
def test_features_are_those_a_commonmark_parser_finds(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(text)
    kinds = [inner.type for token in tokens for inner in (token, *(token.children or ()))]
    expected = [kinds.count(kind) for kind in ("heading_open", "list_item_open", "strong_open")]
    assert style_of(text) == (len(text), *expected)


def test_a_difference_has_the_sign_of_who_has_more() -> None:
    found = style_differences(["# a\n- b", "same"], ["plain **a** and **b**", "same"])
    assert found.tolist() == [[(7 - 21) / 29, 1 / 2, 1 / 2, -2 / 3], [0, 0, 0, 0]]


def dressed(text: str, rich: bool) -> str:
    """A text of the same length in plain words, or in bold as a list."""
    return f"- **{text}**" if rich else f"xxx {text} xx"


def test_who_is_liked_for_bold_lists_alone_is_no_better_in_the_same_style() -> None:
    """The newer model dresses its answers up more often, and the voter likes that seven times of eight."""
    chance = random.Random(5)
    pairs, verdicts, cast = list[Pair](), list[Verdict | None](), list[Vote]()
    for number in range(600):
        mine, theirs = chance.random() < 0.8, chance.random() < 0.3
        liked = 0.5 if mine == theirs else 0.875 if mine else 0.125
        won = float(chance.random() < liked)
        one, other = dressed(f"a {number:03}", mine), dressed(f"b {number:03}", theirs)
        pairs.append(Pair(str(number), (), one, other))
        verdicts.append(Verdict(won, won))
        vote = replace(VOTE, prompt_hash=str(number), verdict="left" if won else "right")
        cast.append(replace(vote, left_answer=one, right_answer=other))
    contest = compare(pairs, verdicts, confidence=0.95)
    (best, worst) = standings(cast, {}, anchor=None, confidence=0.95)
    for rate, same_style in ((contest.rate, contest.same_style), (best.rate, best.same_style)):
        assert rate is not None and same_style is not None
        assert rate.low > 0.6
        assert same_style.low < 0.5 < same_style.high
    assert best.same_style is not None and worst.same_style is not None
    assert np.isclose(worst.same_style.value, 1 - best.same_style.value)


def test_what_is_said_in_later_turns_has_style_too_and_all_alike_tells_nothing() -> None:
    turns = [{"asked": "And?", "left": "**Yes**", "right": "No"}]
    cast = [
        replace(
            VOTE, prompt_hash=str(n), verdict="left" if n % 4 else "right", turns=turns if n % 4 else None
        )
        for n in range(80)
    ]
    (best, _) = standings(cast, {}, anchor=None, confidence=0.95)
    assert best.rate is not None and best.same_style is not None
    assert best.same_style.value < best.rate.value - 0.1, "the bold that it won by is taken out"
    (best, _) = standings(cast[1:4], {}, anchor=None, confidence=0.95)
    assert best.rate is not None and best.same_style is None
