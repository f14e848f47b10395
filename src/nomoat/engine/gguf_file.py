"""What can be said of a GGUF file without llama.cpp, which itself only says that it could not load it."""

from __future__ import annotations

from pathlib import Path

from nomoat.errors import EngineError

_MAGIC = b"GGUF"


def check_gguf(path: Path) -> None:
    """Refuse what is not a GGUF file at all.

    Raises:
        EngineError: the path is missing or a folder, or the file does not begin with 'GGUF'.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise EngineError(f"{path}: {what}; expected a GGUF file")
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise EngineError(f"{path}: begins with {magic!r}; expected {_MAGIC!r}: this is not a GGUF file")


def load_failure(path: Path) -> EngineError:
    """The error for a GGUF file that llama.cpp refused to load: is the file cut short, or is it the model?"""
    import gguf

    size = path.stat().st_size
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        return EngineError(
            f"{path}: a GGUF file cut short or damaged: {size} bytes ({type(error).__name__}: {error})",
            hint="make the file again, or copy it again and compare its size",
        )
    field = reader.get_field(gguf.Keys.General.ARCHITECTURE)
    architecture = field.contents() if field is not None else None
    return EngineError(
        f"{path}: llama.cpp cannot load this model (architecture {architecture!r}, {size} bytes)",
        hint="is there memory enough, and does this llama.cpp know the architecture?",
    )
