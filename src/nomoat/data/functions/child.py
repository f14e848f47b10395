"""The process that an owner's function runs in: `python -m nomoat.data.functions.child FILE FUNCTION LIMIT_S`.

One JSON line in, {"messages", "answer", "row"}; one out, {"value"}, {"type"} of a value that is no number, or
{"raised"}. What the function prints goes to stderr. It runs beside what asks it, so that it can be ended when it hangs,
and it has no access to the model. Where nobody is left to do so, it ends itself a little after the limit.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any

START_LIMIT_S = 60.0
"""A module may import much before its function is there."""
_LATER_S = 5.0  # whoever asked is the first to say that it was too long


def _load(file: Path, name: str) -> Any:
    sys.path.insert(0, str(file.parent))
    # a file called json.py must not become everybody's json
    is_taken = file.stem in sys.modules or file.stem in sys.stdlib_module_names
    spec = importlib.util.spec_from_file_location(f"{file.stem}_of_owner" if is_taken else file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look there
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        names = ", ".join(sorted(n for n in vars(module) if callable(vars(module)[n]) and n[0] != "_"))
        raise AttributeError(f"it has no function {name}; it has: {names or 'none'}")
    with suppress(ValueError):  # some of C have no signature that can be told
        try:
            signature(function).bind("messages", "answer", "row")
        except TypeError as error:
            raise TypeError(
                f"{name}{signature(function)} is not called with messages, answer, row: {error}"
            ) from None
    return function


def _plain(value: Any) -> Any:
    """A number of NumPy or torch as Python's own."""
    with suppress(AttributeError, TypeError, ValueError, RuntimeError):  # not theirs, or more than one number
        return value.item()
    return value


@contextmanager
def _at_most(limit_s: float) -> Iterator[None]:
    """End this process where it takes longer: by a thread of C, which a pattern that backtracks cannot keep waiting."""
    faulthandler.dump_traceback_later(limit_s + _LATER_S, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints must not look like replies

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    file, name, limit_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    try:
        with _at_most(START_LIMIT_S):
            function = _load(file, name)
    except BaseException as error:  # an owner's module may even exit
        reply({"raised": _said(error)})
        return
    reply({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            with _at_most(limit_s):
                value = _plain(function(asked["messages"], asked["answer"], asked["row"]))
            is_number = isinstance(value, bool | int | float)
            reply({"value": value} if is_number else {"type": type(value).__name__})
        except BaseException as error:
            reply({"raised": _said(error)})


if __name__ == "__main__":
    main()
    os._exit(0)  # a thread that the module has started must not keep it
