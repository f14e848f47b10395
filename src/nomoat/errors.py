"""One tree of errors. Each class is also the standard-library type a caller would expect, and can be
pickled across processes. The text of an error is written for the owner: where, what was found, what was
expected, and what to do next."""

from __future__ import annotations


class NomoatError(Exception):
    """Something the owner can mend. The command line prints it without a traceback and exits with 2."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.hint)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


def _rebuild(cls: type[NomoatError], message: str, hint: str | None) -> NomoatError:
    return cls(message, hint=hint)


class RecipeError(NomoatError, ValueError):
    """A key or value of `nomoat.yaml` or of an override cannot be used."""


class DataError(NomoatError, ValueError):
    """A data file or a row of it cannot be used."""


class ModelError(NomoatError, ValueError):
    """A base model, tokenizer or adapter cannot be used."""


class ArtifactError(NomoatError, OSError):
    """An artifact is missing, damaged, or cannot be written."""


class LedgerError(NomoatError, RuntimeError):
    """The ledger cannot be opened, is newer than this program, or lacks what was asked for."""


class EngineError(NomoatError, RuntimeError):
    """A model file cannot be loaded or does not answer."""


class ServeError(NomoatError, RuntimeError):
    """The server, or a program it runs, cannot be started as it was asked to, or has ended."""


class BudgetError(NomoatError, RuntimeError):
    """The night does not fit the budget, however short it is made."""


class LicenceError(NomoatError, PermissionError):
    """A licence in the lineage forbids what was asked for."""


def nearest(word: str, choices: list[str]) -> str:
    """The closest of `choices` as ' Did you mean "x"?', or '' where none is close."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""
