"""The starter data: requests with checkable wishes, stories that fulfil them, and held-out prompts.

    python -m nomoat.assets.starter --out src/nomoat/assets/starter --seed 0

recreates `train.jsonl`, `prompts.jsonl`, `heldout.jsonl` and the data card byte for byte. A story is told first and the
request is written for it, so every answer passes its checks; that is asserted for each row while it is made.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from nomoat.assets import asks
from nomoat.assets import wordbank as bank
from nomoat.assets.storyteller import PLOTS, Story, article, make_story, plan_story, tell
from nomoat.evaluate.checks import count_words, parse_checks, run_checks, sentences

TRAIN_ROWS, PROMPT_ROWS, HELD_OUT_ROWS = 600, 480, 120
OTHER_SHARE = 0.15  # rows that ask for something near a story: a title, the hero's name, the rest
MAX_TRIES = 40  # with one wording, before another is drawn
TOO_CLOSE = 0.9  # held-out prompts share at most this part of their words with any training prompt
OPENINGS = re.compile(
    r"Once upon a time|Long ago|There (?:once was|was once)|Once there was|Late one night|"
    r"One (?:sunny day|sunny morning|fine day|bright afternoon|warm day|dark night|morning|afternoon|evening)"
)
NOUNS = frozenset({thing.noun for thing in bank.THINGS} | {hero.kind for hero in bank.HEROES})
ADJECTIVES = frozenset({*bank.HERO_ADJECTIVES, *bank.HELPER_ADJECTIVES}).union(
    *(t.adjectives for t in bank.THINGS)
)
HOME_PLOTS = ("night", "rain", "mess", "present", "lost way")  # here nobody has to go home in the end
BOUNDS = {  # slot: what it counts, and which bound it is
    "low": ("words", "min"),
    "high": ("words", "max"),
    "least": ("words", "min"),
    "most": ("words", "max"),
    "few": ("sentences", "min"),
    "many": ("sentences", "max"),
}
Checks = list[dict[str, object]]


@dataclass(frozen=True)
class Row:
    """One request, an answer that passes its checks, and what makes the request different from others."""

    prompt: str
    answer: str
    checks: Checks
    task: str
    name: str  # the asked name, or ''
    words: frozenset[str]  # the asked words
    phrases: frozenset[str] = frozenset()  # the asked first words and last sentence

    @property
    def combination(self) -> tuple[str, frozenset[str], frozenset[str]]:
        return self.name, self.words, self.phrases


def slots_of(wording: str) -> frozenset[str]:
    """The slots a wording uses: what it asks for."""
    return frozenset(field for _, field, _, _ in Formatter().parse(wording) if field)


def join_words(words: Sequence[str]) -> str:
    """'kite', 'kite and river', 'kite, river and fox'."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _tell_for(rng: random.Random, wanted: frozenset[str]) -> Story:
    """A story that can fulfil the slots; a wished ending has to suit what happens."""
    if "ending" not in wanted:
        return make_story(rng)
    plan = plan_story(rng)
    endings: Sequence[str] = bank.FIXED_ENDINGS
    if plan.plot.kind in HOME_PLOTS:
        endings = [ending for ending in endings if "went home" not in ending]
    if plan.plot.when == "night":
        endings = ("The end.", "It was a very good night.", "All was quiet and well.")
    return tell(rng, plan, rng.choice(endings))


def _asked_words(rng: random.Random, story: Story, wanted: frozenset[str]) -> tuple[str, ...]:
    """One to three of the story's own words; things and animals only where the wording says 'a kite'."""
    if "things" in wanted:
        nouns = [word for word in story.words if word in NOUNS and word != story.species_or_kind]
        return tuple(rng.sample(nouns, min(len(nouns), rng.randint(1, 2))))
    if not wanted & {"words", "list"}:
        return ()
    plain = [word for word in story.words if word not in ADJECTIVES]
    adjectives = [word for word in story.words if word in ADJECTIVES]
    asked = rng.sample(plain, min(len(plain), rng.choice((1, 1, 2))))
    if adjectives and (not asked or (len(asked) < 3 and rng.random() < 0.4)):
        asked.append(rng.choice(adjectives))
    rng.shuffle(asked)
    return tuple(asked)


