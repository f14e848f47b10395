"""docs/cli.md is what the verbs say of themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nomoat.cli.main import app
from nomoat.cli.reference import JSON_KEYS, WIDTH_COLUMNS, cli_page

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == cli_page(), "run `make docs`"


def test_every_verb_is_on_the_page() -> None:
    assert [command.name for command in app.registered_commands] == list(JSON_KEYS)


@pytest.mark.parametrize("verb", ["", *JSON_KEYS])
def test_the_page_shows_what_the_program_prints(verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nomoat.cli.main", *filter(None, [verb]), "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": str(WIDTH_COLUMNS)},
        timeout=60,
        check=True,
    )
    assert f"```\n{done.stdout.rstrip()}\n```" in cli_page()
