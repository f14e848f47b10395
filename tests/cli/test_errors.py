"""The edge: what the owner reads, and the exit code, for every kind of error."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nomoat.cli.errors import Stopped, Verb
from nomoat.errors import DataError


def verb_that(does: Callable[[], None]) -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command(cls=Verb)
    def verb(workspace: Path = Path("/the/workspace")) -> None:
        does()

    return app


def raises(error: BaseException) -> Callable[[], None]:
    def does() -> None:
        raise error

    return does


def test_what_the_owner_can_mend_is_told_with_its_hint() -> None:
    error = DataError('night.jsonl:412: role: got "asistant"\nnight.jsonl:413: empty', hint="Mend the rows.")
    result = CliRunner().invoke(verb_that(raises(error)))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        'Error: night.jsonl:412: role: got "asistant"\n  night.jsonl:413: empty\n  Mend the rows.\n'
    )


def test_a_hint_of_several_lines_is_indented_as_the_error_itself_has_it() -> None:
    error = DataError("2 of 9 rows cannot be used.", hint="a.jsonl:1: is empty\n  a.jsonl:2: is empty")
    result = CliRunner().invoke(verb_that(raises(error)))
    assert result.stderr == f"Error: {error}\n"


def test_a_stop_on_request_is_no_error() -> None:
    result = CliRunner().invoke(verb_that(raises(Stopped("Stopped: at step 40."))))
    assert (result.exit_code, result.stderr) == (130, "Stopped: at step 40.\n")


def test_ctrl_c_says_how_to_go_on() -> None:
    result = CliRunner().invoke(verb_that(raises(KeyboardInterrupt())))
    assert result.exit_code == 130
    assert result.stderr == (
        "Stopped at once. What was finished is kept: run the same command again to go on from there.\n"
    )


def test_a_fault_of_ours_is_called_one_and_has_no_traceback() -> None:
    result = CliRunner().invoke(verb_that(raises(ZeroDivisionError("division\nby zero"))))
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert re.fullmatch(
        r"Error: this is a fault in nomoat, not in your data: ZeroDivisionError: division by zero "
        r"\(test_errors\.py, line \d+\)",
        first,
    )
    assert second == (
        "  Finished stages are kept. To report it, run the same command again with NOMOAT_DEBUG=1 and send "
        "the whole output."
    )


def test_the_traceback_comes_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_DEBUG", "1")
    result = CliRunner().invoke(verb_that(raises(ZeroDivisionError("x"))))
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last):")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full.\n  Free some space, then run the same command again."),
        (
            errno.EACCES,
            "permission denied.\n  Make it readable and writable for you, or choose another --workspace.",
        ),
        (errno.ENAMETOOLONG, "this name is too long.\n  Choose a shorter one."),
        (errno.EROFS, "the disk is read-only.\n  Choose a --workspace on a disk that can be written."),
    ],
)
def test_what_the_disk_refuses_names_the_path(number: int, said: str) -> None:
    error = OSError(number, os.strerror(number), "/data/a.jsonl")
    result = CliRunner().invoke(verb_that(raises(error)))
    assert (result.exit_code, result.stderr) == (2, f"Error: /data/a.jsonl: {said}\n")


def test_a_full_disk_behind_another_error_is_found() -> None:
    def does() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("writing failed") from error

    result = CliRunner().invoke(verb_that(does))
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: /the/workspace: the disk is full.")


def test_a_full_disk_told_by_a_rust_library_is_found() -> None:
    error = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    result = CliRunner().invoke(verb_that(raises(error)))
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: /the/workspace: the disk is full.")


def test_other_os_errors_are_faults() -> None:
    result = CliRunner().invoke(verb_that(raises(OSError(errno.EBADF, "Bad file descriptor"))))
    assert result.exit_code == 1


def test_a_reader_that_went_away_is_not_reported() -> None:
    result = CliRunner().invoke(verb_that(raises(BrokenPipeError(errno.EPIPE, "Broken pipe"))))
    assert (result.exit_code, result.stderr) == (1, "")


def test_typers_own_exits_pass() -> None:
    assert CliRunner().invoke(verb_that(raises(typer.Exit(7)))).exit_code == 7
    refused = CliRunner().invoke(verb_that(raises(typer.BadParameter("no such thing"))))
    assert refused.exit_code == 2
    assert "no such thing" in refused.stderr
