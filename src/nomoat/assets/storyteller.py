"""A seeded teller of short children's stories: plan first, then words.

`plan_story` decides hero, place, thing, problem, helper and cure; `tell` writes the plan down, choosing among
many wordings for each beat. Both are pure functions of the `random.Random` they are given, so one seed makes
one corpus, on every machine. The grammar is small on purpose: `[a|b]` is a choice, `{slot}` is looked up in
the plan, and agreement (he/she, a/an) lives in the slots, so that no wording can get it wrong.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nomoat.assets import plots, plots_courage, plots_friends
from nomoat.assets import wordbank as bank
from nomoat.assets.plots import Plot

TIMES = {  # the time of day follows the plot's `when`
    "day": "[One day|One morning|One sunny day|One sunny morning|One fine day|One bright afternoon|One warm day]",
    "any": "[One day|One morning|One afternoon|One Sunday]",
    "night": "[One night|One evening|One dark night|Late one night]",
}
PRONOUNS = {"he": ("he", "him", "his"), "she": ("she", "her", "her")}
MIN_WORDS, MAX_WORDS = 70, 180
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
Helper = bank.Being | bank.Family
PLOTS: tuple[Plot, ...] = (
    plots.LOST,
    plots.HIGH,
    plots.BROKEN,
    plots_friends.SAD_FRIEND,
    plots.RAIN,
    plots_friends.HUNGRY,
    plots_friends.STUCK,
    plots.MESS,
    plots_friends.QUARREL,
    plots.EARN,
    plots_friends.RETURN,
    plots_courage.GROW,
    plots_courage.LEARN,
    plots_courage.LOST_WAY,
    plots.PRESENT,
    plots_friends.RACE,
    plots_courage.NIGHT,
    plots_courage.BRAVE,
)  # the order is part of the seed's meaning: append only


@dataclass(frozen=True)
class Plan:
    """Everything a story is about, before any sentence exists."""

    plot: Plot
    hero: bank.Being
    helper: Helper
    helper_adjective: str
    hero_adjective: str
    place: bank.Place
    thing: bank.Thing
    adjective: str
    tie: Mapping[str, str]


@dataclass(frozen=True)
class Story:
    """A told story and the facts about it that prompts and headers may quote."""

    text: str
    name: str
    species_or_kind: str
    words: tuple[str, ...]  # content words that occur in the text as whole words
    ending: str  # the last sentence, exactly
    title: str
    plot: str


def article(phrase: str) -> str:
    """Put 'a' or 'an' before a phrase; the banks hold no silent h and no 'u' that sounds like 'you'."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def plan_story(rng: random.Random, hero: bank.Being | None = None, plot: Plot | None = None) -> Plan:
    """Choose what happens; every choice respects what the plot allows (outside, breakable, asleep...)."""
    plot = plot or rng.choice(PLOTS)
    hero = hero or rng.choice(bank.HEROES)
    tie = rng.choice(plot.ties)
    side = tie.get("side", plot.side)
    place = rng.choice([p for p in bank.PLACES if side == "any" or p.outside == (side == "out")])
    room = "bedroom" if plot.kind == "night" else tie.get("room")
    place = next((p for p in bank.PLACES if p.noun == room), place)
    thing = rng.choice([t for t in bank.THINGS if not plot.thing_tag or plot.thing_tag in t.tags])
    helper, helper_adjective = _choose_helper(rng, plot, hero)
    return Plan(
        plot=plot,
        hero=hero,
        helper=helper,
        helper_adjective=helper_adjective,
        hero_adjective=rng.choice(bank.HERO_ADJECTIVES),
        place=place,
        thing=thing,
        adjective=rng.choice(thing.adjectives),
        tie=tie,
    )


def _choose_helper(rng: random.Random, plot: Plot, hero: bank.Being) -> tuple[Helper, str]:
    if plot.helper == "family" or (plot.helper == "any" and rng.random() < 0.35):
        known = bank.FAMILY[:4] if plot.kind in ("night", "mess", "present") else bank.FAMILY
        return rng.choice(known), ""
    friend = rng.choice([b for b in bank.HEROES if b.name != hero.name and b.kind != hero.kind])
    if friend.kind in bank.SPECIES_FREE:
        return friend, rng.choice(bank.CHILD_HELPER_ADJECTIVES)
    return friend, rng.choice(bank.HELPER_ADJECTIVES)


