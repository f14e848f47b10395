"""A transformers tokenizer as the vocabulary section of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gguf import GGUFWriter, TokenType

from nomoat.chat.template import ChatTemplate, adds_bos
from nomoat.errors import ModelError

# Regexes as tokenizer.json spells them; the names are llama.cpp's, which has the same splits in its own code.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
_O200K_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+{tail}"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*{tail}"
)
_O200K_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_O200K = _O200K_WORDS.replace("{tail}", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?") + r"|\p{N}{1,3}" + _O200K_REST
_TEKKEN = _O200K_WORDS.replace("{tail}", "") + r"|\p{N}" + _O200K_REST

# (splits in order, whether whole words in the vocabulary skip the merges) -> tokenizer.ggml.pre
PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    ((r"\p{N}", _GPT2), False): "smollm",
    ((_CL100K,), True): "llama-bpe",
    ((_CL100K,), False): "dbrx",
    ((_QWEN2,), False): "qwen2",
    ((_O200K,), False): "gpt-4o",
    ((_TEKKEN,), False): "tekken",
    ((_TEKKEN,), True): "tekken",
}


@dataclass(frozen=True)
class Vocab:
    """The vocabulary as GGUF has it; one entry a row of the embedding matrix.

    Attributes:
        model: 'gpt2' (byte-level BPE) or 'llama' (SentencePiece: pieces with scores).
        pre: name of the split into words before the merges.
        adds_space: whether text gets a space in front; None where the model has no such notion.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    adds_space: bool | None = None


def read_vocab(tokenizer: Any, n_rows: int) -> Vocab:
    """The tokenizer's vocabulary, filled up to the `n_rows` of the embedding matrix.

    Raises:
        ModelError: llama.cpp has no such tokenizer, or the tokenizer knows more tokens than `n_rows`.
    """
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    model = spec["model"]
    if model["type"] != "BPE":
        raise _refusal("model.type", model["type"], "BPE")
    tokens, types = _tokens(spec, n_rows)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in model["merges"]]
    if model.get("byte_fallback"):
        return Vocab(
            model="llama",
            pre="default",
            tokens=tuple(tokens),
            types=tuple(types := _piece_types(tokens, types, model.get("unk_token"))),
            scores=tuple(_scores(tokens, types, merges)),
            adds_space=space_prefix(spec) != SpacePrefix.NEVER,
        )
    return Vocab(
        model="gpt2",
        pre=_pre_tokenizer(spec),
        tokens=tuple(tokens),
        types=tuple(types),
        merges=tuple(" ".join(merge) for merge in merges),
    )


def write_vocab(writer: GGUFWriter, vocab: Vocab, tokenizer: Any, template: ChatTemplate) -> None:
    """The vocabulary, its special tokens and the chat template that the model was trained with."""
    writer.add_tokenizer_model(vocab.model)
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(list(vocab.tokens))
    writer.add_token_types(list(vocab.types))
    if vocab.scores:
        writer.add_token_scores(list(vocab.scores))
    if vocab.merges:
        writer.add_token_merges(list(vocab.merges))
    if vocab.adds_space is not None:
        writer.add_add_space_prefix(vocab.adds_space)
    ids = tokenizer("a", verbose=False)["input_ids"]
    writer.add_add_bos_token(adds_bos(tokenizer))
    writer.add_add_eos_token(ids[-1:] == [tokenizer.eos_token_id])
    for name, token in special_tokens(tokenizer, template).items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_chat_template(template.source)


def special_tokens(tokenizer: Any, template: ChatTemplate) -> dict[str, int]:
    """Ids by GGUF's names. llama.cpp stops at eos, eot and eom, so these three hold the tokens at which the
    trained model stops: the one that ends an assistant turn is eot where it is not eos itself.

    Raises:
        ModelError: the model stops at more tokens than GGUF has names for.
    """
    stops = list(template.stop_token_ids)
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else stops[0]
    others = [token for token in stops if token != eos]
    if len(others) > 2:
        raise ModelError(
            f"tokenizer: the chat template stops at {len(stops)} tokens ({', '.join(template.stop_texts)}); "
            "a GGUF file can name three"
        )
    found = {"eos": eos} | dict(zip(("eot", "eom"), others, strict=False))
    for name in ("bos", "unk", "pad", "sep"):
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None:
            found[name] = token
    return found


class SpacePrefix(StrEnum):
    """When a SentencePiece-like tokenizer puts a space in front of text."""

    ALWAYS = "always, and after every special token"  # as llama.cpp does
    UNLESS_SPACE = "only where none stands"
    FIRST = "of the very first word only, and only where none stands"
    NEVER = "never"


