"""The words a story may use: heroes, places, things, helpers and the small talk between them.

Everything here is data in a compact form (one string a line, parsed once at import), so that a reader can
see at a glance what the stories are made of and add a line without touching the code.
"""

from __future__ import annotations

from dataclasses import dataclass

SPECIES_FREE = ("girl", "boy")  # kinds that need no animal word in a title or in a list of asked words


@dataclass(frozen=True)
class Being:
    """Someone who can be the hero or a helper: a name, what they are, and their pronoun."""

    name: str
    kind: str
    pronoun: str


@dataclass(frozen=True)
class Family:
    """A grown-up helper: how the story introduces, mentions and addresses them."""

    intro: str
    ref: str
    call: str
    pronoun: str


@dataclass(frozen=True)
class Place:
    """A place with its preposition ('in the park'); `outside` decides which details fit."""

    phrase: str
    preposition: str
    outside: bool

    @property
    def noun(self) -> str:
        return self.phrase.split()[-1]


@dataclass(frozen=True)
class Thing:
    """A countable thing, the adjectives that suit it, and tags saying which plots may use it."""

    noun: str
    adjectives: tuple[str, ...]
    tags: frozenset[str]


def _beings(kind: str, pronoun: str, names: str) -> tuple[Being, ...]:
    return tuple(Being(name, kind, pronoun) for name in names.split())


_ANIMALS = """
Pip mouse he|Minnow mouse she|Hazel squirrel she|Nutty squirrel he|Ruby rabbit she|Thumper rabbit he
Otto owl he|Olive owl she|Bruno bear he|Honey bear she|Rusty fox he|Fern fox she|Dot duck she|Puddle duck he
Coco cat she|Smokey cat he|Biscuit dog he|Penny dog she|Tuck turtle he|Shelly turtle she|Flip frog he
Lola frog she|Ellie elephant she|Trunky elephant he|Hank horse he|Star pony she|Percy pig he|Rosie pig she
Wally walrus he|Finn panda he|Goldie camel she|Hop kangaroo he
Kira koala she|Bella bird she|Chip bird he|Gus goat he|Lulu lamb she
Monty monkey he|Kiki monkey she|Paddy penguin he|Polly parrot she|Leo lion he|Tara tiger she
Benny beaver he|Hettie hen she|Spike hedgehog he|Daisy deer she|Mo mole he|Zara zebra she|Gigi giraffe she
"""


def _animals() -> tuple[Being, ...]:
    entries = _ANIMALS.strip().replace("\n", "|").split("|")
    return tuple(Being(*entry.split()) for entry in entries)


HEROES: tuple[Being, ...] = (
    _beings(
        "girl", "she", "Lily Mia Anna Sue Emma Ella Zoe Nora Ivy Clara Tess Maya Lucy Amy Jane Kate Nina Ada"
    )
    + _beings(
        "boy", "he", "Tom Tim Ben Sam Max Milo Jack Theo Noah Luke Eli Oscar Hugo Arlo Fred Dan Joey Ravi"
    )
    + _animals()
)

FAMILY: tuple[Family, ...] = (
    Family("{his} mom", "{his} mom", "Mom", "she"),
    Family("{his} dad", "{his} dad", "Dad", "he"),
    Family("{his} grandma", "{his} grandma", "Grandma", "she"),
    Family("{his} grandpa", "{his} grandpa", "Grandpa", "he"),
    Family("a farmer called Joe", "Farmer Joe", "Joe", "he"),
    Family("a baker called Rosa", "Rosa", "Rosa", "she"),
    Family("a kind old man called Walter", "Walter", "Walter", "he"),
    Family("a kind old lady called Edith", "Edith", "Edith", "she"),
    Family("a gardener called Pedro", "Pedro", "Pedro", "he"),
    Family("a teacher called Miss Rose", "Miss Rose", "Miss Rose", "she"),
)

