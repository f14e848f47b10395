"""Modules beside an owner's function that belong to it, as a change of them changes what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.data.functions.modules import with_imports


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "own" / "rules.py"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import json, os.path\nimport helper", ["helper.py"]),
        ("def f(m, a, r):\n    from helper import words", ["helper.py"]),
        ("import helper as h\nfrom helper import *", ["helper.py"]),
        ("import other", ["other.py", "helper.py"]),
        ("import circle", ["circle.py"]),
        ("from pack import near", ["pack/__init__.py", "pack/near.py", "pack/deep/far.py", "helper.py"]),
        ("import pack.deep.far", ["pack/__init__.py", "pack/deep/far.py", "helper.py"]),
        ("from . import helper", ["helper.py"]),
        ("from .. import outside\nfrom ... import outside", []),
        ("import helper\ndef f(:", []),
        ("import helper\n\0", []),
    ],
)
def test_modules_of_its_folder_belong_to_a_file(text: str, found: list[str], tmp_path: Path) -> None:
    file = write(
        tmp_path,
        {
            "own/rules.py": text,
            "own/helper.py": "",
            "own/other.py": "import helper",
            "own/circle.py": "import rules, circle",
            "own/pack/__init__.py": "",
            "own/pack/near.py": "from .deep.far import x",
            "own/pack/deep/far.py": "from ... import outside\nimport helper",
            "own/unused.py": "",
            "outside.py": "",
        },
    )
    assert with_imports(file) == [file, *(file.parent / name for name in found)]
