"""Plots with a friend in the scene from the start; see `plots` for how a plot is written."""

from __future__ import annotations

from nomoat.assets.plots import Plot

SAD_FRIEND = Plot(
    kind="sad friend",
    thing_tag="g",
    mood="worried",
    helper="friend",
    thanks=False,
    titles=("A Gift for {helper}", "{name} Cheers Up {helper}", "The {adj} {thing}"),
    scene=(
        "met {helper_in} {in_place}",
        "saw {helper_in} {in_place}",
        "found {helper_in} sitting alone {in_place}",
    ),
    problem=(
        '{Helper} looked very sad. "{why}," {hhe} said.',
        '"Why are you crying?" asked {name}. "{why}," said {helper}.',
        '{Helper} did not want to play. "{why}," {hhe} told {name}.',
    ),
    attempt=(
        "{name} told a [joke|funny story], but {helper} did not laugh.",
        "{name} made a funny face, but {helper} did not smile.",
    ),
    solve=(
        (
            'So {name} gave {helper} {a_thing}. "This is for you," {he} said. {Helper} held the {thing} '
            "and began to smile."
        ),
        (
            'Then {name} had an idea. {He} ran home and came back with {a_thing}. "It is yours now," said '
            "{name}. {Helper} smiled at last."
        ),
        (
            '{name} sat close to {helper} and gave {hhim} {a_thing}. "You are my friend," {he} said. '
            "{Helper} was not sad any more."
        ),
    ),
    lessons=(
        "{name} learned that a small gift can make a big smile.",
        "{name} saw that it feels good to be kind.",
        '"Thank you, {name}," said {helper}. "You are a true friend."',
    ),
    ties=(
        {"why": "My best friend moved away", "key": "friend"},
        {"why": "I have no one to play with", "key": "play"},
        {"why": "Nobody came to my party", "key": "party"},
        {"why": "I fell and hurt my knee", "key": "knee"},
        {"why": "I miss my family", "key": "family"},
        {"why": "I lost the big race", "key": "race"},
    ),
)

HUNGRY = Plot(
    kind="hungry",
    thing_tag="f",
    mood="worried",
    helper="friend",
    thanks=False,
    titles=("{name} Shares the {thing}", "The {adj} {thing}", "Half for You"),
    scene=(
        "had {a_thing} and sat down {in_place} to eat it",
        "was {in_place} with {a_thing} for lunch",
        "took {a_thing} to {place} for a snack",
    ),
    problem=(
        "Then {helper_in} came by. {Helper} looked at the {thing}. {HHis} tummy made a loud noise.",
        '{Helper_in} sat near {him}. "I am so hungry," {helper} said. "I have nothing to eat."',
        "Then {he} saw {helper_in}. {Helper} had no lunch at all.",
    ),
    attempt=(
        "{name} was hungry too. There was only one {thing}.",
        "{name} looked at the {thing}. {He} wanted to eat it all.",
    ),
    solve=(
        (
            'Then {name} broke the {thing} in two. "Half for you and half for me," {he} said. They ate it '
            "together."
        ),
        '"Let us share," said {name}, and {he} gave {helper} half of the {thing}. It tasted so good.',
        (
            "{name} thought for a moment. Then {he} cut the {thing} and gave {helper} the bigger part. "
            "{Helper}'s eyes went wide."
        ),
    ),
    lessons=(
        '"Thank you, {name}!" said {helper}. "Next time, I will share with you."',
        "{name} learned that food tastes better when you share it.",
        "{Helper} hugged {name}, and a new friendship began.",
    ),
)

STUCK = Plot(
    kind="stuck",
    mood="worried",
    side="out",
    helper="friend",
    thanks=False,
    titles=("{name} to the Rescue", "Stuck!", "{name} Helps {helper}"),
    scene=(
        "was walking {in_place}",
        "was on {his} way to {place}",
        "was looking for [berries|shells|bugs|flowers] {in_place}",
    ),
    problem=(
        'Then {he} heard a cry. "Help! Help!" It was {helper_in}. {Helper} was stuck {where}.',
        "Suddenly, {he} saw {helper_in}. {Helper} was stuck {where} and could not get out.",
        'There {he} met {helper_in}, who was stuck {where}. "Please help me," said {helper}.',
    ),
    attempt=(
        "{name} pulled and pulled, but {helper} did not move.",
        "{name} tried to push, but it did not work.",
    ),
    solve=(
        "Then {name} {did}. Pop! {Helper} was free.",
        '"I have an idea," said {name}. {He} {did}. Soon {helper} was out.',
        "{name} did not give up. {He} {did}, and at last {helper} was free.",
    ),
    lessons=(
        '"Thank you for helping me, {name}," said {helper}.',
        "{name} learned that even someone small can be a big help.",
        '"You are my hero," {helper} told {name}.',
    ),
    ties=(
        {"where": "in the mud", "did": "put a long stick in the mud for {hhim} to hold", "key": "mud"},
        {"where": "in a bush full of thorns", "did": "moved the thorns away, one by one", "key": "bush"},
        {"where": "under a fallen branch", "did": "lifted the branch with a strong pole", "key": "branch"},
        {"where": "between two rocks", "did": "dug the sand away from the rocks", "key": "rocks"},
        {"where": "in a deep hole", "did": "let down a long rope", "key": "hole"},
        {"where": "in an old net", "did": "untied the knots of the net", "key": "net"},
    ),
)

