"""The plots: what can go wrong in a small story, how it is put right, and what is learned.

A beat is a tuple of wordings; a wording may hold alternatives `[a|b|]` and slots `{name}`. Every plot is
causally closed: what is lost is found, who helps is thanked, and the solution names its own cause.
Scenes are verb phrases, because they follow either 'One day, Lily ...' or 'One day, a girl named Lily ...'.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plot:
    """One kind of problem. `ties` are rows of slots that belong together (a cause with its cure)."""

    kind: str
    titles: tuple[str, ...]
    scene: tuple[str, ...]
    problem: tuple[str, ...]
    solve: tuple[str, ...]
    lessons: tuple[str, ...]
    mood: str = "sad"
    attempt: tuple[str, ...] = ()
    thing_tag: str = ""
    when: str = "day"  # day, any (no sun is mentioned) or night
    side: str = "any"  # out, in or any: where it may happen
    helper: str = "any"  # any = arrives to help; friend = is part of the scene already
    thanks: bool = True
    ties: tuple[dict[str, str], ...] = field(default=({},))


LOST = Plot(
    kind="lost",
    thing_tag="t",
    mood="sad",
    titles=("The Lost {thing}", "{name} and the {adj} {thing}", "Where Is the {thing}?"),
    scene=(
        "was playing {in_place} with {his} {adj} {thing}",
        "took {his} {adj} {thing} to {place}",
        "went to {place} with {his} {adj} {thing}",
        "was {in_place} and had {his} {adj} {thing} along",
    ),
    problem=(
        "But when it was time to go, the {thing} was gone!",
        "Then {name} looked down. The {thing} was not there!",
        (
            "{He} put the {thing} down to [chase a butterfly|look at a bug|tie a knot]. When {he} came "
            "back, it was gone."
        ),
        "After a while, {he} could not find the {thing} anywhere.",
    ),
    attempt=(
        "{He} looked [high and low|here and there], but {he} could not find it.",
        "{He} looked behind a [box|bush|wall] and under a [log|bench|mat]. No {thing}!",
        '{He} called, "Where are you, {thing}?" But a {thing} cannot answer.',
    ),
    solve=(
        '{Helper} said, "Let us [go back|think] step by step." They looked {spot}. There was the {thing}!',
        "They looked together. {Helper} saw something {adj} {spot}. It was the {thing}!",
        (
            '"Where did you play [first|last]?" asked {helper}. {name} pointed, and they looked {spot}. '
            "They found the {adj} {thing}!"
        ),
        '{Helper} looked {spot} and laughed. "Is this your {thing}?" It was!',
    ),
    lessons=(
        "{name} learned to [take good care of {his} things|put {his} things away].",
        "After that, {name} always [held the {thing} tight|knew where the {thing} was].",
        "{name} learned that two can look better than one.",
    ),
    ties=(
        {"spot": "under a pile of leaves", "key": "leaves", "side": "out"},
        {"spot": "behind a big rock", "key": "rock", "side": "out"},
        {"spot": "in the tall grass", "key": "grass", "side": "out"},
        {"spot": "inside a hollow log", "key": "log", "side": "out"},
        {"spot": "under a wooden bench", "key": "bench", "side": "out"},
        {"spot": "under the rug", "key": "rug", "side": "in"},
        {"spot": "behind the door", "key": "door", "side": "in"},
        {"spot": "under a table", "key": "table", "side": "in"},
        {"spot": "behind a big bag", "key": "bag", "side": "in"},
    ),
)

HIGH = Plot(
    kind="reach",
    thing_tag="l",
    mood="worried",
    side="out",
    titles=("The {thing} in the Tree", "{name} and the Tall Tree", "Up, Up, Up!"),
    scene=(
        "was playing {in_place} with {a_thing}",
        "ran around {in_place} with {a_thing}",
        "brought {a_thing} to {place}",
    ),
    problem=(
        "A strong wind came, and the {thing} flew up into a tall tree.",
        "Whoosh! The wind took the {thing} and it got stuck in a tree.",
        "{He} threw the {thing} up too high, and it landed in the top of a tree.",
    ),
    attempt=(
        "{name} [jumped and jumped|stretched and stretched], but the tree was too tall.",
        "{He} shook the tree, but the {thing} did not fall.",
        "{He} tried to climb, but {he} slipped back down.",
    ),
    solve=(
        "{Helper} {got}. {How} the {thing} came down.",
        "So {helper} {got}. {How} {name} had the {adj} {thing} back.",
        '"Watch this," said {helper}, and {hhe} {got}. {How} the {thing} was safe again.',
    ),
    lessons=(
        "{name} learned that it is good to ask for help.",
        "Now {name} knew that friends can reach high things together.",
        "{name} learned not to give up.",
    ),
    ties=(
        {"got": "brought a long ladder and climbed up", "How": "Step by step,", "key": "ladder"},
        {"got": "got a long stick and gave the branch a push", "How": "With a bump,", "key": "stick"},
        {"got": "pulled the branch down with a rope", "How": "Little by little,", "key": "rope"},
        {"got": "let {name} stand on {hhis} back", "How": "With one more stretch,", "key": "back"},
        {"got": "put three boxes on top of each other", "How": "With a hop and a reach,", "key": "boxes"},
    ),
)

BROKEN = Plot(
    kind="broken",
    thing_tag="b",
    mood="sad",
    titles=("The Broken {thing}", "{name} Fixes the {thing}", "The {adj} {thing}"),
    scene=(
        "was {in_place} with {his} {adj} {thing}",
        "carried {a_thing} to {place}",
        "had {a_thing} and showed it to everyone {in_place}",
    ),
    problem=(
        "{He} [ran too fast|was in a hurry|did not look], and the {thing} fell down. Crack! It was broken.",
        "Then {name} tripped, and the {thing} fell and broke.",
        "[Bump|Crash|Bang]! The {thing} fell, and a piece came off.",
    ),
    attempt=(
        "{name} tried to [push|put] the piece back, but it did not stay.",
        "{He} tried to fix it alone, but it was too hard.",
    ),
    solve=(
        "{Helper} had {tool}. They [worked slowly|sat down] and {did} until the {thing} was whole again.",
        "They got {tool} and {did}. [Soon|After a while], the {thing} was as good as new.",
        '"We can use {tool}," said {helper}. Together they {did}, and the {thing} was fixed.',
    ),
    lessons=(
        "{name} learned to [be careful|slow down].",
        "{name} learned that broken things can be mended.",
        "From then on, {name} held the {thing} with care.",
    ),
    ties=(
        {"tool": "some glue", "did": "glued the pieces together", "key": "glue"},
        {"tool": "some strong string", "did": "tied the pieces together", "key": "string"},
        {"tool": "a roll of tape", "did": "taped the pieces together", "key": "tape"},
        {"tool": "a tiny hammer and a nail", "did": "put the piece back", "key": "hammer"},
    ),
)

RAIN = Plot(
    kind="rain",
    thing_tag="t",
    mood="sad",
    when="any",
    side="out",
    thanks=True,
    titles=("The Rainy Day", "{name} and the Rain", "Drip, Drop, Drip"),
    scene=(
        "wanted to go to {place} with {his} {adj} {thing}",
        "wanted to take {his} {adj} {thing} to {place}",
        "got the {adj} {thing} ready for a trip to {place}",
    ),
    problem=(
        "But then dark clouds came, and it began to rain.",
        "But when {he} opened the door, it was raining hard. Drip, drop, drip!",
        "But the rain came down and did not stop. There were puddles everywhere.",
    ),
    attempt=(
        "{name} waited and waited by the window, but the rain did not stop.",
        '"Rain, rain, please go away," said {name}. But it rained even more.',
    ),
    solve=(
        '"We can have fun inside," said {helper}. They {game}. Even the {thing} was part of the game.',
        '{Helper} said, "Let us play in here." So they {game}, and {name} forgot about the rain.',
        "Then {helper} had an idea. They {game}. It was more fun than {place}!",
    ),
    lessons=(
        "{name} learned that a rainy day can be fun too.",
        "After that, {name} liked the sound of the rain.",
        "When the rain stopped, they saw a rainbow in the sky.",
    ),
    ties=(
        {"game": "made a tent from a blanket", "key": "tent"},
        {"game": "folded little paper boats", "key": "boats"},
        {"game": "baked a sweet cake", "key": "cake"},
        {"game": "put on a puppet show", "key": "show"},
        {"game": "built a tower out of blocks", "key": "tower"},
        {"game": "danced to a silly song", "key": "song"},
        {"game": "painted a big picture", "key": "picture"},
    ),
)

MESS = Plot(
    kind="mess",
    mood="worried",
    when="any",
    side="in",
    helper="family",
    titles=("The Big Mess", "{name} Tells the Truth", "Oops!"),
    scene=("was {in_place} and {was}", "{was} {in_place}", "{was} all alone {in_place}"),
    problem=(
        "Splash! {What} went all over the floor.",
        "Then {he} bumped the table, and {what} spilled everywhere.",
        "Oops! {What} fell down and made a big mess.",
    ),
    attempt=(
        "{name} wanted to [hide|run away] before anyone saw it.",
        "{He} put a rug over it, but the mess still showed.",
    ),
    solve=(
        (
            'When {helper} came in, {name} said, "I did it. I am sorry." {Helper} was not angry. They got '
            "{tool} and cleaned up together."
        ),
        (
            '{name} went to {helper} and told {hhim} the truth. "I am glad you told me," {hhe} said. '
            "{Hhe} gave {name} {tool}, and {he} cleaned it all up."
        ),
        (
            '"I am sorry, {call}," said {name}. "It was me." {Helper} smiled. "Thank you for being '
            'honest." With {tool}, they made the floor shine.'
        ),
    ),
    lessons=(
        "{name} learned that it is best to tell the truth.",
        "{name} felt much better after telling the truth.",
        "From then on, {name} cleaned up {his} own messes.",
    ),
    ties=(
        {"was": "painted a picture", "what": "the blue paint", "tool": "a wet sponge", "key": "paint"},
        {"was": "made a cake", "what": "the flour", "tool": "a broom", "key": "flour", "room": "kitchen"},
        {
            "was": "poured a glass of milk",
            "what": "the milk",
            "tool": "a soft cloth",
            "key": "milk",
            "room": "kitchen",
        },
        {"was": "planted a flower in a pot", "what": "the dirt", "tool": "a little broom", "key": "dirt"},
        {
            "was": "carried a bowl of soup",
            "what": "the soup",
            "tool": "an old towel",
            "key": "soup",
            "room": "kitchen",
        },
        {
            "was": "filled a jar with honey",
            "what": "the sticky honey",
            "tool": "a bucket of warm water",
            "key": "honey",
            "room": "kitchen",
        },
    ),
)

EARN = Plot(
    kind="earn",
    thing_tag="t",
    mood="sad",
    helper="family",
    side="out",
    titles=("{name} Works for a {thing}", "The {thing} in the Shop", "A Coin a Day"),
    scene=(
        "saw {a_thing} in a shop window",
        "walked past a shop and saw {a_thing}",
        "looked into the shop near {place} and saw {a_thing}",
    ),
    problem=(
        "{He} wanted it so much, but {he} had no money.",
        '"I wish I had that {thing}," said {name}. But {he} had only one coin.',
        "But the {thing} cost five coins, and {name} had none.",
    ),
    solve=(
        (
            '{Helper} said, "You can help me, and I will pay you." So {name} {work} every day. At the end '
            "of the week, {he} had enough and bought the {thing}."
        ),
        (
            "So {name} asked {helper} for a job. {He} {work}, and {helper} gave {him} five coins. {name} "
            "ran to the shop and bought the {adj} {thing}."
        ),
        (
            "{name} {work} for {helper}. It was hard, but {he} did not stop. Then {helper} gave {him} "
            "some coins, and {name} bought the {thing}."
        ),
    ),
    lessons=(
        "{name} was proud because {he} had worked for it.",
        "{name} learned that hard work pays.",
        "The {thing} felt even better because {name} had earned it.",
    ),
    ties=(
        {"work": "swept the floor", "key": "floor"},
        {"work": "washed the windows", "key": "windows"},
        {"work": "picked up the leaves", "key": "leaves"},
        {"work": "watered the plants", "key": "plants"},
        {"work": "carried the wood", "key": "wood"},
        {"work": "fed the chickens", "key": "chickens"},
    ),
)

PRESENT = Plot(
    kind="present",
    thing_tag="t",
    mood="worried",
    helper="family",
    thanks=False,
    when="any",
    titles=("A Present for {call}", "{name} Has a Secret", "The Best Present"),
    scene=(
        "wanted to give {helper_in} a present",
        "heard that {helper_in} had a birthday",
        "wanted to make {helper_in} happy",
    ),
    problem=(
        "But {he} did not know what to give.",
        "But {name} had nothing in {his} pocket but a [button|crumb|nut].",
        '"What would {call} like?" {he} asked.',
    ),
    attempt=("{He} picked a flower, but it was too small.", "{He} tried to draw a card, but the paper tore."),
    solve=(
        (
            "Then {name} saw {a_thing}. {He} put it in a box with a ribbon. When {helper} opened it, "
            '{hhe} cried, "What {a_thing}! I love it!"'
        ),
        (
            "{name} had {a_thing} at home. {He} cleaned it until it was like new and gave it to {helper}. "
            '"It is the best present of all," {hhe} said.'
        ),
        (
            "So {name} picked berries all day and sold them to buy {a_thing}. {He} hid it behind {his} "
            'back. "Surprise!" {he} shouted. {Helper} was very happy.'
        ),
    ),
    lessons=(
        "{name} learned that a gift from the heart is the best gift.",
        '"Thank you, dear {name}," said {helper}.',
        "It made {name} happy to see {helper} smile.",
    ),
)
