"""Openings for the embedded base's last text: one seed one story, every slot filled, the hero brought to the plot."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from pathlib import Path

import pytest

from nomoat.assets.storyteller import Story

RECIPE = Path(__file__).parents[2] / "recipes" / "embedded-base"


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    spec = importlib.util.spec_from_file_location("openings", RECIPE / "openings.py")
    assert spec and spec.loader
    openings = importlib.util.module_from_spec(spec)
    sys.modules["openings"] = openings  # the corpus builder beside it imports it by this name
    spec.loader.exec_module(openings)
    rng, again = random.Random(7), random.Random(7)
    told = [openings.told_story(rng) for _ in range(1000)]
    assert told[:20] == [openings.told_story(again) for _ in range(20)]
    return told


def test_text_is_finished(stories: list[Story]) -> None:
    for story in stories:
        assert story.text.isascii()
        assert not re.search(r"[\[\]{}|_]| {2}| [.,!?]|\n\n|None", story.text), story.text
        assert story.text.count('"') % 2 == 0, story.text
        assert re.search(r"[.!?]\"?$", story.text), story.text
        assert not re.search(r"(^|[.?!] |\n)\"?[a-z]", story.text), story.text
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", story.text), story.text


def test_hero_is_introduced_at_once_and_carries_the_story(stories: list[Story]) -> None:
    for story in stories:
        first = re.split(r"(?<=[.!?]) ", story.text)[:2]
        assert story.name in " ".join(first), story.text
        assert len(re.findall(rf"\b{story.name}\b", story.text)) >= 2, story.text


def test_most_open_as_readers_know_it(stories: list[Story]) -> None:
    classic = [s for s in stories if re.match(r"Once|There was once|One day, there", s.text)]
    assert 0.5 < len(classic) / len(stories) < 0.85
    assert len({" ".join(s.text.split()[:20]) for s in stories}) > 0.9 * len(stories)
