"""The files that every side reads: tokenised rows, the base with random weights, and the first adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, LlamaConfig

import nomoat
from nomoat.chat.template import ChatTemplate
from nomoat.data.judged import Group, JudgedRows, JudgedStore
from nomoat.data.judgements import prepare_judgements
from nomoat.data.pack import Head, StepPlan, Tokens, Trained
from nomoat.data.prepare import prepare
from nomoat.data.store import TokenStore
from nomoat.model.adapters import add_lora, save_adapter
from nomoat.model.load import Machine, load_model, load_tokenizer
from nomoat.model.merge import save_model
from training.cases import Case, Shape

SEED = 1
LLAMA2_IDS = 32_000
LORA_ALPHA = 32.0
BETA = 0.1
TOKENS_PER_STEP = 2048
"""nomoat's default."""
CURVE_TOKENS_PER_STEP = 1024
SHARED = Path(__file__).parents[3] / "shared" / "data"
ASSETS = Path(nomoat.__file__).parent / "assets"
ALPACA = SHARED / "alpaca" / "alpaca_random_sample.jsonl.gz"
HH_RLHF = SHARED / "hh_rlhf" / "harmless_base_test_split_a.jsonl.gz"
SOURCES_SAID = (
    "../shared/data's Alpaca, or HH-RLHF's pairs, and Llama 2's tokenizer; else the starter rows, no pairs, and the "
    "embedded base's"
)


def sources(case: Case, data: Path | None, tokenizer: Path | None) -> tuple[Path, Path]:
    """Rows and tokenizer as given; else Alpaca (of pairs: HH-RLHF) and Llama 2's where they lie beside the repository
    and the shape has ids enough for them, and otherwise what nomoat ships, which has no pairs."""
    rows, llama = HH_RLHF if case.pairs else ALPACA, SHARED / "tokenizers" / "llama2"
    if rows.is_file() and llama.is_dir() and case.shape.vocabulary >= LLAMA2_IDS:
        return data or rows, tokenizer or llama / "tokenizer.model"
    shipped = rows if case.pairs else ASSETS / "starter" / "train.jsonl"
    return data or shipped, tokenizer or ASSETS / "base"


@dataclass(frozen=True)
class Material:
    """A folder with `rows/` (token stores), `base/` and, for LoRA, `adapter/`, all sides' starting point."""

    folder: Path
    rows_in_a_pass: int

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def rows(self) -> Head:
        """The rows of one pass."""
        return Head(TokenStore.open(self.folder / "rows" / "train"), self.rows_in_a_pass)

    @property
    def held_out(self) -> Head:
        """One row: nomoat asks for some, and what it costs is not measured."""
        return Head(TokenStore.open(self.folder / "rows" / "held_out"), 1)

    def tokens_read(self) -> NDArray[np.int64]:
        """Real tokens of each row of a pass."""
        return self.rows.lengths

    def count_supervised(self) -> NDArray[np.int64]:
        """Supervised tokens of each row of a pass."""
        rows = self.rows
        return np.array([rows[row][1].sum() for row in range(len(rows))], dtype=np.int64)

    def plan(self, *, passes: int) -> StepPlan:
        """nomoat's steps of so many passes."""
        return StepPlan(
            self.rows.lengths, tokens_per_step=TOKENS_PER_STEP, epochs=passes, max_steps=None, seed=SEED
        )

    def curve_plan(self, steps: int) -> StepPlan:
        """The steps at which the losses of all sides are compared."""
        return StepPlan(
            self.rows.lengths, tokens_per_step=CURVE_TOKENS_PER_STEP, epochs=1, max_steps=steps, seed=SEED
        )


def open_tokenizer(path: Path) -> Any:
    """A folder with tokenizer.json, or a SentencePiece BPE model (*.model), whose merges its scores imply."""
    if path.is_dir():
        return load_tokenizer(path)
    import sentencepiece
    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocab = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    scores = {piece: pieces.get_score(i) for piece, i in vocab.items()}
    return LlamaTokenizer(vocab=vocab, merges=generate_merges(vocab, scores))


@dataclass(frozen=True)
class Sequences:
    """Every answer of a pass behind its prompt, by its length: what a side reads that shares no prompts."""

    lengths: NDArray[np.int64]


