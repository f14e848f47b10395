"""The process that an owner's function runs in: `python -m nomoat.data.functions.child FILE FUNCTION`.

One JSON line in, {"messages", "answer", "row"}; one out, {"value"}, {"type"} of a value that is no number, or
{"raised"}. What the function prints goes to stderr. It runs beside what asks it, so that it can be ended when it hangs,
and it has no access to the model.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any


def _load(file: Path, name: str) -> Any:
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
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


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints must not look like replies

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    try:
        function = _load(Path(sys.argv[1]), sys.argv[2])
    except BaseException as error:  # an owner's module may even exit
        reply({"raised": _said(error)})
        return
    reply({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            value = function(asked["messages"], asked["answer"], asked["row"])
            is_number = isinstance(value, bool | int | float)
            reply({"value": value} if is_number else {"type": type(value).__name__})
        except BaseException as error:
            reply({"raised": _said(error)})


if __name__ == "__main__":
    main()
