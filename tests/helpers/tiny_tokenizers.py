"""Tokenizers made in the test (a byte-level BPE of some hundred pieces), and Qwen2.5's from shared data."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

TEXT = [
    "Hello there, how are you today?\n\nI am fine, thank you. What is the answer to 12 + 30?",
    "User:\nTell me a story.\nAssistant:\nOnce upon a time there was a little fox.\n",
    "system user assistant model tool\n\n\n  indented text\n    more of it\n",
    "<|im_start|>user\nWho are you?<|im_end|>\n[INST] What? [/INST] That. \n\n",
] * 20
# How Llama 3 and Qwen2 cut text: line breaks stay together, where GPT-2's cut gives the last one to what
# follows.
LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
SHARED = Path(__file__).parents[3] / "shared" / "data"


@cache
def _backend(specials: tuple[AddedToken | str, ...], cut: str | None) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if cut is not None:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(cut), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return str(tokenizer.to_str())


def tiny(
    *specials: AddedToken | str,
    eos: str | None = None,
    bos: str | None = None,
    add_bos: bool = False,
    template: str | None = None,
    cut: str | None = None,
) -> Any:
    """A fast tokenizer with these special tokens; `add_bos` makes its post-processor write bos first, and
    `cut` is a regex that cuts the text before merging (None: GPT-2's)."""
    backend = Tokenizer.from_str(_backend(specials, cut))
    if add_bos:
        assert bos is not None
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, bos_token=bos)
    tokenizer.chat_template = template
    return tokenizer


def qwen(tmp_path: Path) -> Any:
    """Qwen2.5's tokenizer with its own chat template; skips the test where the shared data is not there."""
    source = SHARED / "tokenizers" / "qwen2.5"
    if not source.is_dir():
        pytest.skip("../shared/data/tokenizers/qwen2.5 is not there: Qwen2.5's vocabulary cannot be tested")
    for path in source.iterdir():
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        (tmp_path / path.name.removesuffix(".gz")).write_bytes(data)
    return AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)


def shared(name: str) -> Path:
    """A file of the shared data; skips the test where it is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"../shared/data/{name} is not there: this test needs real data")
    return path