@dataclass(frozen=True)
class PairMaterial(Material):
    """The same with judged pairs: `rows_in_a_pass` pairs are a pass."""

    @property
    def pairs(self) -> JudgedRows:
        """The pairs of one pass."""
        return JudgedRows(JudgedStore(self.folder / "rows" / "judged" / "train")).first(self.rows_in_a_pass)

    @property
    def held_out_pairs(self) -> JudgedRows:
        """One pair: nomoat asks for some, and what it costs is not measured."""
        return JudgedRows(JudgedStore(self.folder / "rows" / "judged" / "held_out")).first(1)

    @property
    def rows(self) -> Sequences:  # type: ignore[override]
        return Sequences(self.real_tokens().reshape(-1))

    def real_tokens(self) -> NDArray[np.int64]:
        """[pairs, 2]: tokens of every answer with its prompt."""
        return np.array(
            [[len(group.prompt) + len(tokens) for tokens, _ in group.answers] for group in self._groups()],
            dtype=np.int64,
        )

    def tokens_read(self) -> NDArray[np.int64]:
        """Those of each pair as TRL reads it, its prompt twice."""
        return self.real_tokens().sum(1)

    def count_supervised(self) -> NDArray[np.int64]:
        """Supervised tokens of each pair of a pass."""
        return np.array([sum(on.sum() for _, on in g.answers) for g in self._groups()], dtype=np.int64)

    def plan(self, *, passes: int) -> StepPlan:
        return self._plan(TOKENS_PER_STEP, passes, None)

    def curve_plan(self, steps: int) -> StepPlan:
        return self._plan(CURVE_TOKENS_PER_STEP, 1, steps)

    def _plan(self, tokens: int, passes: int, steps: int | None) -> StepPlan:
        return StepPlan(self.pairs.lengths, tokens_per_step=tokens, epochs=passes, max_steps=steps, seed=SEED)

    def _groups(self) -> list[Group]:
        pairs = self.pairs
        return [pairs.groups[index] for index in range(len(pairs))]


def material_of(case: Case, folder: Path, rows: int) -> Material:
    """What is in a folder that `build` has filled."""
    return PairMaterial(folder, rows) if case.pairs else Material(folder, rows)


def build(case: Case, machine: Machine, *, data: Path, tokenizer: Any, rows: int, folder: Path) -> Material:
    """Write everything to `folder`. ValueError where the data has too few rows or the shape too few ids."""
    write_rows(case, tokenizer, data, folder, at_least=rows)
    material = material_of(case, folder, rows)
    _write_base(case, machine, tokenizer, material.base)
    if case.lora:
        material.adapter.mkdir()
        model = add_adapter(load_model(material.base, machine), case)
        save_adapter(model, material.adapter, base="base", base_sha256="")
    return material


def write_rows(case: Case, tokenizer: Any, data: Path, folder: Path, *, at_least: int) -> None:
    """Tokenise the data to `folder/rows`. ValueError where it has too few rows or the shape too few ids."""
    if len(tokenizer) > case.shape.vocabulary:
        raise ValueError(f"{case.name} has {case.shape.vocabulary} ids, the tokenizer {len(tokenizer)}")
    template = ChatTemplate.of(tokenizer)
    tokenizer.chat_template = template.source
    keys: dict[str, Any] = {"tokenizer": tokenizer, "template": template, "max_seq_len": case.max_tokens}
    if case.pairs:
        report = prepare_judgements([data], out=folder / "rows", wanted="pairs", max_truncated=1.0, **keys)
        found = report.rows.train
    else:
        report = prepare([data], out=folder / "rows", **keys)
        found = report.sequences["train"]
    if found < at_least:
        raise ValueError(f"{data} has {found} rows to train on; {at_least} were asked for")


def add_adapter(model: Any, case: Case) -> Any:
    """nomoat's first adapter, the same at every call."""
    return add_lora(
        model,
        lora_r=case.lora_r,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        target_modules="all-linear",
        seed=SEED,
        lora_layers=case.lora_layers,
    )


def llama_config(shape: Shape, tokenizer: Any) -> LlamaConfig:
    """transformers' configuration of a shape."""
    return LlamaConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=shape.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _write_base(case: Case, machine: Machine, tokenizer: Any, folder: Path) -> None:
    """Frozen weights as the machine computes, which is how models are published."""
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(llama_config(case.shape, tokenizer), dtype=torch.float32)
    save_model(model.to(machine.dtype) if case.lora else model, tokenizer, folder)


def labels_of(tokens: Tokens, trained: Trained) -> list[int]:
    """Labels as the peers take them: the token where it is trained, -100 elsewhere."""
    return np.where(trained, tokens.astype(np.int64), -100).tolist()  # type: ignore[no-any-return]
