"""Openings in the manner of children's story collections, each leading into a plot of the storyteller.

The storyteller's own openings go straight to the scene. Readers begin otherwise ("Once upon a time, there was a
little girl named Sara. She loved to play outside with her friends. One day, ..."), and a small model that has
met such a beginning only in a few thousand borrowed stories loses the thread after it. These wordings use the
storyteller's grammar and slots; what they bring in is closed before the scene begins, so no plot has to know.
"""

from __future__ import annotations

import random

from nomoat.assets import wordbank as bank
from nomoat.assets.storyteller import TIMES, Plan, Story, plan_story, tell

GIRLS = """Sara Sarah Lily Mia Lucy Sue Amy Jane Molly Anna Emma Daisy Jenny Sally Katie Maya Lisa Polly Betty
Grace Rosie Julie Susie Ellie Kitty Mary Nina Zoe Tina Nancy"""
BOYS = """Tim Tom Timmy Tommy Ben Max Jack Bob Bobby Billy Sam Joe John Mark Jim Jimmy Johnny Peter Leo Dan Luke
Andy Charlie Harry Nick Paul Danny Mike Fred Ted"""
ANIMALS = """cat: Fluffy Kitty Whiskers Tom Mittens|dog: Spot Max Buddy Rex Lucky|bird: Tweety Sunny Blue Robin Polly
bunny: Benny Hop Fluffy Snowy|bear: Teddy Bob Brownie Ben|mouse: Mimi Tiny Jerry|frog: Freddy Greeny Jumpy
duck: Daffy Quacky Lucky|fish: Goldie Bubbles Fin|squirrel: Nutty Sammy|fox: Foxy Red|pig: Pinky Piggy
turtle: Timmy Slowy|monkey: Momo Jojo|bee: Buzzy Honey|lion: Leo Simba|elephant: Ellie Jumbo|owl: Ollie Hooty"""
ON_LAND = ("fish",)  # kinds that would have to walk in most scenes

INTRODUCED = (
    "[Once upon a time,|Once upon a time] there was a {size} {kind} named {name}.",
    "[Once upon a time,|Once upon a time] there was a {size} {kind} [named|called] {name}.",
    "Once upon a time, there was a {kind} named {name}.",
    "Once upon a time, in a [small|big|little] [town|house|village], there was a {kind} named {name}.",
    "Once upon a time, there lived a {size} {kind} [named|called] {name}.",
    "Once there was a {size} {kind} [named|called] {name}.",
    "Once, there was a {size} {kind} named {name}.",
    "There was once a {kind} named {name}.",
    "One day, there was a {size} {kind} named {name}.",
    "{name} was a {size} {kind}.",
    "Once upon a time, there was a {size} {kind}. {His} name was {name}.",
    "Once there was a {kind} and {his} name was {name}.",
)
SIZES = "little little little little small young happy kind brave curious nice good smart cute silly".split()
ABOUT = (
    "{name} was [a very|a] [good|nice|kind|happy|smart|funny] {kind}.",
    "{name} was [very|always] [happy|kind|curious|nice|friendly|careful].",
    "{He} [loved|liked] to play [outside|all day|with {his} toys|with {his} friends|in the sun|games].",
    "{name} [loved|liked] to play [outside|with {his} toys|with {his} friends|with {his} mom and dad].",
    "{He} [loved|liked] to [run and jump|sing and dance|explore|help others|learn new things|laugh].",
    "Every day, {name} would [play outside|go for a walk|sing a song|look for new things|run and play].",
    "{name} [had many friends|had a big smile|had a lot of toys|had a happy family].",
    "{name} lived [in a small house|in a big house|in a little house near {place}] with {his} [mom|family|mom and dad].",
    "{name}'s mom [loved {him} very much|told {him} to be good|always told {him} to be kind].",
)
CHILD_ABOUT = (
    "{He} was three years old[ and very curious| and loved to play|].",
    "{name} had a [red|blue|big] bike and a [small|soft] bear.",
    "{name} [loved|liked] to [read books|draw pictures|play with blocks|ride {his} bike|help {his} mom].",
)
TOGETHER = (
    "One day, {name} and {his} mom went out. {name} {scene}.",
    "One day, {name} went outside to play. {He} {scene}.",
    '{time}, {name} woke up and [was very happy|felt happy]. {name} {scene}.',
    '{time}, {name} said, "Mom, can I go [out|outside|and play]?" "Yes," said {his} mom, "but be careful." So {name} went out. {He} {scene}.',
    "{time}, {his} mom said, \"Have fun today, {name}!\" {name} {scene}.",
    "{time}, {name} was very [happy|excited]. {He} {scene}.",
)
SEEN = (
    '"[What a nice day|What a pretty day|This is fun]!" [said {name}|{name} said].',
    "It was a [nice|sunny|lovely|beautiful] day.",
)
DIRECT = (
    "One day, a {size} {kind} named {name} {scene}.",
    "One day, a {kind} named {name} {scene}.",
    "{time}, {name} {scene}.",
    "One day, {name} and {his} mom were together. {name} {scene}.",
    "{name} and {pal} were [friends|best friends]. They liked to play together. But today, {pal} was [at home|at school|away]. {name} {scene}.",
    "{name} had a [dog|cat|pet] [named|called] {pet}. They were always together. {time}, {name} {scene}. {pet} came along.",
)


