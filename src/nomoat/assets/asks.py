"""How an owner may ask for a story: the wordings of the starter data's requests.

A slot names a constraint, so a wording says by itself what must be checked:
`{name}` the hero's name · `{a_kind}` what the hero is · `{words}` 'the words kite and river' ·
`{list}` 'kite, river' · `{things}` 'a kite and a fox' · `{ending}` the exact last sentence ·
`{opening}` the first words · `{low}`, `{high}`, `{most}`, `{least}` words · `{few}`, `{many}` sentences.
"""

from __future__ import annotations

STORY_ASKS = (
    "Write a short story about {name}. Use {words}.",
    "Tell me a story with {things}. The hero is {name}.",
    "Story: {list}. Hero: {name}.",
    "Story please. Name: {name}. Words: {list}.",
    "{name}, {list}. Story!",
    "{list}. Make it a story.",
    "Hero {name}, words {list}, end with {ending}",
    "Can you write a story about {a_kind} called {name}?",
    "My little sister likes {name}. Write her a story with {words}.",
    "Make up a story with {words}. End with: {ending}",
    'I want a story that ends with "{ending}" and has {things} in it.',
    "A tale about {a_kind} named {name}, {low} to {high} words.",
    "Short story, {low}-{high} words, with {words}.",
    "Please write {few} to {many} sentences about {name} and {things}.",
    'Begin with "{opening}" and tell a story about {name}.',
    'Start: "{opening}". Words: {list}. Hero: {name}.',
    'Start with "{opening}" and use {words}.',
    "Could I have a tale about {name} and {things}?",
    "{name} finds {things}. What happens? At most {most} words.",
    "Bedtime story with {things}, please.",
    "Write something for a small child. It must have {words}, and {name} must be in it.",
    "Use {words} in a little story.",
    "Give me a happy story about {a_kind}. Call the hero {name} and end with: {ending}",
    "Tell a story about {a_kind} with {words}.",
    "Think of a story in which {name} meets a friend. Use {words}.",
    "Between {low} and {high} words: a story with {things}.",
    "Not more than {most} words, please. The story is about {name}, with {words}.",
    "At least {least} words about {name}. Put in {words}.",
    "I am three years old and I like {things}. Tell me a story!",
    "New story. Hero: {name}. Last sentence: {ending}",
    "Words: {list}\nLength: {low} to {high} words",
    "Name: {name}\nWords: {list}\nEnding: {ending}",
    "Name: {name}\nWords: {list}",
    "Words: {list}\nEnding: {ending}",
    "We need a story for class. {few} to {many} sentences. Use {words}.",
    "In {few}-{many} sentences, tell how {name} solved a problem. Words: {list}.",
    'The first words are "{opening}". The last sentence is "{ending}" The hero is {name}.',
    "How about a story with {things} that ends like this? {ending}",
    "Let {name} be the hero. Let there be {things}.",
    "Invent a story for tonight: {words}, up to {most} words.",
    "Story about {a_kind}. Words to use: {list}. Length: {low}-{high} words.",
    "Please tell my son a story about {name}; he likes the sound of {words}.",
    "{a_kind} called {name}, and {things}. Go!",
    "What could happen to {a_kind} named {name}? Answer with a story that has {words}.",
    "One story, {few} to {many} sentences, hero {name}.",
    "Write a story. Put {words} in it and finish with: {ending}",
    'Open with "{opening}" and close with "{ending}" Put {things} in between.',
    "{things}, up to {most} words. Close with: {ending}",
    'A story for the car: {words}. It begins with "{opening}".',
    'My son always wants stories to start with "{opening}". Today he picked {things}.',
    "Ending: {ending}\nName: {name}\nLength: {low} to {high} words",
    "Tell me about {name}. I like it when a story ends with: {ending}",
)
TITLE_ASKS = (
    "Give me a title for a story about {things}.",
    "What is a good title for a story with {things}?",
    "Title, please: {name} and {things}.",
    "I wrote a story about {name} and {things}. What should I call it?",
    "Name my story. It is about {things}.",
)
HERO_ASKS = (
    "Who is the hero of this story? {story}",
    "What is the hero's name?\n\n{story}",
    "{story}\n\nWho is this story about?",
    "Read this and tell me the hero's name. {story}",
)
CONTINUE_ASKS = (
    "Continue: {start}",
    "Go on with this story. {start}",
    "{start}\n\nWhat happens next?",
    "Finish my story: {start}",
    "Here is how it begins. {start} Now you tell the rest.",
)