def slots(plan: Plan) -> dict[str, str]:
    """The table of slots of a plan: plain, and capitalised where the name of the slot is capitalised."""
    he, him, his = PRONOUNS[plan.hero.pronoun]
    hhe, hhim, hhis = PRONOUNS[plan.helper.pronoun]
    if isinstance(plan.helper, bank.Family):
        intro, ref, call = plan.helper.intro.replace("{his}", his), plan.helper.ref, plan.helper.call
        ref = ref.replace("{his}", his)
    else:
        intro = f"{article(f'{plan.helper_adjective} {plan.helper.kind}')} named {plan.helper.name}"
        ref = call = plan.helper.name
    table = {
        "name": plan.hero.name, "kind": plan.hero.kind, "he": he, "him": him, "his": his,
        "helper": ref, "helper_in": intro, "call": call, "hhe": hhe, "hhim": hhim, "hhis": hhis,
        "place": plan.place.phrase, "in_place": f"{plan.place.preposition} {plan.place.phrase}",
        "thing": plan.thing.noun, "a_noun": article(plan.thing.noun), "adj": plan.adjective,
        "a_thing": article(f"{plan.adjective} {plan.thing.noun}"),
        "a_hero": article(f"{plan.hero_adjective} {plan.hero.kind}"), **plan.tie,
    }  # fmt: skip
    capitals = {"He": he, "His": his, "HHis": hhis, "Hhe": hhe, "Helper": ref, "Helper_in": intro}
    if "what" in plan.tie:
        capitals["What"] = plan.tie["what"]
    return table | {slot: text[0].upper() + text[1:] for slot, text in capitals.items()}


def expand(rng: random.Random, wording: str, table: Mapping[str, str]) -> str:
    """Resolve choices, then slots (slots may hold slots), then tidy the spaces an empty choice leaves."""
    while match := _CHOICE.search(wording):
        wording = wording[: match.start()] + rng.choice(match[1].split("|")) + wording[match.end() :]
    while _SLOT.search(wording):
        wording = _SLOT.sub(lambda m: table[m[1]], wording)
    return re.sub(r"\s+([.,!?])", r"\1", re.sub(r" {2,}", " ", wording)).strip()


def _opening(rng: random.Random, plan: Plan) -> str:
    """The hero and the scene, in one of several classic shapes; the time of day follows the plot."""
    plot = plan.plot
    times = TIMES[plot.when]
    scene = rng.choice(plot.scene)
    trait = rng.choice(bank.TRAITS) if rng.random() < 0.6 else ""
    then = f"{times}, {{name}} {scene}."
    home = "[near a hill|in a small town|by the sea|in a little house]"
    shapes = [
        f"[Once upon a time,|Long ago,|Once,] there was {{a_hero}} named {{name}}. {trait} {then}",
        f"[Once upon a time|Once], {{a_hero}} named {{name}} lived {home}."
        f" {trait.replace('lived in', 'slept in')} {then}",
        f"{{name}} was {{a_hero}}. {trait} {then}",
        f"[There once was|There was once|Once there was] {{a_hero}} [named|called] {{name}}. {trait} {then}",
    ]
    if not scene.startswith("and "):
        shapes += [f"{times}, {{a_hero}} named {{name}} {scene}."] * 2
    return rng.choice(shapes)


def _help_beats(rng: random.Random, plan: Plan, solve: str) -> list[str]:
    """How the helper learns of the problem; a friend is part of the scene, family may be called for.

    The helper says nothing more just before a cure that begins with the helper's own words.
    """
    if plan.plot.helper == "friend" or plan.plot.kind in ("mess", "present", "night"):
        return []
    if plan.plot.kind == "earn":
        return [rng.choice(("{name} told {helper_in} about it.", "{He} went to see {helper_in}."))]
    beats = [rng.choice(bank.HELP_ARRIVES)]
    if rng.random() < 0.7:
        beats += [rng.choice(bank.HELP_ASKS), rng.choice(bank.HELP_TELLS)]
    if rng.random() < 0.6 and not solve.startswith(('"', "{Helper} said")):
        beats.append(rng.choice(bank.HELP_OFFERS))
    return beats


