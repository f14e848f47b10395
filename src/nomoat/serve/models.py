"""The models that a server may open, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nomoat.errors import ArtifactError
from nomoat.ledger.rows import model_key


@dataclass(frozen=True)
class ServedModel:
    """A GGUF file, the folder its tokenizer and chat template come from, and the context it was made for.

    Attributes:
        adapters: names and GGUF files of the LoRA adapters that are loaded with it.
        adapter: the one of them that this model is; None for the file alone.
        sha256: what adapters that were trained on a base are bound to, where it is known.
    """

    name: str
    gguf: Path
    tokenizer_dir: Path
    context_length: int
    verdict: str | None = None
    is_champion: bool = False
    is_base: bool = False
    adapters: tuple[tuple[str, Path], ...] = ()
    adapter: str | None = None
    sha256: str | None = None

    @property
    def weights_dir(self) -> Path | None:
        """The transformers folder that the GGUF file was made from; None for a base, which a workspace does not
        keep."""
        return None if self.is_base else self.tokenizer_dir

    @property
    def model(self) -> str:
        """How votes name the file, in every workspace."""
        file = self.gguf if self.adapter is None else dict(self.adapters)[self.adapter]
        return model_key(file.as_posix())


def weights_of(model: ServedModel) -> Path:
    """The transformers folder of a model. Raises ArtifactError where a workspace has none."""
    if model.weights_dir is None:
        raise ArtifactError(
            f"{model.name}: its weights in transformers' form are not in this workspace",
            hint="Ask for a generation, such as gen-0001, or take llama.cpp.",
        )
    return model.weights_dir


@dataclass(frozen=True)
class ModelName:
    """A name clients may use. `created_at` is ISO 8601, or None where it is not known."""

    name: str
    created_at: str | None = None


class Catalogue(Protocol):
    """Names and files of a workspace. Called from threads, for each request anew: what changes on the disk is
    served without a restart."""

    def names(self) -> list[ModelName]:
        """Every name, the best first."""

    def resolve(self, name: str) -> str | None:
        """The name under which the model is found: aliases of one model give the same; None for no model."""

    def weights_of(self, resolved: str) -> str:
        """The name whose files are loaded for it: for an adapter that of its base, for all others their own."""

    def find(self, resolved: str) -> ServedModel:
        """The files.

        Raises:
            NomoatError: they are gone or damaged.
        """
