"""LoRA adapters that `nomoat serve` puts on models of the workspace: `poet=DIR`, `poet@gen-0002=DIR`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.errors import ServeError

if TYPE_CHECKING:
    from nomoat.serve.models import Catalogue, ServedModel

_FORM = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(@(?P<on>[\w.-]+))?=(?P<folder>.+)", re.ASCII)
_TAKEN = re.compile(r"champion|base|latest|gen-\d+|\d+")


@dataclass(frozen=True)
class Adapter:
    """An adapter by the name it is served under: its GGUF file, and the resolved name of the model it is for."""

    name: str
    on: str
    gguf: Path


def read_adapters(words: Sequence[str], models: Catalogue, place: Path) -> list[Adapter]:
    """Write the GGUF files of `--adapter` options into `place`, each in a folder named by a hash of its bytes.

    Raises:
        ServeError: an option is not NAME=DIR or NAME@MODEL=DIR, its name is taken, or there is no such model.
        ModelError: the folder holds no adapter, or it does not fit the model.
    """
    found: list[Adapter] = []
    for word in words:
        match = _FORM.fullmatch(word)
        if match is None:
            raise ServeError(
                f"--adapter: got {word!r}; expected NAME=DIR, or NAME@MODEL=DIR",
                hint="Such as --adapter poet=adapters/poet, or poet@gen-0002=adapters/poet",
            )
        name, on = match["name"], match["on"] or "base"
        if _TAKEN.fullmatch(name) or any(other.name == name for other in found):
            raise ServeError(f"--adapter {word}: the name {name} is taken", hint="Give it another one.")
        resolved = models.resolve(on)
        if resolved is None:
            known = ", ".join(one.name for one in models.names())
            raise ServeError(f"--adapter {word}: there is no model {on}; this workspace has {known}")
        found.append(
            Adapter(name, resolved, _write(Path(match["folder"]), models.find(resolved), name, place))
        )
    return found


def _write(folder: Path, model: ServedModel, name: str, place: Path) -> Path:
    from nomoat.ledger.files import hash_file
    from nomoat.model.adapters import check_base
    from nomoat.model.load import fingerprint
    from nomoat.quantize.adapter import adapter_to_gguf

    written = place / f"{name}.gguf"
    adapter_to_gguf(folder, model.tokenizer_dir, written)
    sha256 = model.sha256 or (fingerprint(model.weights_dir) if model.weights_dir else None)
    if sha256 is not None:
        check_base(folder, sha256)
    home = place / hash_file(written)[:16]  # votes name a file by its folder and its name
    home.mkdir(exist_ok=True)
    return written.rename(home / written.name)