def _named(plot: Plot, wording: str) -> str:
    """With a friend in the scene 'she' could be either of them: say the hero's name instead."""
    if plot.helper != "friend":
        return wording
    return wording.replace("{He}", "{name}").replace("{His}", "{name}'s")


def _endings(plan: Plan) -> list[str]:
    """Endings that suit the hour and the helper: nobody waves goodbye to a parent, or befriends one."""
    endings = bank.NIGHT_ENDINGS if plan.plot.when == "night" else bank.ENDINGS
    family = plan.helper in bank.FAMILY[:4]
    return [e for e in endings if not (family and ("{helper}" in e or "best friends" in e))]


def _paragraphs(rng: random.Random, plan: Plan, ending: str | None, opening: str | None) -> list[list[str]]:
    plot = plan.plot
    first = [opening or _opening(rng, plan)]
    if plot.when == "day" and rng.random() < 0.5:
        first.append(rng.choice(bank.DETAILS_OUTSIDE if plan.place.outside else bank.DETAILS_INSIDE))
    trouble = [rng.choice(plot.problem)]
    if rng.random() < 0.75:
        trouble.append(_named(plot, rng.choice(bank.MOODS[plot.mood])))
    if plot.attempt and rng.random() < 0.6:
        trouble.append(rng.choice(plot.attempt))
    solve = rng.choice(plot.solve)
    cure = [*_help_beats(rng, plan, solve), solve]
    last = [rng.choice(bank.JOYS)] if rng.random() < 0.6 else []
    if plot.thanks and rng.random() < 0.8:
        spoken = bool(last) and last[0].startswith('"')  # then thanks are told, not said
        last.append(rng.choice([t for t in bank.THANKS if not (spoken and t.startswith('"'))]))
    if rng.random() < 0.75:
        last.append(rng.choice(plot.lessons))
    last.append(ending or rng.choice(_endings(plan)))
    return [first, trouble, cure, last]


def _join(rng: random.Random, paragraphs: Sequence[str]) -> str:
    """Lay the four beats out as one to four paragraphs."""
    breaks = rng.choice(("\n\n\n", "   ", " \n ", "\n  ", "  \n", "\n \n"))
    text = paragraphs[0]
    for mark, paragraph in zip(breaks, paragraphs[1:], strict=True):
        text += mark + paragraph
    return text


def _words(plan: Plan, text: str) -> tuple[str, ...]:
    """The plan's own content words that did make it into the text, in the order of the text."""
    wanted = {plan.thing.noun, plan.adjective, plan.place.noun, plan.hero_adjective, plan.tie.get("key", "")}
    wanted |= {being.kind for being in (plan.hero, plan.helper) if isinstance(being, bank.Being)}
    if plan.thing.noun not in text:
        wanted.discard(plan.adjective)  # it would be somebody else's adjective
    wanted -= {"", "back", plan.hero.name.lower(), *bank.SPECIES_FREE}
    found = re.findall(r"\b[a-z]+\b", text)
    return tuple(sorted(wanted & set(found), key=found.index))


def title_case(title: str) -> str:
    """Capital letters for all but the small words inside."""
    small = {"a", "an", "the", "in", "of", "to", "for", "and", "is", "with", "his", "her"}
    parts = title.split(" ")
    return " ".join(p if i and p in small else p[:1].upper() + p[1:] for i, p in enumerate(parts))


def tell(rng: random.Random, plan: Plan, ending: str | None = None, opening: str | None = None) -> Story:
    """Write a plan down in 70 to 180 words; `ending` fixes the last sentence, `opening` words the first ones."""
    table = slots(plan)
    while True:
        beats = _paragraphs(rng, plan, ending, opening)
        told = [[expand(rng, wording, table) for wording in paragraph] for paragraph in beats]
        text = _join(rng, [" ".join(sentence for sentence in paragraph if sentence) for paragraph in told])
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            break
    title = title_case(expand(rng, rng.choice(plan.plot.titles), table))
    return Story(
        text=text,
        name=plan.hero.name,
        species_or_kind=plan.hero.kind,
        words=_words(plan, text),
        ending=told[-1][-1],
        title=title,
        plot=plan.plot.kind,
    )


def make_story(rng: random.Random, hero: bank.Being | None = None, ending: str | None = None) -> Story:
    """Plan and tell one story."""
    return tell(rng, plan_story(rng, hero), ending)