HERO_ADJECTIVES = (
    "little",
    "small",
    "kind",
    "brave",
    "happy",
    "curious",
    "shy",
    "clever",
    "cheerful",
    "gentle",
    "young",
    "playful",
    "quiet",
    "merry",
)
CHILD_HELPER_ADJECTIVES = ("kind", "friendly", "tall", "gentle", "clever", "cheerful", "helpful")
HELPER_ADJECTIVES = (*CHILD_HELPER_ADJECTIVES, "old", "wise", "big")

_PLACES = """
in the park|in the garden|in the yard|in the forest|in the meadow|on the beach|on the farm|in the field
by the river|by the lake|by the pond|on the hill|at the playground|in the market|in the orchard|in the woods
by the bridge|in the village|in the valley|by the stream|near the mill|by the sea|at the zoo|near the tower
near the castle|by the well|under the oak|near the cave|by the fence|at the fair|on the island|on the path
"""
_ROOMS = """
in the kitchen|in the bedroom|in the barn|in the attic|in the library|in the playroom|in the cabin
in the classroom|in the hall|in the workshop
"""


def _places(lines: str, outside: bool) -> tuple[Place, ...]:
    entries = lines.strip().replace("\n", "|").split("|")
    pairs = (entry.split(" ", 1) for entry in entries)
    return tuple(Place(phrase, preposition, outside) for preposition, phrase in pairs)


PLACES: tuple[Place, ...] = _places(_PLACES, True) + _places(_ROOMS, False)

# Tags: t = toy one can carry, b = can break and be mended, f = food for one to share, g = a gift,
# s = sold in a shop, l = light enough to be blown or thrown up high.
_THINGS = """
kite: red blue yellow striped = tbgsl|ball: red blue bouncy green = tgsl|doll: small pretty soft = tbgs
drum: red loud round = tbgs|boat: wooden blue tiny = tbgs|train: green wooden shiny = tbgs
car: red shiny fast = tbgs|truck: yellow big shiny = tbgs|robot: silver funny small = tbgs
puppet: funny soft green = tbgs|balloon: red purple big yellow = gsl|teddy: brown soft fluffy = tgs
puzzle: new big pretty = gs|book: new thick old blue = tgs|whistle: silver loud tiny = tgs
bell: golden tiny shiny = tgs|hat: blue warm funny pointy = tgsl|scarf: warm red long soft = tgsl
lantern: golden bright small = tbgs|basket: brown round little = tbgs|bucket: blue yellow little = tbgs
shell: pink shiny white = tg|stone: smooth shiny gray = tg|feather: white soft long blue = tgl
ring: golden shiny small = tgs|crown: golden paper shiny = tbgsl|button: round blue shiny = tg
key: old golden tiny = tg|coin: gold shiny round = tg|ribbon: pink long yellow = tgsl
flute: wooden long pretty = tbgs|guitar: brown small old = tbgs|horn: golden loud shiny = tbgs
umbrella: red yellow big = tbgs|blanket: soft warm blue = tgs|pillow: soft white fluffy = tgs
cup: blue pretty little = bgs|plate: white round pretty = bgs|vase: green tall pretty = bgs
clock: old round wooden = bgs|lamp: tall bright pretty = bgs|chair: little wooden red = bs
box: wooden blue little = bgs|wagon: red little wooden = bgs|scooter: green fast shiny = bgs
sled: wooden red fast = bgs|bracelet: pretty yellow shiny = tgs
necklace: pretty blue long = tgs|map: old big paper = tgl|flag: blue little bright = tgsl
spoon: wooden silver big = tgs|brush: blue soft little = tgs|pencil: yellow long new = tgs
crayon: purple green orange = tg|marble: green shiny tiny = tgs|top: red wooden shiny = tgs
rope: long strong thick = tgs|net: green strong little = tbgs|backpack: blue big new = tgs
mitten: red warm fluffy = tgl|sock: striped warm green = tgl|boot: yellow shiny little = tgs
cape: red long shiny = tgsl|mask: funny green paper = tbgsl|wand: silver long shiny = tbgs
telescope: long golden old = bgs|magnet: strong red little = tgs|compass: old golden tiny = tbgs
apple: red shiny big = fs|pear: green sweet big = fs|peach: soft sweet big = fs|banana: yellow big sweet = fs
carrot: orange crunchy long = fs|cookie: round sweet big = fsg|cupcake: pink sweet pretty = fsg
muffin: warm sweet big = fsg|pie: warm sweet round = fsg|bun: warm soft round = fs
sandwich: big tasty fresh = f|pancake: warm round golden = f|melon: green round sweet = fs
cake: big sweet yellow = fsg|pretzel: warm salty big = fs
"""


