"""Commands of `nomoat`, run in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from nomoat.cli.main import app


def nomoat(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, [*words], input=typed)


def as_json(*words: str, typed: str = "") -> dict[str, Any]:
    """What a command that ends well says with --json, behind what it says besides."""
    result = nomoat(*words, "--json", typed=typed)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])
    return found
