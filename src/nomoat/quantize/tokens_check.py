"""Does llama.cpp make the same token ids of a text as the tokenizer that the model was trained with?"""

from __future__ import annotations

import json
import random
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat.engine.cmodel import CModel
from nomoat.errors import ModelError
from nomoat.quantize.vocab import SpacePrefix, space_prefix

# Scripts, spacing, numbers and code: whatever the splits before the merges treat differently.
_FRAGMENTS = (
    "Once upon a time, there was a little girl named Lily.",
    "It's what they'd've said: WE'RE done, y'all!",
    "Ünïcode: naïve café, façade, Ærøskøbing, Łódź, İstanbul",
    "Привет, как дела? Это было 3-го числа.",
    "Γειά σου Κόσμε, τι κάνεις;",
    "你好，世界！今天天气怎么样？",
    "こんにちは、世界。カタカナもひらがなも。",
    "안녕하세요 세계",
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "สวัสดีชาวโลก",
    "🦙 llama 🚀🚀 👩‍👩‍👧 flags 🇩🇪🇫🇷 ❤️",
    "def f(x: int) -> int:\n    return x ** 2  # square\n",
    "\tif (a != b && c <= d) { printf(\"%d\\n\", i++); }\r\n",
    "<div class='x'>&nbsp;</div>",
    "SELECT * FROM t WHERE id IN (1, 22, 333, 4444);",
    "https://example.org/a?b=c&d=%20#e",
    "3.14159 1234567 1,000,000 0xFF ½ ² ٣ 10%",
    "   leading", "trailing   ", "a  b   c    d", "a\n\nb\n\n\nc", " \n \t\n", "\n", " ", "\t\t",
    "...!!!???---___===+++***", "(a)[b]{c}<d>", "\u00a0no\u2009break\u3000space", "“quotes” ‘and’ — dashes…",
    "x" * 70, "ha" * 25, "aaaaaaaaaaa bbbbbbbbb",
)  # fmt: skip


@dataclass(frozen=True)
class TokenizerCheck:
    """What `check_tokenizer` compared. `left_out` says which kind of text was not, and why."""

    compared: int
    left_out: str | None = None


def check_tokenizer(gguf: Path, tokenizer: Any) -> TokenizerCheck:
    """Compare about 200 seeded strings, half of them with special tokens inside.

    A model run by nomoat gets token ids and does not depend on this; one that was taken elsewhere does.

    Raises:
        ModelError: the ids of a string differ; it is quoted with both lists.
        EngineError: the file cannot be loaded.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values()]
    texts = probe_texts(special)
    habit = _space_prefix(tokenizer)
    comparable = [text for text in texts if _comparable(text, special, habit)]
    left_out = None
    if len(comparable) < len(texts):
        left_out = (
            f"{len(texts) - len(comparable)} texts: this tokenizer puts a space in front {habit}; "
            f"llama.cpp {SpacePrefix.ALWAYS}"
        )
    with CModel(gguf, vocab_only=True) as model:
        for text in comparable:
            wanted = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            found = model.tokenize(text)
            if found != wanted:
                raise ModelError(
                    f"{gguf.name}: llama.cpp splits {text!r} into {found}; the tokenizer into {wanted}",
                    hint="llama.cpp's version of this tokenizer differs; outside nomoat the file would "
                    "answer other prompts than the model was trained on",
                )
    return TokenizerCheck(len(comparable), left_out)


def probe_texts(special: list[str]) -> list[str]:
    """100 strings, and 100 with special tokens inside: the same for the same special tokens, always.

    They are in Unicode's NFC: some tokenizers compose accents first, which llama.cpp leaves to its caller.
    """
    rng = random.Random(0)
    plain = [unicodedata.normalize("NFC", text) for text in _FRAGMENTS]
    while len(plain) < 100:
        parts = [_cut(rng, rng.choice(_FRAGMENTS)) for _ in range(rng.randint(2, 4))]
        plain.append(unicodedata.normalize("NFC", rng.choice(("", " ", "\n", "  ")).join(parts)))
    marked = []
    for i in range(100 if special else 0):
        first, second = rng.choice(plain), rng.choice(plain)
        # Where special tokens eat the spaces behind them, llama.cpp leaves the ones beyond ASCII.
        second = second.lstrip("\u00a0\u2009\u3000")
        marked.append(f"{first}{special[i % len(special)]}{second}{rng.choice(special)}")
    return plain + marked


def _cut(rng: random.Random, text: str) -> str:
    start = rng.randrange(len(text))
    return text[start : start + rng.randint(1, 24)]


def _space_prefix(tokenizer: Any) -> SpacePrefix:
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    return space_prefix(spec) if spec["model"].get("byte_fallback") else SpacePrefix.NEVER


def _comparable(text: str, special: list[str], habit: SpacePrefix) -> bool:
    """Whether the tokenizer and llama.cpp put the same spaces in front."""
    if habit in (SpacePrefix.ALWAYS, SpacePrefix.NEVER):
        return True
    spaced = text.startswith(" ") or any(f"{token} " in text for token in special)
    inside = any(token in text for token in special)
    return not spaced and not (habit == SpacePrefix.FIRST and inside)
