"""Which code made an artifact: a hash over what can change its bytes."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

# Rooms that only show, serve or spread what the others make.
_SHOW = {"cli", "serve", "cluster", "assets"}
_SHOW_FILES = {"night/report.py", "night/report_plots.py"}
_LIBRARIES = (
    "torch", "transformers", "tokenizers", "jinja2", "peft", "safetensors", "gguf", "xllamacpp", "numpy", "scipy",
    "pyarrow",
)  # fmt: skip


@cache
def code_version() -> str:
    """16 hex digits over nomoat's sources and the versions of the libraries that do the arithmetic."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.[ch]") for path in root.rglob(kind)):
        relative = path.relative_to(root).as_posix()
        if relative.split("/")[0] not in _SHOW and relative not in _SHOW_FILES:
            digest.update(f"{relative}\0".encode() + path.read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library}=={version(library)}\n".encode())
    return digest.hexdigest()[:16]
