"""The style of answers: how long they are, and how many headings, list items and bold passages their markdown has.

Who judges is swayed by these beside what is said; `stats.winrate.controlled_win_rate` takes them out. The features are
those of FastChat's style control (monitor/rating_systems.py), with characters for tokens: tokens are a model's own.

Letters: N pairs of answers · F features.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from nomoat.evaluate.stats.intervals import Floats
from nomoat.evaluate.stats.winrate import style_difference

FEATURES = ("characters", "headings", "list items", "bold")
# each begins with letters that are searched for fast: a line's beginning is its line break
_FENCED = re.compile(
    r"\n {0,3}(```+|~~~+)[^`\n]*(?:\n(?:.*?\n)?? {0,3}\1[`~]*[ \t]*(?=\n|$)|\n.*|$)", re.DOTALL
)
_CODE = re.compile(r"`[^`\n]+`")
_HEADING = re.compile(r"\n {0,3}#{1,6}(?![^ \t\n])")
_LIST_ITEM = re.compile(r"\n[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_BOLD = re.compile(r"\*\*(?=\S).+?(?<=\S)\*\*"), re.compile(r"__(?=\S).+?(?<=\S)__")


def style_of(text: str) -> tuple[int, ...]:
    """How many of each of `FEATURES` a text has. Code has no style: a `#` there is no heading."""
    plain = _CODE.sub("", _FENCED.sub("", "\n" + text))
    bold = sum(len(marks.findall(plain)) for marks in _BOLD)
    return len(text), len(_HEADING.findall(plain)), len(_LIST_ITEM.findall(plain)), bold


def style_differences(ones: Sequence[str], others: Sequence[str]) -> Floats:
    """How much more of each feature each of `ones` has than its rival [N, F], from -1 to 1; 0 where they are alike."""
    one_NF, other_NF = (np.array([style_of(text) for text in texts]) for texts in (ones, others))
    return style_difference(one_NF, other_NF)