def _things() -> tuple[Thing, ...]:
    things = []
    for entry in _THINGS.strip().replace("\n", "|").split("|"):
        noun, rest = entry.split(":")
        adjectives, tags = rest.split("=")
        things.append(Thing(noun.strip(), tuple(adjectives.split()), frozenset(tags.strip())))
    return tuple(things)


THINGS: tuple[Thing, ...] = _things()

TRAITS = (
    "{He} had [a soft voice|bright eyes|a big smile|a warm heart|many good ideas].",
    "{He} liked [to sing|to count the stars|to look at clouds|to draw|to help others|to ask questions].",
    "{He} loved [to play outside|to run and jump|to hear stories|to learn new things|to make new friends].",
    (
        "Every day, {he} [hummed a happy song|said hello to everyone|looked for something new|told a "
        "funny joke]."
    ),
    "{name} lived in a [cozy|little|warm|tidy] [house|home] with {his} family.",
    "{name} was [always|almost always] [in a good mood|busy|full of ideas|ready for a new game].",
    "Everyone [liked|knew] {name} because {he} was so [kind|funny|friendly|cheerful].",
)

DETAILS_OUTSIDE = (
    "The sun was [warm|bright|shining] and the birds [sang|were singing].",
    "A [soft|gentle|cool] wind [blew|moved the leaves|tickled the grass].",
    "The sky was [blue|clear] and [the grass was soft|the air smelled sweet|a bee buzzed by].",
    "There were [little yellow flowers|busy ants|tall trees|butterflies] all around.",
    "The air smelled of [flowers|grass|fresh leaves|pine].",
    "[White clouds|Two clouds|Fluffy clouds] floated [high above|in the sky].",
)
DETAILS_INSIDE = (
    "It was [warm|quiet|cozy] inside.",
    "The room smelled of [fresh bread|apples|clean wood|soap].",
    "A clock went tick, tock on the wall.",
    "A bit of sun came in through the window.",
    "[A fly buzzed|The floor creaked] and then all was quiet.",
)

MOODS = {
    "sad": (
        "{name} felt [very |so |]sad.",
        "{He} [sat down and cried|began to cry|felt like crying].",
        "A [big|little] tear ran down {his} face.",
        "{name}'s smile went away.",
        '"[Oh no|Oh dear|Oh my]!" [cried|said] {name}.',
        "{He} hung {his} head[ and sighed|].",
        "This made {name} [very |so |]sad.",
        "{name} did not know what to do.",
    ),
    "scared": (
        "{name} felt [very |so |]scared.",
        "{His} heart went thump, thump.",
        "{He} [shook|began to shake] a little.",
        '"I am [scared|afraid]," [whispered|said] {name}.',
        "{name} wanted to [hide|run away].",
        "{His} tummy felt funny.",
        "{name} held {his} breath.",
        "{He} did not feel brave at all.",
    ),
    "worried": (
        "{name} [was|felt] [very |so |]worried.",
        '"What [can|should] I do?" [asked|said] {name}.',
        "{He} [thought and thought|thought hard].",
        "{name} did not know what to do.",
        '"[Oh no|Oh dear|Uh-oh]!" [cried|said] {name}.',
        "{His} tummy felt tight.",
        "{name} looked [left and right|all around] and sighed.",
    ),
    "cross": (
        "{name} [was|felt] [very |so |]cross.",
        "{He} stamped on the ground.",
        "{His} face turned red.",
        '"[That is not fair|It is not fair]!" [said|cried] {name}.',
        "{name} [frowned|made an angry face].",
        "{name} did not want to [smile|talk] at all.",
    ),
}

