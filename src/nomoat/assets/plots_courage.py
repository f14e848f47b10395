"""Plots of patience and courage; see `plots` for how a plot is written."""

from __future__ import annotations

from nomoat.assets.plots import Plot

GROW = Plot(
    kind="grow",
    mood="worried",
    side="out",
    helper="family",
    thanks=True,
    titles=("{name} and the Tiny Seed", "The Big {plant}", "Wait and See"),
    scene=(
        "planted a tiny seed {in_place}",
        "found a seed and put it in the ground {in_place}",
        "dug a little hole {in_place} and put a seed in it",
    ),
    problem=(
        "{He} looked at it every day, but nothing came up.",
        "{He} wanted it to grow fast. But there was only brown dirt.",
        "One day passed, and then two, but there was nothing to see.",
    ),
    attempt=("{name} sang to the seed, but it did not help.", "{He} wanted to dig it up and look at it."),
    solve=(
        (
            '"A seed needs {need} and time," said {helper}. So {name} gave it {need} and waited. One '
            "morning, there was a green leaf! It grew into a big {plant}."
        ),
        (
            "{Helper} showed {name} how to give the seed {need}. {name} waited and waited. At last, a "
            "{plant} grew there, bright and tall."
        ),
        (
            '"Be patient," said {helper}, "and give it {need}." {name} did so every day. Then a tiny '
            "plant came up, and it became a lovely {plant}."
        ),
    ),
    lessons=(
        "{name} learned to be patient.",
        "{name} learned that good things take time.",
        "{name} showed the {plant} to everyone.",
    ),
    ties=tuple(
        {"plant": plant, "need": need, "key": plant}
        for plant, need in (
            ("sunflower", "water and sun"),
            ("pumpkin", "water"),
            ("rose", "fresh water"),
            ("tomato", "water and light"),
            ("tulip", "a little water"),
            ("beanstalk", "water"),
            ("tree", "rain and sun"),
        )
    ),
)

LEARN = Plot(
    kind="learn",
    mood="sad",
    side="out",
    helper="any",
    titles=("{name} Learns to {skill}", "Try Again, {name}", "One More Time"),
    scene=(
        "wanted to learn to {skill}",
        "saw the others {skill} and wanted to do it too",
        "went out to learn to {skill}",
    ),
    problem=(
        "But it was hard. {Fail}.",
        "{He} tried once, but {fail}.",
        "{He} tried and tried. But every time, {fail}.",
    ),
    attempt=('"I will never do it," said {name}.', "Some others laughed, and {name} wanted to stop."),
    solve=(
        '{Helper} showed {him} how. "{Tip}," {hhe} said. {name} tried again, and this time it worked!',
        (
            '"I could not do it at first either," said {helper}. "{Tip}." {name} tried ten more times. '
            "Then {he} could {skill}!"
        ),
        'They practiced every day. "{Tip}," said {helper}. At last, {name} could {skill} all alone.',
    ),
    lessons=(
        "{name} learned to keep trying.",
        "{name} learned that nobody can do everything the first time.",
        "After that, {name} was not afraid to try new things.",
    ),
    ties=(
        {
            "skill": "swim",
            "fail": "{he} went under the water",
            "Fail": "{He} went under the water",
            "Tip": "Kick your legs and look up",
            "key": "swim",
        },
        {
            "skill": "skate",
            "fail": "{he} fell down",
            "Fail": "{He} fell down",
            "Tip": "Take small steps",
            "key": "skate",
        },
        {
            "skill": "whistle",
            "fail": "no sound came out",
            "Fail": "No sound came out",
            "Tip": "Make your mouth small and blow",
            "key": "whistle",
        },
        {
            "skill": "dance",
            "fail": "{he} got all mixed up",
            "Fail": "{He} got all mixed up",
            "Tip": "Listen to the music",
            "key": "dance",
        },
        {
            "skill": "climb",
            "fail": "{he} slid back down",
            "Fail": "{He} slid back down",
            "Tip": "Go slow and hold on tight",
            "key": "climb",
        },
        {
            "skill": "ride a bike",
            "fail": "the bike fell over",
            "Fail": "The bike fell over",
            "Tip": "Look ahead and not down",
            "key": "bike",
        },
        {
            "skill": "jump rope",
            "fail": "the rope got stuck",
            "Fail": "The rope got stuck",
            "Tip": "Jump when you hear the rope",
            "key": "rope",
        },
    ),
)

