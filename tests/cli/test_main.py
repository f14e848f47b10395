"""The program as a whole: what it imports, how it answers wrong words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nomoat import __version__

SRC = Path(__file__).parents[2] / "src"
ALLOWED = {"annotated_doc", "nomoat", "shellingham", "typer", "typing_extensions"}
"""Top-level modules beyond the standard library that `import nomoat.cli.main` may load."""


def nomoat(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nomoat.cli.main", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        timeout=60,
    )


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\nbefore = set(sys.modules)\n"
        "from nomoat.cli.main import app\n"
        "try: app(['--help'], prog_name='nomoat')\nexcept SystemExit: pass\n"
        "found = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print('LOADED', *sorted(found - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        timeout=60,
        check=True,
    )
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert "nomoat" in loaded
    assert loaded <= ALLOWED


def test_help_lists_every_verb() -> None:
    done = nomoat("--help")
    assert done.returncode == 0
    for verb in ("run", "check", "status", "log", "chat", "serve", "keys", "export", "init"):
        assert f"\n  {verb} " in done.stdout


def test_version() -> None:
    done = nomoat("--version")
    assert (done.returncode, done.stdout) == (0, f"nomoat {__version__}\n")


def test_no_words_show_the_help_and_are_a_mistake() -> None:
    done = nomoat()
    assert done.returncode == 2
    assert "A first night:" in done.stdout + done.stderr


def test_a_mistyped_verb_gets_the_nearest_one() -> None:
    done = nomoat("chatt")
    assert done.returncode == 2
    assert "No such command 'chatt'. Did you mean 'chat'?" in done.stderr


@pytest.mark.parametrize("verb", ["run", "check", "status", "log", "chat", "serve", "keys", "export", "init"])
def test_every_verb_explains_itself(verb: str) -> None:
    done = nomoat(verb, "--help")
    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert "--json" in done.stdout


def test_what_a_terminal_cannot_write_does_not_end_the_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nomoat.cli.main", "run", "ünknown=1"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