HELP_ARRIVES = (
    "[Just then|Soon|After a while], {helper_in} [came by|came along|walked by].",
    "{Helper_in} [saw {him}|heard {him}] and [came over|came to help].",
    "[Just then|At that moment|Then], {he} met {helper_in}.",
    "Luckily, {helper_in} was [near|close by].",
)
HELP_ASKS = (
    '"What is wrong, {name}?" [asked {helper}|{helper} asked].',
    '"[Can I help you|Do you need help|Are you okay]?" [asked {helper}|{helper} asked].',
    '"Why do you look so [sad|worried|glum], {name}?" {helper} asked[ softly| kindly|].',
    "{Helper} asked {him} what was wrong.",
)
HELP_TELLS = (
    "{name} told {helper} [everything|all about it|what was wrong].",
    "{name} [explained|told {hhim}] [what had happened|the problem].",
    "So {name} told {helper} the whole story.",
)
HELP_OFFERS = (
    (
        '"[Do not worry|Don\'t worry|Never mind]," said {helper}. "[We will|We can|Let us] [fix this|find '
        'a way] together."'
    ),
    '"I [have|think I have] an idea," said {helper}.',
    '{Helper} [smiled|nodded] and said, "[I can|I will] help you."',
    "{Helper} [thought for a moment|thought hard] and then [smiled|had an idea].",
)
THANKS = (
    '"Thank you, {call}!" said {name}.',
    '"Thank you so much, {call}," {name} said[ with a smile|].',
    "{name} [thanked {helper}|gave {helper} a big hug|hugged {helper} and said thank you].",
    '"You are [so kind|a good helper|the best], {call}!" [said|cried] {name}.',
    '"Thank you, {call}!" said {name}. "[You are welcome|Any time], {name}," said {helper}.',
)
JOYS = (
    "{name} [jumped|danced|clapped] [with joy|happily].",
    "{name} [smiled|grinned] [a big smile|from ear to ear|brightly].",
    "{name} was [very |so |]happy.",
    "They both [laughed|smiled|cheered].",
    '"[Hooray|Hurray|Yay]!" [cried|said] {name}.',
    "{name} felt [warm inside|proud|much better].",
)

ENDINGS = (
    "The end.",
    "And they all went home happy.",
    "And they lived happily ever after.",
    "It was a very good day.",
    "What a lovely day it was!",
    "From that day on, they were best friends.",
    "{name} smiled all the way home.",
    "{name} never forgot that day.",
    "They laughed and laughed.",
    "{name} told everyone at home about it.",
    "And then they all had [cookies|soup|warm milk|cake].",
    "That [night|evening], {name} slept very well.",
    "{name} was the happiest {kind} of all.",
    "They played together until the sun went down.",
    "And {name} was never so [sad|alone] again.",
    "{name} and {helper} waved goodbye to each other.",
    "Everyone was happy again.",
    "{name} went home with a big smile.",
    "It was the best day ever.",
    "Then they sang a happy song together.",
    "At last, all was well.",
    "That was {name}'s happy day.",
)
NIGHT_ENDINGS = (
    "The end.",
    "Soon {name} was fast asleep.",
    "{name} had sweet dreams all night.",
    "Good night, {name}!",
    "And {name} slept until the morning.",
    "The moon smiled down on them all.",
    "All was quiet and well.",
    "{name} closed {his} eyes and smiled.",
    "Then the whole house was asleep.",
    "It was a very good night.",
)
# Endings without a name: an owner can ask for these word for word.
FIXED_ENDINGS = (
    "The end.",
    "And they all went home happy.",
    "And they lived happily ever after.",
    "It was a very good day.",
    "What a lovely day it was!",
    "Everyone was happy again.",
    "It was the best day ever.",
    "At last, all was well.",
)