LOST_WAY = Plot(
    kind="lost way",
    mood="scared",
    side="out",
    helper="any",
    when="any",
    titles=("{name} Finds the Way Home", "The Long Way Home", "Lost!"),
    scene=("followed {lure} far from home", "saw {lure} and ran after it", "walked a long way after {lure}"),
    problem=(
        "When {he} looked around, {he} did not know the way back.",
        "Then {he} stopped. Everything looked strange. {name} was lost!",
        "Soon {he} was far away {in_place}, and {he} could not see {his} house.",
    ),
    attempt=(
        "{He} went left, and then right, but every path looked the same.",
        "{name} called out, but no one answered.",
    ),
    solve=(
        (
            '"I know this place," said {helper}. "Follow {mark}." They walked side by side, and soon '
            "{name} saw {his} own front door."
        ),
        "{Helper} took {name} along {mark}. Step by step, they came home.",
        (
            '"Look for {mark}," {helper} told {him}. "That is the way to your home." They went together, '
            "and it was true."
        ),
    ),
    lessons=(
        "{name} learned to stay close to home.",
        "{name} learned to tell someone before going far.",
        "Now {name} knew the way home by heart.",
    ),
    ties=tuple(
        {"lure": lure, "mark": mark, "key": key}
        for lure, mark, key in (
            ("a blue butterfly", "the little stream", "butterfly"),
            ("a funny beetle", "the stone wall", "beetle"),
            ("a tiny frog", "the white stones", "frog"),
            ("a golden leaf", "the sandy path", "leaf"),
            ("a big bubble", "the row of tall trees", "bubble"),
            ("a pretty dragonfly", "the wooden fence", "dragonfly"),
        )
    ),
)

NIGHT = Plot(
    kind="night",
    thing_tag="t",
    mood="scared",
    when="night",
    side="in",
    helper="family",
    titles=("The Sound in the Night", "{name} Is Brave", "Good Night, {name}"),
    scene=(
        "lay in bed with {his} {adj} {thing}",
        "was in bed and held {his} {adj} {thing} tight",
        "got into bed with {his} {adj} {thing}",
    ),
    problem=(
        "It was dark. {Noise}! What was that sound?",
        "Then {he} heard a sound. {Noise}! It came from the {where}.",
        "{Noise}! Something was at the {where}.",
    ),
    attempt=("{name} hid under the blanket.", "{He} closed {his} eyes, but the sound came again."),
    solve=(
        "{Helper} came with a light, and they looked together. It was only {cause}! {name} laughed.",
        (
            '{name} called {helper}. "Let us see what it is," {hhe} said. They went to the {where}. It '
            "was only {cause}."
        ),
        (
            '{Helper} came in. "Take my lamp," said {helper}. {name} was brave and looked at the {where}. '
            "There was {cause}, and nothing else."
        ),
    ),
    lessons=(
        "{name} learned that the dark is not so scary.",
        "After that, {name} was not afraid of sounds in the night.",
        "Now {name} knew that a light can chase fear away.",
    ),
    ties=(
        {"Noise": "Tap, tap, tap", "where": "window", "cause": "a branch in the wind", "key": "branch"},
        {
            "Noise": "Scratch, scratch",
            "where": "door",
            "cause": "a kitten that wanted to come in",
            "key": "kitten",
        },
        {"Noise": "Drip, drip, drip", "where": "sink", "cause": "a drop of water", "key": "sink"},
        {"Noise": "Hoo, hoo", "where": "window", "cause": "a baby owl that could not sleep", "key": "owl"},
        {"Noise": "Bump, bump", "where": "wall", "cause": "a loose picture", "key": "picture"},
        {"Noise": "Squeak, squeak", "where": "closet", "cause": "a tiny door that was open", "key": "closet"},
    ),
)

BRAVE = Plot(
    kind="brave",
    mood="scared",
    side="out",
    helper="any",
    titles=("{name} Tries It", "Brave {name}", "The Big {fear}"),
    scene=(
        "stood in front of a big {fear} {in_place}",
        "came to a big {fear} {in_place}",
        "looked up at a big {fear} {in_place}",
    ),
    problem=(
        "{He} wanted to {do}, but it was so high.",
        "All the others could {do}. But {name} was afraid.",
        '"I want to {do}," {he} said, "but it is too high for me."',
    ),
    attempt=("{He} took one step and then ran back.", "{name} closed {his} eyes, but that made it worse."),
    solve=(
        '"I will stay with you," said {helper}. {name} counted, "One, two, three!" and {did}. It was fun!',
        (
            '{Helper} said, "You can be scared and still try." So {name} {did}, slowly at first. Then '
            "{he} wanted to do it again!"
        ),
        (
            '"First one little step," said {helper}, "and then one more." Step by step, {name} {did}. '
            "{He} had done it!"
        ),
    ),
    lessons=(
        "{name} learned to be brave.",
        "{name} learned that trying can be fun.",
        "Now {name} was not afraid of the {fear} any more.",
    ),
    ties=(
        {"fear": "slide", "do": "go down the slide", "did": "went down the slide", "key": "slide"},
        {"fear": "ladder", "do": "climb the ladder", "did": "climbed the ladder", "key": "ladder"},
        {"fear": "bridge", "do": "cross the bridge", "did": "crossed the bridge", "key": "bridge"},
        {"fear": "tower", "do": "go up the tower", "did": "went up the tower", "key": "tower"},
        {"fear": "rock", "do": "jump off the rock", "did": "jumped off the rock", "key": "rock"},
    ),
)
