"""Build the pre-training text of the embedded base from story files and generated stories.

    python recipes/embedded-base/corpus.py --stories DIR --out train.jsonl --held-out held.jsonl
    python recipes/embedded-base/corpus.py --stories DIR --out last.jsonl --held-out last_held.jsonl --last --seed 5

Every document is one JSON line {"text": ...}. A seeded share of the documents carries a header drawn from the
document itself (`Name: Lily`, `Words: kite, river`, `Ending: ...`), so that the base learns to obey requests.
The held-out part is chosen by content hash, so it does not move when a source is added.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openings import told_story

from nomoat.assets.storyteller import Story, make_story

GENERATED = 9000  # beside every usable story of the files
LAST_GENERATED, LAST_TOLD, LAST_STORIES = 3000, 13_000, 1300
LAST_MAX_CHARS = 800
MIN_CHARS, MAX_CHARS = 200, 1600
HEADER_SHARE = 0.45
SPEECH_VERBS = "said|asked|cried|shouted|replied|yelled|called|exclaimed|whispered|laughed|answered"
HELD_OUT_PER_MILLE = 10
LENGTHS = ((90, "short"), (170, "medium"), (10_000, "long"))  # words, upper bound
STRONG_OPENER = re.compile(
    r"(once upon a time|one day,? there (was|lived)|once,? there (was|were|lived)|"
    r"there (was once|once (was|lived))|long ago|once,? (a|in) )",
    re.IGNORECASE,
)
OPENER = re.compile(
    STRONG_OPENER.pattern + r"|(one (sunny |rainy |cold |hot )?(day|morning|night),? )", re.IGNORECASE
)
# UTF-8 read as cp1252 comes first: its pieces contain the plain curly quotes.
REPLACEMENTS = (
    ("\u00e2\u20ac\u0153", '"'),
    ("\u00e2\u20ac\u2122", "'"),
    ("\u00e2\u20ac\u02dc", "'"),
    ("\u00e2\u20ac\u201d", " - "),
    ("\u00e2\u20ac\u201c", " - "),
    ("\u00e2\u20ac\u00a6", "..."),
    ("\u00e2\u20ac\x9d", '"'),
    ("\u00e2\u20ac", '"'),
    ("\x9d", ""),
    ("\u201c", '"'),
    ("\u201d", '"'),
    ("\u2018", "'"),
    ("\u2019", "'"),
    ("\u2013", " - "),
    ("\u2014", " - "),
    ("\u2026", "..."),
    ("\u00a0", " "),
    ("\u200b", ""),
    ("\ufeff", ""),
    ("\t", " "),
    ("\r", ""),
)
_STOP_WORDS = """
able about across after again all alone along also always am and another any anymore anything
are around as asked asks at away back be became because been before began behind being best big
both boy but by called came can come could couldn dad daddy day did didn different do does doesn
doing don done down each end enough even ever every everyone everything far feel feeling felt
few finally find first for found from full fun gave get gets getting girl give go goes going
good got great had happened happily happy has have having he heard hello help her here hers
herself hi him himself his home how however i idea if in inside into is isn it its just keep
kept kind knew know later learned left lesson let like liked little live lived long look looked
looking lot lots loved made make man many may maybe me mom mommy more morning most much mum
mummy must my named near need needed never new next nice no not nothing now of off oh old on
once one only or other others our out over own people place play played please put ran really
replied right run sad said same saw say see seen she should show since small smile smiled so
some someone something soon special start started still stop stopped story such suddenly sunny
super sure take than thank that the their them then there these they thing things think this
those thought through time to today together told too took tried try turned two under until up
upon us use used very wait walked want wanted wants was wasn watched way we well went were what
when where which while who whole why will wish with without woman won wonderful worked world
would years yes yet you your yourself
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())  # too common to describe a story in a `Words:` line


@dataclass(frozen=True)
class Document:
    """One story before headers; `title` and `words` are known for generated stories only."""

    text: str
    source: str
    held_out: bool = False
    title: str = ""
    words: tuple[str, ...] = ()
    name: str = ""


