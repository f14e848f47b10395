"""What an owner's function consists of: its file, and the modules beside it that are imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def with_imports(file: Path) -> list[Path]:
    """The file and the modules of its folder that it imports, and they import, each once. As their text says it: what
    is looked for only when it runs is not among them."""
    files = [file.resolve()]
    folder = files[0].parent
    for one in files:  # which grows
        for other in _imported(one, folder):
            if other not in files and other.is_relative_to(folder):
                files.append(other)
    return files


def _imported(file: Path, folder: Path) -> Iterator[Path]:
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):  # whoever loads it says so
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield from _modules(folder, name.name)
        elif isinstance(node, ast.ImportFrom):
            start = file.joinpath(*[".."] * node.level).resolve() if node.level else folder
            for name in node.names:  # which may be modules too
                yield from _modules(start, ".".join(filter(None, (node.module, name.name))))


def _modules(start: Path, name: str) -> Iterator[Path]:
    """Files of a module, and of the packages that it is in."""
    place = start
    for part in name.split("."):
        place /= part
        yield from filter(Path.is_file, (place / "__init__.py", place.with_name(f"{part}.py")))