def hero(rng: random.Random) -> bank.Being:
    """A girl, a boy, or one animal in four; names as common as in such collections."""
    draw = rng.random()
    if draw < 0.4:
        return bank.Being(rng.choice(GIRLS.split()), "girl", "she")
    if draw < 0.75:
        return bank.Being(rng.choice(BOYS.split()), "boy", "he")
    kind, names = rng.choice(ANIMALS.replace("\n", "|").split("|")).split(": ")
    return bank.Being(rng.choice(names.split()), kind, rng.choice(("he", "she")))


def _shape(rng: random.Random, plan: Plan) -> str:
    """One opening, from the hero's first mention to the end of the scene, still in the storyteller's grammar."""
    scene = rng.choice(plan.plot.scene)
    time = TIMES[plan.plot.when]
    direct = rng.random() < 0.25
    if direct:
        shapes = [s for s in DIRECT if "kind}" not in s or not scene.startswith("and ")]
        text = rng.choice(shapes)
    else:
        text = rng.choice(INTRODUCED)
        pool = ABOUT + (CHILD_ABOUT if plan.hero.kind in bank.SPECIES_FREE else ())
        text = " ".join([text, *rng.sample(pool, rng.choice((0, 1, 1, 2, 2)))])
        lead = "{time}, {name} {scene}."
        if plan.plot.when == "day" and plan.place.outside and rng.random() < 0.5:
            lead = rng.choice(TOGETHER)
        if scene.startswith("and "):
            lead = "{time}, {name} {scene}."
        text += rng.choice((" ", " ", "\n")) + lead
    if plan.plot.when == "day" and plan.place.outside and rng.random() < 0.15:
        text += " " + rng.choice(SEEN)
    pals = [n for n in (GIRLS + " " + BOYS).split() if n not in (plan.hero.name, getattr(plan.helper, "name", ""))]
    own = {"scene": scene, "time": time, "size": rng.choice(SIZES), "pal": rng.choice(pals),
           "pet": rng.choice(("Spot", "Fluffy", "Max", "Buddy"))}  # fmt: skip
    for slot, words in own.items():
        text = text.replace(f"{{{slot}}}", words)
    return text


def told_story(rng: random.Random) -> Story:
    """A story of the storyteller behind one of these openings."""
    while True:
        plan = plan_story(rng, hero(rng))
        if plan.hero.name != getattr(plan.helper, "name", "") and plan.hero.kind not in ON_LAND:
            return tell(rng, plan, opening=_shape(rng, plan))