def normalise(text: str) -> str:
    """ASCII punctuation, one newline between paragraphs, no stray spaces."""
    for old, new in REPLACEMENTS:
        text = text.replace(old, new)
    text = re.sub(r" {2,}", " ", text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def key_of(text: str) -> str:
    """Identity of a story, blind to case, white space and punctuation: for dropping repeats."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def is_clean(text: str) -> bool:
    """Right length, right opening, plain ASCII, whole last sentence, balanced quotes."""
    return (
        MIN_CHARS <= len(text) <= MAX_CHARS
        and OPENER.match(text) is not None
        and text.isascii()
        and text[-1] in '.!?"'
        and text.count('"') % 2 == 0
    )


def split_marked(raw: str) -> Iterator[str]:
    yield from (part.strip() for part in raw.split("<|endoftext|>") if part.strip())


def split_lines(raw: str) -> Iterator[str]:
    """Split a file whose stories are joined by a newline while their paragraphs have an empty line between.

    A few stories break their own lines, too. A one-paragraph piece is kept only if another story opens
    right after it; else it may be the first line of a story, and half a story teaches the wrong thing.
    """
    pieces = [p.strip() for p in re.split(r"(?<=\S)[ ]*\n(?=\S)", raw) if p.strip()]
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=True):
        if "\n" in piece or STRONG_OPENER.match(following):
            yield piece


def split_paragraphs(raw: str) -> Iterator[str]:
    """Split a file in which stories and paragraphs are both divided by empty lines: at story openers."""
    current: list[str] = []
    for paragraph in re.split(r"\n\s*\n", raw):
        fresh = re.match(
            r"one (sunny )?day,? (a|an|there|two) .{0,40}(named|called|was|were)", paragraph.strip(), re.I
        )
        if current and (STRONG_OPENER.match(paragraph.strip()) or fresh):
            yield "\n\n".join(current)
            current = []
        current.append(paragraph.strip())
    yield "\n\n".join(current)


@dataclass(frozen=True)
class Casing:
    """What cased text teaches: words that are usually capitalised, and words ever seen in small letters."""

    capitals: dict[str, str]
    small: frozenset[str]


def learn_casing(texts: Iterable[str]) -> Casing:
    """Count each word's case where a sentence start cannot disturb it: after a small letter or a comma."""
    seen: dict[str, Counter[bool]] = defaultdict(Counter)
    for text in texts:
        for word in re.findall(r"(?<=[a-z,;] )[A-Za-z]+", text):
            seen[word.lower()][word[0].isupper()] += 1
    usual = {w: w.capitalize() for w, n in seen.items() if n[True] > 1 and n[True] > 2 * n[False]}
    return Casing(usual, frozenset(word for word, counts in seen.items() if counts[False]))


def true_case(text: str, casing: Casing) -> str:
    """Give lower-cased text its capitals back: names, 'I', sentence starts and starts of speech.

    A word that cased text never shows in small letters, and that begins a sentence here (names do, rare nouns
    have an article before them), is taken for a name too.
    """
    introduced = re.findall(r"\b(?:named|(?:girl|boy|man|dog|cat|bear|rabbit|bird) called) ([a-z]{2,})", text)
    introduced += re.findall(r"\bname was ([a-z]{2,})", text)
    starts = re.findall(r"(?:^|[.!?\"] \"?|\n\"?|one day,? )([a-z]{3,})(?=[ ',])", text)
    unknown = [w for w in starts if w not in casing.small and len(re.findall(rf"\b{w}\b", text)) > 1]
    table = casing.capitals | {name: name.capitalize() for name in introduced + unknown}
    text = re.sub(r"(?<![a-z'])[a-z]+", lambda m: table.get(m[0], m[0]), text)
    text = re.sub(r"\bi\b", "I", text)
    start = (
        r"(^\"?|[.!?] \"?|\n\"?|[.!?]\" (?=[a-z\"])\"?|, \"|: \"|"
        r"\b(?:said|asked|cried|shouted|replied) \")([a-z])"
    )
    return re.sub(start, lambda m: m[0] if _is_speech_tag(text, m) else m[1] + m[2].upper(), text)


def _is_speech_tag(text: str, match: re.Match[str]) -> bool:
    """Whether a closing quote is followed by '... said X', which goes on with a small letter."""
    if not re.match(r"[.!?]\" $", match[1]):
        return False
    return re.match(rf"(\w+ ){{0,4}}({SPEECH_VERBS})\b", text[match.start(2) :]) is not None


def read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


def story_documents(folder: Path) -> list[Document]:
    """All usable stories of the folder's files, without repeats; the validation file is held out."""
    cased = [normalise(t) for t in split_lines(read(folder / "train_head_cased.txt.gz"))]
    marked = [normalise(t) for t in split_marked(read(folder / "train_v2gpt4_head.txt.gz"))]
    casing = learn_casing(cased + marked)
    lowered = [normalise(t) for t in split_lines(read(folder / "train_head_lowercased.txt.gz"))]
    held = [normalise(t) for t in split_paragraphs(read(folder / "valid_head.txt.gz"))]
    sources: Sequence[tuple[str, list[str]]] = (
        ("valid_head", held),
        ("v2gpt4", marked),
        ("cased", cased),
        ("lowercased", [true_case(text, casing) for text in lowered]),
    )
    seen: set[str] = set()
    documents = []
    for source, texts in sources:  # held-out first: what it holds, training may not hold
        for text in texts:
            if is_clean(text) and (key := key_of(text)) not in seen:
                seen.add(key)
                documents.append(Document(text, source, held_out=source == "valid_head"))
    return documents


def documents_of(count: int, make: Callable[[random.Random], Story], rng: random.Random) -> list[Document]:
    stories = (make(rng) for _ in range(count))
    source = make.__name__
    return [Document(s.text, source, False, s.title, s.words, s.name) for s in stories]


def first_text(folder: Path, rng: random.Random) -> list[Document]:
    """What the base learns English from: every usable story of the files, and the storyteller's."""
    return story_documents(folder) + documents_of(GENERATED, make_story, rng)


def last_text(folder: Path, rng: random.Random) -> list[Document]:
    """What it ends on: whole, coherent stories behind every common opening, and a few short ones of the files.

    A model this small that has seen an opening mostly in five thousand borrowed stories cannot carry any of
    their threads; here nine in ten openings lead into a plot it has seen to its end many times.
    """
    stories = [d for d in story_documents(folder) if not is_held_out(d) and len(d.text) <= LAST_MAX_CHARS]
    return (
        rng.sample(stories, LAST_STORIES)
        + documents_of(LAST_GENERATED, make_story, rng)
        + documents_of(LAST_TOLD, told_story, rng)
    )


def name_of(text: str) -> str:
    """The hero's name: the word after 'named' or 'called', if it occurs again."""
    match = re.search(r"\b(?:named|called) ([A-Z][a-z]+)\b", text[:300])
    return match[1] if match and len(re.findall(rf"\b{match[1]}\b", text)) > 1 else ""


def frequent_words(text: str, ranks: Counter[str]) -> list[str]:
    """Content words of a story, those first that say most about it (often here, seldom elsewhere)."""
    capital = {word.lower() for word in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", text)}
    counts = Counter(
        w for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in STOP_WORDS and w not in capital
    )
    known = [w for w in counts if ranks[w] >= 5 and not w.endswith(("ed", "ing", "ly"))]
    return sorted(known, key=lambda w: (-counts[w], ranks[w], w))[:6]


def last_sentence(text: str) -> str:
    """What follows the last sentence end; a closing quote stays with the sentence it closes."""
    return re.split(r"(?<=[.!?])\s+|(?<=[.!?]\")\s+(?=[A-Z\"])", text.strip())[-1]


def header(document: Document, ranks: Counter[str], rng: random.Random) -> str:
    """One to five request lines that the story fulfils, in random order."""
    name = document.name or name_of(document.text)
    words = list(document.words) or frequent_words(document.text, ranks)
    ending = last_sentence(document.text)
    length = next(label for bound, label in LENGTHS if len(document.text.split()) <= bound)
    lines = []
    if document.title and rng.random() < 0.5:
        lines.append(f"Title: {document.title}")
    if name and rng.random() < 0.6:
        lines.append(f"Name: {name}")
    if words and rng.random() < 0.7:
        lines.append("Words: " + ", ".join(rng.sample(words, min(len(words), rng.randint(1, 3)))))
    if len(ending) <= 60 and '"' not in ending and rng.random() < 0.4:
        lines.append(f"Ending: {ending}")
    if not lines or rng.random() < 0.35:
        lines.append(f"Length: {length}")
    rng.shuffle(lines)
    return "\n".join(lines)


def is_held_out(document: Document) -> bool:
    digest = hashlib.sha256(key_of(document.text).encode()).digest()
    return document.held_out or int.from_bytes(digest[:4], "big") % 1000 < HELD_OUT_PER_MILLE


def write(path: Path, texts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def report(documents: Sequence[Document], train: int, held: int) -> None:
    for source in dict.fromkeys(d.source for d in documents):
        texts = [d.text for d in documents if d.source == source]
        print(f"{source:12} {len(texts):6} documents {sum(map(len, texts)):9} characters")
    print(f"train {train} documents, held out {held} documents")


def build(stories: Path, last: bool, seed: int) -> tuple[list[str], list[str], list[Document]]:
    """The training and the held-out texts, headers included, in their final order."""
    rng = random.Random(seed)
    documents = last_text(stories, rng) if last else first_text(stories, rng)
    ranks = Counter(w for d in documents if not d.held_out for w in set(re.findall(r"[a-z]+", d.text)))
    rng.shuffle(documents)
    train: list[str] = []
    held: list[str] = []
    for document in documents:
        text = document.text
        if rng.random() < HEADER_SHARE:
            text = f"{header(document, ranks, rng)}\n\n{text}"
        (held if is_held_out(document) else train).append(text)
    return train, held, documents


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stories", type=Path, required=True, help="folder with the story files (*.txt.gz)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--last", action="store_true", help="the text that training ends on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, held, documents = build(args.stories, args.last, args.seed)
    write(args.out, train)
    write(args.held_out, held)
    report(documents, len(train), len(held))


if __name__ == "__main__":
    main()
