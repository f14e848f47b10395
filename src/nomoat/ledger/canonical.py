"""One spelling for one value: the JSON that keys are hashed from, and the check that a value is JSON."""

from __future__ import annotations

import hashlib
import json
import math


def canonical_key(value: object) -> str:
    """sha256 (64 hex digits) of the canonical JSON of `value`.

    Keys sorted, no white space, ASCII, floats by repr, tuples as lists. Only what JSON can hold is taken:
    a path would make the key depend on where the workspace lies, and a NaN equals nothing, not even itself.
    Raises TypeError or ValueError that names the place inside `value`.
    """
    check_json(value, "key")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def check_json(value: object, where: str) -> None:
    """Raise TypeError or ValueError, naming the place, unless `value` is plain JSON (tuples are lists).

    Exact types, so that what is written is what is read back: a NumPy scalar, an enum or a path is refused.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            if type(name) is not str:
                raise TypeError(f"{where}: got the key {name!r} ({type(name).__name__}); expected a str")
            check_json(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_json(item, f"{where}[{index}]")
    elif type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{where}: got {value}; expected a finite number (JSON has no other)")
    elif value is not None and type(value) not in (str, int, bool):
        raise TypeError(
            f"{where}: got {value!r} ({type(value).__name__}); "
            "expected a dict, list, tuple, str, int, float, bool or None"
        )