def space_prefix(spec: Mapping[str, Any]) -> SpacePrefix:
    """The habit of a tokenizer.json.

    Raises:
        ModelError: it changes text in a way that llama.cpp does not.
    """
    found = SpacePrefix.NEVER
    for step in _steps(spec.get("normalizer"), "normalizers"):
        if step == {"type": "Prepend", "prepend": "▁"}:
            found = SpacePrefix.ALWAYS
        elif step != {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
            raise _refusal("normalizer", step["type"], "Prepend ▁ and Replace ' ' by ▁")
    for step in _steps(spec.get("pre_tokenizer"), "pretokenizers"):
        splits_nothing = step["type"] == "Split" and step["pattern"] == {"String": " "}
        if step["type"] == "Metaspace" and step["replacement"] == "▁":
            found = _METASPACE[step["prepend_scheme"]]
        elif not splits_nothing:  # spaces are '▁' by then
            raise _refusal("pre_tokenizer", step["type"], "Metaspace")
    return found


_METASPACE = {
    "always": SpacePrefix.UNLESS_SPACE,
    "first": SpacePrefix.FIRST,
    "never": SpacePrefix.NEVER,
}


def _tokens(spec: Mapping[str, Any], n_rows: int) -> tuple[list[str], list[TokenType]]:
    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    types = [TokenType.UNUSED] * n_rows
    added = {token["content"]: token["id"] for token in spec["added_tokens"]}
    known = dict(spec["model"]["vocab"]) | added
    if max(known.values()) >= n_rows:
        raise ModelError(
            f"tokenizer: has token ids up to {max(known.values())}; the model's embedding has {n_rows} rows",
            hint="tokenizer and weights are not of the same model",
        )
    for token, index in known.items():
        tokens[index], types[index] = token, TokenType.NORMAL
    for token in spec["added_tokens"]:
        types[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    return tokens, types


def _piece_types(tokens: Sequence[str], types: Sequence[TokenType], unknown: str | None) -> list[TokenType]:
    found = list(types)
    for index, token in enumerate(tokens):
        if token == unknown:
            found[index] = TokenType.UNKNOWN
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            found[index] = TokenType.BYTE
        elif types[index] == TokenType.USER_DEFINED and "▁" in token:
            # Gemma's runs of spaces. As user-defined they would match a literal '▁' in the text, and be
            # printed as one; it is the merges that make them.
            found[index] = TokenType.NORMAL
    return found


def _scores(
    tokens: Sequence[str], types: Sequence[TokenType], merges: Sequence[tuple[str, ...]]
) -> list[float]:
    """llama.cpp joins the neighbours whose union has the highest score; tokenizer.json joins those whose
    merge stands first. So a piece scores the negative rank of its first merge, and what no merge makes
    scores below all."""
    rank: dict[str, int] = {}
    for i, (left, right) in enumerate(merges):
        rank.setdefault(left + right, i)
    return [
        0.0 if kind != TokenType.NORMAL else -float(rank.get(token, len(merges)))
        for token, kind in zip(tokens, types, strict=True)
    ]


def _pre_tokenizer(spec: Mapping[str, Any]) -> str:
    normalizer = spec.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}):
        raise _refusal("normalizer", normalizer["type"], "none or NFC")
    splits = []
    for step in _steps(spec.get("pre_tokenizer"), "pretokenizers"):
        kind = step["type"]
        if kind == "ByteLevel" and not step["add_prefix_space"]:
            splits += [_GPT2] if step["use_regex"] else []
        elif kind == "Digits" and step["individual_digits"]:
            splits.append(r"\p{N}")
        elif kind == "Split" and "Regex" in step["pattern"] and step["behavior"] == "Isolated":
            splits.append(step["pattern"]["Regex"])
        else:
            raise _refusal("pre_tokenizer", json.dumps(step), "ByteLevel, Digits or an isolating Split")
    key = (tuple(splits), bool(spec["model"].get("ignore_merges")))
    if key not in PRE_TOKENIZERS:
        raise _refusal(
            "pre_tokenizer",
            f"{' then '.join(splits)} (ignore_merges: {key[1]})",
            f"one of {', '.join(sorted(set(PRE_TOKENIZERS.values())))}",
        )
    return PRE_TOKENIZERS[key]


def _steps(component: Mapping[str, Any] | None, list_key: str) -> list[Mapping[str, Any]]:
    if component is None:
        return []
    return list(component[list_key]) if component["type"] == "Sequence" else [component]


def _refusal(key: str, found: object, expected: str) -> ModelError:
    return ModelError(
        f"tokenizer.json: {key}: got {found}; llama.cpp has no such tokenizer (it knows {expected})",
        hint="Choose another base: what cannot be a GGUF file could not be served.",
    )