QUARREL = Plot(
    kind="quarrel",
    thing_tag="t",
    mood="cross",
    helper="friend",
    thanks=False,
    titles=("One {thing} for Two", "{name} and {helper} Take Turns", "Mine, Mine, Mine!"),
    scene=(
        "was playing {in_place} with {helper_in}",
        "met {helper_in} {in_place}",
        "was {in_place} with {helper_in}",
    ),
    problem=(
        'They both saw {a_thing}. "It is mine!" said {name}. "No, mine!" said {helper}.',
        "They found {a_thing}, and both of them wanted it. They pulled and pulled.",
        (
            'There was only one {adj} {thing}, and they both wanted to play with it. "Give it to me!" '
            "{helper} shouted."
        ),
    ),
    attempt=(
        "They pulled so hard that they both fell down.",
        "They turned away and did not talk for a long time.",
    ),
    solve=(
        (
            'Then {name} said, "I am sorry. You can have the first turn." {Helper} smiled. "Then you have '
            'the next one." So they took turns with the {thing}.'
        ),
        (
            'After a while, {helper} said, "It is no fun alone." {name} nodded. They made up a game with '
            "the {thing} for two."
        ),
        (
            '"Let us count to ten and then switch," said {name}. {Helper} liked the idea. They both had '
            "time with the {adj} {thing}."
        ),
    ),
    lessons=(
        "They learned that sharing is more fun than fighting.",
        "{name} learned that a friend is better than {a_noun}.",
        '"I like to share with you," said {helper}.',
    ),
)

RETURN = Plot(
    kind="return",
    thing_tag="t",
    mood="worried",
    helper="friend",
    thanks=False,
    titles=("{name} Finds a {thing}", "Whose {thing} Is It?", "The {adj} {thing}"),
    scene=(
        "was walking {in_place} when {he} found {a_thing}",
        "found {a_thing} {in_place}",
        "looked down and saw {a_thing} {in_place}",
    ),
    problem=(
        "It was so pretty! {name} wanted to keep it. But whose {thing} was it?",
        '"Someone must miss this," {he} thought.',
        "{He} picked it up. It did not belong to {him}, but {he} liked it very much.",
    ),
    attempt=(
        "{He} asked a [bird|beetle|butterfly], but it only went away.",
        "{name} put the {thing} in {his} bag and thought about it.",
    ),
    solve=(
        (
            'Then {he} saw {helper_in}, who was looking for something and crying. "Is this your {thing}?" '
            'asked {name}. "Yes, it is!" said {helper}. {name} gave it back.'
        ),
        (
            'Soon {helper_in} came along. "Did you see my {adj} {thing}?" {hhe} asked. {name} held it '
            "out. {Helper} was so glad."
        ),
        (
            '{He} asked everyone {in_place}. At last, {helper_in} said, "That is my {thing}! I looked for '
            'it all day." {name} gave it back at once.'
        ),
    ),
    lessons=(
        '"You are so honest, {name}," said {helper}. "Let us play with it together."',
        "{name} had no {thing} now, but {he} had a new friend.",
        "{name} learned that giving back feels better than keeping.",
    ),
)

RACE = Plot(
    kind="race",
    mood="worried",
    side="out",
    helper="friend",
    thanks=False,
    titles=("The Big Race", "{name} and {helper} Run", "Who Won?"),
    scene=(
        "ran a race against {helper_in} {in_place}",
        "met {helper_in} for a race {in_place}",
        "and {helper_in} had a race {in_place}",
    ),
    problem=(
        "{name} was in front. Then {he} heard a cry. {Helper} had {fell}!",
        '"I will win!" said {name}. But behind {him}, {helper} {did}.',
        "They ran fast. All at once, {helper} {did} and could not go on.",
    ),
    attempt=("{name} looked at the end of the race. It was so close.", "{name} could have won the race."),
    solve=(
        (
            'But {name} stopped and ran back. "Are you hurt?" {he} asked. {He} helped {helper} up, and '
            "they walked to the end together."
        ),
        (
            '{name} turned around. "A friend is more than a race," {he} said. {He} held on to {helper}, '
            "and they crossed the line side by side."
        ),
        (
            "{name} ran back and cleaned {helper}'s knee. Then they went on, slow and close, and came in "
            "at the same time."
        ),
    ),
    lessons=(
        '"You are a good friend, {name}," said {helper}.',
        "{name} learned that helping is better than winning.",
        "They both won that day.",
    ),
    ties=(
        {"fell": "fallen over a root", "did": "fell over a root", "key": "root"},
        {"fell": "slipped in the mud", "did": "slipped in the mud", "key": "mud"},
        {"fell": "tripped on a stone", "did": "tripped on a stone", "key": "stone"},
        {"fell": "run into a bush", "did": "ran into a bush", "key": "bush"},
    ),
)