def _fill(rng: random.Random, story: Story, words: Sequence[str]) -> dict[str, str]:
    """What each slot says about this story; ranges lie loosely around the truth."""
    length, count = count_words(story.text), len(sentences(story.text))
    low = length // 10 * 10 - rng.choice((0, 10, 20))
    few = count - rng.randint(1, 3)
    opening = OPENINGS.match(story.text)
    return {
        "name": story.name,
        "a_kind": article(story.species_or_kind),
        "words": f"the word{'s' if len(words) > 1 else ''} {join_words(words)}" if words else "",
        "list": ", ".join(words),
        "things": join_words([article(word) for word in words]) if words else "",
        "ending": story.ending,
        "opening": opening[0] if opening else "",
        "low": str(low),
        "high": str(low + 40),
        "most": str(length // 10 * 10 + rng.choice((10, 20, 30))),
        "least": str(length // 10 * 10 - rng.choice((0, 10))),
        "few": str(few),
        "many": str(few + 4),
    }


def _checks_for(wanted: frozenset[str], slots: dict[str, str], words: Sequence[str], kind: str) -> Checks:
    """The checks that say the same as the request."""
    included = [*words, *([kind] if "a_kind" in wanted and kind not in words else [])]
    checks: Checks = []
    if included:
        checks.append({"kind": "includes", "words": included})
    if "name" in wanted:
        checks.append({"kind": "name", "name": slots["name"]})
    if "opening" in wanted:
        checks.append({"kind": "starts_with", "text": slots["opening"]})
    if "ending" in wanted:
        checks.append({"kind": "ends_with", "text": slots["ending"]})
    for unit in ("words", "sentences"):
        limits = {
            bound: int(slots[slot]) for slot, (of, bound) in BOUNDS.items() if of == unit and slot in wanted
        }
        if limits:
            checks.append({"kind": unit, **limits})
    return checks


def story_row(rng: random.Random, wording: str) -> Row:
    """A request for a story, and the story."""
    wanted = slots_of(wording)
    while True:
        story = _tell_for(rng, wanted)
        words = _asked_words(rng, story, wanted)
        slots = _fill(rng, story, words)
        if all(slots[slot] for slot in wanted):
            break
    prompt = wording.format(**slots)
    prompt = prompt[0].upper() + prompt[1:]
    checks = _checks_for(wanted, slots, words, story.species_or_kind)
    phrases = frozenset(slots[slot] for slot in ("opening", "ending") if slot in wanted)
    name = story.name if "name" in wanted else ""
    return Row(prompt, story.text, checks, "story", name, frozenset(words), phrases)


def title_row(rng: random.Random, wording: str) -> Row:
    """A request for a title; the title names the thing, and the hero where the request does."""
    while True:
        story = make_story(rng)
        nouns = [word for word in story.words if word in NOUNS and word in story.title.lower().split()]
        named = "name" in slots_of(wording)
        if nouns and (story.name in story.title.split()) >= named:
            break
    prompt = wording.format(name=story.name, things=article(nouns[0]))
    included = [nouns[0], *([story.name] if named else [])]
    checks: Checks = [{"kind": "includes", "words": included}, {"kind": "words", "min": 2, "max": 8}]
    return Row(prompt, story.title, checks, "title", story.name if named else "", frozenset(nouns[:1]))


def hero_row(rng: random.Random, wording: str) -> Row:
    """A question about a story: who is its hero?"""
    story = make_story(rng)
    prompt = wording.format(story=story.text)
    checks: Checks = [{"kind": "includes", "words": [story.name]}, {"kind": "words", "max": 8}]
    return Row(prompt, f"The hero is {story.name}.", checks, "hero", story.name, frozenset(story.words))


def continue_row(rng: random.Random, wording: str) -> Row:
    """The first sentences of a story, and the rest of it."""
    while True:
        story = make_story(rng)
        parts = sentences(story.text)
        start = " ".join(parts[: rng.randint(2, 4)])
        flat = " ".join(story.text.split())
        rest = flat[len(start) :].strip()
        if flat.startswith(start) and len(re.findall(rf"\b{story.name}\b", rest)) >= 2:
            break
    prompt = wording.format(start=start)
    low = count_words(rest) // 10 * 10 - 20
    checks: Checks = [
        {"kind": "name", "name": story.name},
        {"kind": "words", "min": max(low, 20), "max": low + 80},
    ]
    return Row(prompt, rest, checks, "continue", story.name, frozenset(story.words))


Maker = Callable[[random.Random, str], Row]
TASKS: tuple[tuple[Maker, tuple[str, ...]], ...] = (
    (story_row, asks.STORY_ASKS),
    (title_row, asks.TITLE_ASKS),
    (hero_row, asks.HERO_ASKS),
    (continue_row, asks.CONTINUE_ASKS),
)


def _is_fulfilled(row: Row) -> bool:
    return all(result.passed for result in run_checks(row.answer, parse_checks(row.checks)))


def _orders(rng: random.Random, count: int) -> list[tuple[Maker, str]]:
    """Which row is made how: tasks in a fixed proportion, each task's wordings dealt out evenly."""
    others = round(count * OTHER_SHARE)
    shares = [count - others, *((others + 2 - task) // 3 for task in range(3))]
    orders: list[tuple[Maker, str]] = []
    for (maker, wordings), share in zip(TASKS, shares, strict=True):
        deck = rng.sample(wordings, len(wordings))
        orders += [(maker, deck[index % len(deck)]) for index in range(share)]
    rng.shuffle(orders)
    return orders


def _make(rng: random.Random, count: int, accept: Callable[[Row, list[Row]], bool]) -> list[Row]:
    """Rows as ordered; `accept` sees a row and those already taken. A wording that yields none gives way."""
    rows: list[Row] = []
    for maker, wording in _orders(rng, count):
        row, tries = maker(rng, wording), 1
        while not accept(row, rows):
            if tries % MAX_TRIES == 0:
                wording = rng.choice(dict(TASKS)[maker])
            row, tries = maker(rng, wording), tries + 1
        assert _is_fulfilled(row), (row, run_checks(row.answer, parse_checks(row.checks)))
        rows.append(row)
    return rows


def bag(prompt: str) -> frozenset[str]:
    """The words of a prompt, for comparing prompts."""
    return frozenset(re.findall(r"\w+", prompt.lower()))


def closeness(left: frozenset[str], right: frozenset[str]) -> float:
    """The shared part of two bags of words (Jaccard)."""
    return len(left & right) / len(left | right)


def make_rows(seed: int) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows; no held-out combination of name, words and phrases is trained on."""
    # A stream of its own: the pre-training corpus tells stories with Random(seed), and two walks over one
    # stream fall into step and tell the same stories.
    rng = random.Random(f"starter {seed}")
    train = _make(rng, TRAIN_ROWS, lambda row, rows: all(row.prompt != other.prompt for other in rows))
    return train, make_fresh(rng, HELD_OUT_ROWS, train)


def make_fresh(rng: random.Random, count: int, seen: Sequence[Row]) -> list[Row]:
    """Rows that share no combination of name, words and phrases, and less than `TOO_CLOSE` of their prompts' words,
    with those seen, nor with each other."""
    combinations = {row.combination for row in seen}
    bags = [bag(row.prompt) for row in seen]

    def is_new(row: Row, rows: list[Row]) -> bool:
        if row.combination in combinations | {other.combination for other in rows}:
            return False
        mine = bag(row.prompt)
        return all(closeness(mine, other) < TOO_CLOSE for other in (*bags, *(bag(r.prompt) for r in rows)))

    return _make(rng, count, is_new)


def make_prompts(seed: int, train: Sequence[Row], held_out: Sequence[Row]) -> list[Row]:
    """More rows, to learn from a model's own answers to them; as far from the held-out ones as the training rows."""
    rng = random.Random(
        f"starter prompts {seed}"
    )  # a stream of its own, so that the other rows stay as they are
    combinations = {row.combination for row in held_out}
    bags, known = [bag(row.prompt) for row in held_out], {row.prompt for row in train}

    def is_new(row: Row, rows: list[Row]) -> bool:
        if row.combination in combinations or row.prompt in known | {other.prompt for other in rows}:
            return False
        return all(closeness(bag(row.prompt), other) < TOO_CLOSE for other in bags)

    return _make(rng, PROMPT_ROWS, is_new)


def _jsonl(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _user(row: Row) -> dict[str, str]:
    return {"role": "user", "content": row.prompt}


def _prompts(name: str, rows: Sequence[Row]) -> list[object]:
    return [
        {"id": f"{name}-{index:03d}", "messages": [_user(row)], "checks": row.checks}
        for index, row in enumerate(rows)
    ]


def files(seed: int) -> dict[str, str]:
    """The files of the starter data by name."""
    train, held_out = make_rows(seed)
    asked = make_prompts(seed, train, held_out)
    pairs = [{"messages": [_user(row), {"role": "assistant", "content": row.answer}]} for row in train]
    return {
        "train.jsonl": _jsonl(pairs),
        "prompts.jsonl": _jsonl(_prompts("asked", asked)),
        "heldout.jsonl": _jsonl(_prompts("starter", held_out)),
        "README.md": card(seed, train, held_out),
    }


def card(seed: int, train: Sequence[Row], held_out: Sequence[Row]) -> str:
    """The data card; every figure in it is counted from the rows."""
    kinds = Counter(str(check["kind"]) for row in held_out for check in row.checks)
    closest = max(closeness(bag(h.prompt), bag(t.prompt)) for h in held_out for t in train)
    stories = [row for row in train if row.task == "story"]
    lengths = sorted(count_words(row.answer) for row in stories)
    wordings = sum(len(asked) for _, asked in TASKS)
    table = "\n".join(
        f"| {task} | {sum(r.task == task for r in train)} | {sum(r.task == task for r in held_out)} |"
        for task in ("story", "title", "hero", "continue")
    )
    worlds = (
        f"{len(bank.HEROES)} heroes, {len(bank.PLACES)} places, {len(bank.THINGS)} things, {len(PLOTS)} plots"
    )
    return f"""# Starter data

Requests for short children's stories with wishes that a program can check, for the first night.

| task | training rows | held-out prompts |
| --- | --- | --- |
{table}
| all | {len(train)} | {len(held_out)} |

**Files.** `train.jsonl`: one conversation a line, `{{"messages": [user, assistant]}}`. `heldout.jsonl`: `id`,
`messages` (the user's turn only) and `checks`, for the gate; no answer is stored. `prompts.jsonl`: {PROMPT_ROWS} more
prompts of that form, none of them held out, whose answers a model writes itself, to learn from what its checks say.

**How it was made.** By a program, with seed {seed}; this writes the same bytes again:

    python -m nomoat.assets.starter --out DIR --seed {seed}

A story is planned and told by `nomoat.assets.storyteller`; the request is then written for it, from one of
{wordings} wordings, so every answer passes its checks. Word banks and wordings were written for this program (by an
AI assistant); no sentence was taken from a data set, and no model is called when the data is made.

**Checks in the held-out part.** {", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))}.

**Apart.** No held-out combination of name, words, opening and ending occurs in training or in `prompts.jsonl`, and no
held-out prompt shares {TOO_CLOSE:.0%} or more of its words with one there (in training, the closest pair shares
{closest:.0%}). Names, words, plots and wordings come from the same pools: the held-out part measures obeying new
combinations, not new worlds.

**Sizes.** {worlds}.
Training stories have {lengths[0]} to {lengths[-1]} words, half of them at most {lengths[(len(lengths) - 1) // 2]}.

**Limits.** English only, simple words, small worlds, happy endings; animals speak, and families are a mom, a
dad and grandparents. The plots repeat, with many wordings: a model trained on this alone writes stories of this
kind and no other. The checks see words, names, endings and lengths; they do not see whether a story is good.

**Licence.** Apache-2.0, like the program.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the starter data.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in files(args.seed).items():
        (args.out / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{args.out / name}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    main()
